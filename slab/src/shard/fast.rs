//! The fast paths: what nearly every allocation and free runs, and nothing else.
//!
//! Owns no state. Protocol: the caller has the shard's lease, or holds the sentinel, on which both
//! paths fall through. No lock, no atomic read-modify-write, no call.

use super::imp::Shard;
use crate::layout::{
    Block, List, SLICE_BYTES, Segment, SegmentMap, Slab, SlabPtr, open_block, wipe_link,
};

/// What a fast free found.
#[must_use]
pub(crate) enum Freed {
    /// The block is back on its slab's list.
    Done,
    /// The block is back, and the slab's owner has to look at it.
    Look(SlabPtr),
    /// Not a block of this shard, or one that needs more than a push, or a fault: nothing was
    /// changed.
    Elsewhere,
}

impl Shard {
    /// Takes a block off the class's ready list; null when that is empty.
    ///
    /// # Safety
    /// The caller has this shard's lease, or this is the sentinel; `class` is below the number of
    /// classes.
    #[inline(always)]
    pub(crate) unsafe fn alloc_fast(&self, class: usize) -> Block {
        // SAFETY:
        // 1. `class` is in bounds of the array by contract;
        // 2. a block on a ready list is free, ours by the lease (rules H1, H3), and its link was
        //    written with the heap's key; the sentinel's lists are empty, so it is only read.
        unsafe {
            let ready = self.ready.get_unchecked(class);
            let list = List::of(ready.get());
            let block = list.first();
            if !block.is_null() {
                ready.set(self.key.rest(block).word());
                open_block(block);
                wipe_link(block);
            }
            block
        }
    }

    /// Puts a block back if it belongs to a slab of this shard and nothing about it is suspicious.
    ///
    /// The block freed last is turned away if it comes again. With `CHECK`, so is any block that looks
    /// free already and any address that is not the start of a block. The slow path looks closer and
    /// names the fault.
    ///
    /// # Safety
    /// The caller has this shard's lease, or this is the sentinel, and gives up `block`, which came
    /// from an allocator and is in use.
    #[inline(always)]
    pub(crate) unsafe fn free_fast<const CHECK: bool>(&self, block: Block) -> Freed {
        let Some((base, offset)) = SegmentMap::recent(block.addr()) else {
            return Freed::Elsewhere;
        };
        // SAFETY:
        // 1. the table says that the segment's head may be read (rule M1);
        // 2. the table of first slices holds numbers of slices, zero where there is no slab, and
        //    nobody owns the head's slice;
        // 3. an owner word that names this shard is that of a slab of ours, whose metadata the lease
        //    lets us change (rules H1, O1).
        unsafe {
            let segment = &*std::ptr::with_exposed_provenance::<Segment>(base);
            let first = segment.table.first.get_unchecked(offset / SLICE_BYTES).get() as usize;
            if segment.owners.of_first(first).get() != self.owner() {
                return Freed::Elsewhere;
            }
            let slab = &*(&raw const segment.slabs).cast::<Slab>().add(first);
            let free = slab.free();
            let place = (offset - first * SLICE_BYTES).wrapping_sub(slab.lead());
            let wrong = (CHECK || cfg!(flagstone_asan))
                && (self.key.looks_free(block) || !slab.starts_block(place));
            if block == free.first() || wrong {
                return Freed::Elsewhere;
            }
            slab.wipe(block);
            self.key.set_rest(block, free);
            slab.close(block);
            let free = free.behind(block);
            slab.set_free(free);
            if slab.wants_look(free) { Freed::Look(slab) } else { Freed::Done }
        }
    }
}
