//! Slabs of segments: where their metadata and their blocks lie, and their pages.
//!
//! Owns the way from a block to its slab and back, by masking, and what a slab does that knows of
//! purged parts ([`purge`](super::purge)). The rest of a slab is the same wherever it lies.

use std::ptr;

use super::link::{Block, LinkKey};
use super::segment::{SLICE_BYTES, Segment, slice_of};
use super::slab::Slab;
use crate::counter::SharedCounter;
use crate::os::poison;

impl Slab {
    /// The segment whose head holds this metadata.
    pub(crate) fn segment(&self) -> &Segment {
        // SAFETY: every slab but the stand-in, for which nobody asks, lies in a segment's head, and
        // the segment lives at least as long as a slab of it is in use.
        unsafe { &*Segment::base_of(ptr::from_ref(self).cast_mut().cast()) }
    }

    /// Number of the slab's first slice.
    pub(crate) fn first_slice(&self) -> usize {
        self.segment().index_of(self)
    }

    /// Address of the slab's first byte.
    pub(crate) fn start(&self) -> *mut u8 {
        self.segment().start().wrapping_add(self.first_slice() * SLICE_BYTES)
    }

    /// Tells the sanitizer, if there is one, that no block of the slab is in use. The owner of a slab
    /// that was set up.
    pub(crate) fn close_all(&self) {
        poison::close(self.start(), self.slices.get() as usize * SLICE_BYTES);
    }

    /// Tells the sanitizer, if there is one, that a block of the slab was given up.
    #[inline(always)]
    pub(crate) fn close(&self, block: Block) {
        if cfg!(flagstone_asan) {
            poison::close(block, self.block_bytes.get() as usize);
        }
    }

    /// Whether `block` is the address of one of the slab's blocks. For whoever has a block of it:
    /// reads only what rule S2 lets them.
    pub(crate) fn is_block(&self, block: Block) -> bool {
        self.is_block_from(self.start(), block)
    }

    /// Links blocks without pages, a part of the slab that was purged or else about a page of blocks
    /// that were never used, and returns whether there were any. Touching them late keeps the
    /// resident set to what is needed. `purged_bytes` is the heap's gauge.
    ///
    /// # Safety
    /// The caller owns the slab, whose free list is empty.
    pub(crate) unsafe fn link_more(&self, key: LinkKey, purged_bytes: &SharedCounter) -> bool {
        // SAFETY: by contract.
        unsafe { self.relink_purged(key, purged_bytes) || self.link_untouched(self.start(), key) }
    }

    /// Counts every block as out, as if none were free; returns the bytes of parts without pages,
    /// which are as good as used. For the slab of an orphaned shard, whose list may be cut anywhere.
    pub(crate) fn forget_free_blocks(&self) -> u64 {
        let purged = self.purged_bytes();
        self.purged.set(0);
        self.free.set(ptr::null_mut());
        self.linked.set(self.capacity.get());
        self.needed.set(self.capacity.get());
        self.hold.set(0);
        self.listed.set(false);
        self.next.set(ptr::null());
        self.prev.set(ptr::null());
        purged
    }

    /// Takes the whole free list of a slab that is current: the blocks are out from now on.
    /// Returns the first and the number.
    pub(crate) fn take_free(&self) -> (Block, u32) {
        // By the equation at the top, without a walk.
        let all = self.linked.get() - self.purged_blocks();
        let taken = all - self.out();
        self.needed.set(all + 1);
        (self.free.replace(ptr::null_mut()), taken)
    }

    /// Checks the equation at the top of this file. The caller owns the slab.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn debug_validate(&self, key: LinkKey) {
        let mut free = 0;
        let mut block = self.free.get();
        while !block.is_null() {
            assert!(self.is_block(block), "free list leaves its slab");
            free += 1;
            assert!(free <= self.linked.get(), "free list has a cycle");
            // SAFETY: the block is on the free list of a slab that the caller owns.
            block = unsafe { key.next(block) };
        }
        let purged = self.purged_blocks();
        assert_eq!(self.out() + free + purged, self.linked.get());
        assert!(self.linked.get() <= self.capacity.get());
    }
}

/// The slab whose blocks include the address, by masking; reads only the segment's head.
///
/// # Safety
/// `address` lies in a slab in use and the caller holds a block of it or owns it.
#[inline(always)]
pub(crate) unsafe fn slab_of(address: *mut u8) -> &'static Slab {
    // SAFETY: the segment of a slab in use is mapped. The reference lives no longer than the block
    // that the caller holds, which keeps the slab in use (rule S3); `'static` only says that no
    // borrow tracks it.
    unsafe {
        let segment = &*Segment::base_of(address);
        let first = segment.table.first[slice_of(address.addr())].get() as usize;
        &*ptr::from_ref(&segment.slabs[first & 63])
    }
}

/// Tells the sanitizer, if there is one, that a block is handed out.
///
/// # Safety
/// The caller has the block, of a slab in use.
#[inline(always)]
pub(crate) unsafe fn open_block(block: Block) {
    if cfg!(flagstone_asan) {
        // SAFETY: by contract.
        poison::open(block, unsafe { slab_of(block) }.block_bytes.get() as usize);
    }
}
