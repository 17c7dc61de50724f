//! Slab metadata: one 64-byte entry per slice, used for a slab's first slice.
//!
//! Owns the shape and the list links. Where entries and blocks lie is not known here: a segment's head
//! holds both for heaps (`seat`), a table in the caller's buffer for the embedded heap. Who may touch what
//! is written in `docs/invariants/heap.md`;
//! in short (rule S1): every `Cell` here belongs to the slab's owner (a shard's leaseholder, the
//! bucket's lock holder, the pool while nobody owns it). `class`, `slices` and `block_bytes` do not
//! change while a block of the slab is out, so whoever holds a block may read them (rule S2).
//!
//! Frees count down: `needed` more blocks must come back before the owner has to look at the slab.
//! What the count leaves out is in `hold`, so `needed + hold` blocks are *out*, that is, not on the
//! free list: in use, on their way back, or on the owner's ready list. What zero means depends on
//! where the slab is:
//!
//! * current: `hold` is -1, so the count cannot reach zero: nobody need look at it;
//! * sleeping (it ran out; no list has it): an eighth of its blocks is back and it is worth while to
//!   list it, after snmalloc's sleeping slabs; until then each free is a push and no more;
//! * listed as partly used: `hold` is 0, and it is empty.
//!
//! Equation that `debug_validate` checks: `out + |free list| + |purged blocks| = linked <= capacity`.

use core::ptr;

use super::class::ClassInfo;
use super::link::{Block, LinkKey, wipe_link};
use crate::sync::Cell;

/// A pointer to slab metadata; never null once a slab exists.
pub(crate) type SlabPtr = *const Slab;

/// Metadata of one slab.
#[repr(C, align(64))]
pub(crate) struct Slab {
    /// First free block, or null.
    pub(crate) free: Cell<Block>,
    /// Blocks that must come back before the owner has to look; see the top.
    pub(crate) needed: Cell<u32>,
    /// Size class.
    pub(crate) class: Cell<u8>,
    /// Slices that the slab covers.
    pub(crate) slices: Cell<u8>,
    /// Whether the slab is in its shard's list of partly used ones.
    pub(crate) listed: Cell<bool>,
    /// Blocks that were ever linked: the rest of the slab was never touched.
    pub(crate) linked: Cell<u32>,
    /// Blocks that fit.
    pub(crate) capacity: Cell<u32>,
    /// Bytes of one block.
    pub(crate) block_bytes: Cell<u32>,
    /// Blocks out that `needed` does not count, modulo 2^32.
    pub(super) hold: Cell<u32>,
    /// Parts without pages, a bit each; see [`purge`](super::purge).
    pub(crate) purged: Cell<u64>,
    /// 2^64 / `block_bytes`, rounded up.
    inverse: Cell<u64>,
    pub(super) next: Cell<SlabPtr>,
    pub(super) prev: Cell<SlabPtr>,
}

const _: () = assert!(size_of::<Slab>() == 64);

// SAFETY: rule S1 gives every cell one thread at a time, rule S2 covers the shared reads; ownership
// passes between threads only under a lock or a lease, which order the accesses.
unsafe impl Sync for Slab {}

/// Stands in wherever a class has no current slab: its list is empty for ever, so the fast path
/// needs no null check. Nobody writes it.
pub(crate) static EMPTY_SLAB: Slab = Slab::vacant();

impl Slab {
    const fn vacant() -> Self {
        Self {
            free: Cell::new(ptr::null_mut()),
            needed: Cell::new(0),
            class: Cell::new(0),
            slices: Cell::new(0),
            purged: Cell::new(0),
            linked: Cell::new(0),
            capacity: Cell::new(0),
            block_bytes: Cell::new(0),
            hold: Cell::new(0),
            listed: Cell::new(false),
            inverse: Cell::new(0),
            next: Cell::new(ptr::null()),
            prev: Cell::new(ptr::null()),
        }
    }

    /// Whether this is the stand-in for "no current slab".
    pub(crate) fn is_stand_in(&self) -> bool {
        ptr::eq(self, &EMPTY_SLAB)
    }

    /// Makes a slab of fresh slices ready for blocks of a class. The caller is the new owner.
    pub(crate) fn set_up(&self, class: usize, info: &ClassInfo) {
        self.free.set(ptr::null_mut());
        self.needed.set(0);
        self.hold.set(0);
        self.listed.set(false);
        self.class.set(class as u8);
        self.slices.set(info.slices as u8);
        self.purged.set(0);
        self.linked.set(0);
        self.capacity.set(info.capacity);
        self.block_bytes.set(info.block_bytes);
        self.inverse.set(info.inverse);
        self.next.set(ptr::null());
        self.prev.set(ptr::null());
    }

    /// Whether an offset from the slab's start is a multiple of the block size; see
    /// `ClassInfo::starts_block`.
    #[inline(always)]
    pub(crate) fn starts_block(&self, offset: usize) -> bool {
        let inverse = self.inverse.get();
        (offset as u64).wrapping_mul(inverse) < inverse
    }

    /// Whether `block` is the address of one of the blocks of this slab, which starts at `start`. For
    /// whoever has a block of it: reads only what rule S2 lets them.
    pub(crate) fn is_block_from(&self, start: *mut u8, block: Block) -> bool {
        let offset = block.addr().wrapping_sub(start.addr());
        let bytes = self.block_bytes.get() as usize;
        self.starts_block(offset) && offset < self.capacity.get() as usize * bytes
    }

    /// Whether no block can be had: every one is out.
    pub(crate) fn is_full(&self) -> bool {
        self.free.get().is_null()
            && self.linked.get() == self.capacity.get()
            && self.purged.get() == 0
    }

    /// Links about a page of blocks that were never used, and returns whether there were any. Touching
    /// them late keeps the resident set to what is needed.
    ///
    /// # Safety
    /// The caller owns the slab, which starts at `start` and whose free list is empty.
    pub(crate) unsafe fn link_untouched(&self, start: *mut u8, key: LinkKey) -> bool {
        let (linked, capacity) = (self.linked.get(), self.capacity.get());
        if linked == capacity {
            return false;
        }
        let bytes = self.block_bytes.get();
        let more = (LINK_BYTES / bytes).clamp(1, capacity - linked);
        let first = start.wrapping_add(linked as usize * bytes as usize);
        let mut block = first;
        for _ in 1..more {
            let next = block.wrapping_add(bytes as usize);
            // SAFETY: the blocks lie inside the slab and are nobody's yet.
            unsafe { key.set_next(block, next) };
            block = next;
        }
        // SAFETY: as above.
        unsafe { key.set_next(block, ptr::null_mut()) };
        self.free.set(first);
        self.linked.set(linked + more);
        true
    }

    /// Blocks that are not on the free list.
    pub(crate) fn out(&self) -> u32 {
        self.needed.get().wrapping_add(self.hold.get())
    }

    /// From here on zero means empty.
    pub(crate) fn watch_for_empty(&self) {
        self.needed.set(self.out());
        self.hold.set(0);
    }

    /// From here on the count does not reach zero: the slab is current.
    pub(crate) fn watch_for_nothing(&self) {
        self.needed.set(self.out() + 1);
        self.hold.set(u32::MAX);
    }

    /// From here on zero means that enough blocks are back. Every block is out.
    pub(crate) fn sleep(&self) {
        let out = self.out();
        let enough = (out / WAKE_SHARE).max(1);
        self.needed.set(enough);
        self.hold.set(out - enough);
    }

    /// Takes one block off the free list.
    ///
    /// # Safety
    /// The caller owns the slab.
    #[inline(always)]
    pub(crate) unsafe fn pop(&self, key: LinkKey) -> Option<Block> {
        let block = self.free.get();
        if block.is_null() {
            return None;
        }
        // SAFETY: a block on the free list is free and its link was written with the heap's key.
        self.free.set(unsafe { key.next(block) });
        self.needed.set(self.needed.get() + 1);
        // SAFETY: the block is the caller's now.
        unsafe { wipe_link(block) };
        Some(block)
    }

    /// Puts a chain of blocks, linked with the heap's key, onto the free list. Returns whether the
    /// owner has to look at the slab now, and then what that means by [`out`](Self::out): `needed`
    /// counts all that are out.
    ///
    /// # Safety
    /// The caller owns the slab and the chain, whose `count` blocks are blocks of this slab.
    #[must_use]
    pub(crate) unsafe fn push_chain(
        &self,
        key: LinkKey,
        head: Block,
        tail: Block,
        count: u32,
    ) -> bool {
        // SAFETY: the caller owns the chain.
        unsafe { key.set_next(tail, self.free.get()) };
        self.free.set(head);
        let needed = self.needed.get();
        if needed > count {
            self.needed.set(needed - count);
            return false;
        }
        self.needed.set(self.out() - count);
        self.hold.set(0);
        true
    }

    /// Free blocks right now, linked or not.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn free_blocks(&self) -> u32 {
        self.capacity.get() - self.out()
    }
}

/// A sleeping slab is listed when this part of its blocks is back. A smaller part would have slabs
/// listed, made current and run out for a block or two; what waits is at most this part of full slabs.
const WAKE_SHARE: u32 = 8;

/// Bytes of blocks linked at a time.
const LINK_BYTES: u32 = 4096;

/// A doubly linked list of slabs. All access is the owner's (rule S1).
pub(crate) struct SlabList {
    head: Cell<SlabPtr>,
    tail: Cell<SlabPtr>,
}

impl SlabList {
    pub(crate) const fn new() -> Self {
        Self { head: Cell::new(ptr::null()), tail: Cell::new(ptr::null()) }
    }

    /// The first slab, or null.
    #[inline(always)]
    pub(crate) fn first(&self) -> SlabPtr {
        self.head.get()
    }

    /// Puts a slab last: the first ones have had more time for blocks to come back.
    ///
    /// # Safety
    /// The caller owns list and slab, and the slab is in no list.
    pub(crate) unsafe fn push(&self, slab: SlabPtr) {
        let last = self.tail.replace(slab);
        // SAFETY: slabs in lists are in use, so their segments are mapped; the caller owns them.
        unsafe {
            (*slab).prev.set(last);
            (*slab).next.set(ptr::null());
            match last.as_ref() {
                Some(last) => last.next.set(slab),
                None => self.head.set(slab),
            }
        }
    }

    /// Takes a slab out.
    ///
    /// # Safety
    /// The caller owns list and slab, and the slab is in this list.
    pub(crate) unsafe fn remove(&self, slab: SlabPtr) {
        // SAFETY: as in `push`.
        unsafe {
            let (next, prev) = ((*slab).next.get(), (*slab).prev.get());
            match prev.as_ref() {
                Some(prev) => prev.next.set(next),
                None => self.head.set(next),
            }
            match next.as_ref() {
                Some(next) => next.prev.set(prev),
                None => self.tail.set(prev),
            }
            (*slab).next.set(ptr::null());
            (*slab).prev.set(ptr::null());
        }
    }

    /// The slab after `slab`, or null.
    ///
    /// # Safety
    /// The caller owns list and slab, and the slab is in this list.
    pub(crate) unsafe fn after(&self, slab: SlabPtr) -> SlabPtr {
        // SAFETY: as in `push`.
        unsafe { (*slab).next.get() }
    }
}
