//! Slabs of segments: where their metadata and their blocks lie, and their pages.
//!
//! Owns the way from a block to its slab and back, by masking, and what a slab does that knows of
//! purged parts ([`purge`](super::purge)). The rest of a slab is the same wherever it lies.

use std::ptr;

use super::chain::{ChainWord, Head};
use super::link::{Block, LinkKey, List};
use super::segment::{SLICE_BYTES, Segment, slice_of};
use super::slab::{NEVER, NO_CHAIN, Slab};
use crate::counter::SharedCounter;
use crate::os::{debug_check, poison};

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
    pub(crate) fn base(&self) -> *mut u8 {
        self.segment().start().wrapping_add(self.first_slice() * SLICE_BYTES)
    }

    /// Address of the slab's first block.
    pub(crate) fn start(&self) -> *mut u8 {
        self.base().wrapping_add(self.lead())
    }

    /// Tells the sanitizer, if there is one, that no block of the slab is in use. The owner of a slab
    /// that was set up.
    pub(crate) fn close_all(&self) {
        poison::close(self.base(), self.slices.get() as usize * SLICE_BYTES);
    }

    /// Tells the sanitizer, if there is one, that a block of the slab was given up.
    #[inline(always)]
    pub(crate) fn close(&self, block: Block) {
        if cfg!(flagstone_asan) {
            poison::close(block, self.block_bytes.get() as usize);
        }
    }

    /// With the feature `hardened`, fills a block that was given up with zeros, so that nothing of it is
    /// left for who gets it next, or reads what is free.
    ///
    /// # Safety
    /// The caller has the block, of this slab.
    #[inline(always)]
    pub(crate) unsafe fn wipe(&self, block: Block) {
        if cfg!(feature = "hardened") {
            // SAFETY: by contract.
            unsafe { ptr::write_bytes(block, 0, self.block_bytes.get() as usize) };
        }
    }

    /// Whether `block` is the address of one of the slab's blocks. For whoever has a block of it:
    /// reads only what rule S2 lets them.
    pub(crate) fn is_block(&self, block: Block) -> bool {
        self.is_block_from(self.start(), block)
    }

    /// Makes the free list one of blocks: of what came back, or else of blocks without pages. Returns
    /// whether there are any.
    ///
    /// # Safety
    /// The caller owns the slab.
    pub(crate) unsafe fn link_free(&self, key: LinkKey, purged_bytes: &SharedCounter) -> bool {
        // SAFETY: by contract.
        unsafe {
            self.link_chains(key);
            !self.free().is_empty() || self.link_more(key, purged_bytes)
        }
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

    /// Takes a chain of blocks back, and touches no block of it but the head: the others are linked when
    /// they are needed. Returns whether the owner has to look at the slab now.
    ///
    /// # Safety
    /// The caller owns the slab and the chain, of `count` blocks of this slab.
    #[must_use]
    pub(crate) unsafe fn push_chain(&self, key: LinkKey, head: Head, count: u32) -> bool {
        if count == 1 {
            // The head is touched anyway, and linked it is known to be free at once.
            // SAFETY: by contract.
            unsafe { self.push(key, head.block()) };
            return self.wants_look(self.free());
        }
        let next = self.chain.replace((head.raw().addr() - self.start().addr()) as u32);
        // SAFETY: the caller owns the chain.
        unsafe { ChainWord::new(self.chain_at(next), count).write(head) };
        self.unlinked.set(self.unlinked.get() + count as u16);
        let look = self.look.get();
        if look == NEVER {
            return false;
        }
        let left = u32::from(look).saturating_sub(self.free().len());
        self.look.set(look.saturating_sub(count as u16));
        count >= left
    }

    /// The head of a chain of this slab, if it is one.
    pub(super) fn chain_at(&self, chain: u32) -> Head {
        if chain == NO_CHAIN {
            return Head::NONE;
        }
        Head::of_raw(self.start().wrapping_add(chain as usize))
    }

    /// Whether a block that looks free is: it is marked, or its link is that of a free list, to none or to
    /// another block of the slab with as many behind that as it says itself.
    ///
    /// A program may have written a word that reads like a link to a block, one of up to 2^24 of all
    /// 2^64. So the link is followed a step: the next block's has to fit as well.
    ///
    /// # Safety
    /// The caller owns `block`, a block of this slab.
    #[cold]
    pub(crate) unsafe fn is_linked(&self, key: LinkKey, block: Block) -> bool {
        // SAFETY: by contract.
        let rest = unsafe { key.rest(block) };
        if rest == List::EMPTY || rest == List::starting(block, 0) {
            return true;
        }
        // SAFETY: a block of a slab in use, whose pages are mapped. If the link is one, the block is free
        // and in the same list, and nobody writes to it before `block` itself is taken from there.
        let behind = || unsafe { key.rest(rest.first()) };
        self.is_block(rest.first()) && behind().len() + 1 == rest.len()
    }

    /// Whether chains came back that are not linked yet. The owner only.
    pub(crate) fn has_unlinked(&self) -> bool {
        self.unlinked.get() != 0
    }

    /// Takes the whole free list of a slab without chains. The blocks are out from now on.
    pub(crate) fn take_free(&self) -> List {
        let list = self.free();
        debug_check!(self.unlinked.get() == 0, "blocks in chains would be forgotten");
        self.set_free(List::EMPTY);
        self.counted.set(0);
        list
    }

    /// Takes the block that was freed last, of a slab with free blocks; the others stay. It is out from now on.
    ///
    /// # Safety
    /// The caller owns the slab.
    pub(crate) unsafe fn take_last_freed(&self, key: LinkKey) -> Block {
        let block = self.free().first();
        // SAFETY: by contract; a block on the free list is free and linked.
        self.set_free(unsafe { key.rest(block) });
        self.skip_count();
        block
    }

    /// Puts a list back where [`take_free`](Self::take_free) took it from; the list there is empty
    /// still.
    pub(crate) fn put_free(&self, list: List) {
        debug_check!(self.free().is_empty(), "a free list would be lost");
        self.set_free(list);
    }

    /// Counts every block as out, as if none were free; returns the bytes of parts without pages,
    /// which are as good as used. For the slab of an orphaned shard, whose list may be cut anywhere.
    pub(crate) fn forget_free_blocks(&self) -> u64 {
        let purged = self.purged_bytes();
        self.purged.set(0);
        self.set_free(List::EMPTY);
        self.chain.set(NO_CHAIN);
        self.unlinked.set(0);
        self.linked.set(self.capacity.get());
        self.reach.set(self.capacity.get());
        self.look.set(NEVER);
        self.counted.set(0);
        self.listed.set(false);
        self.next.set(ptr::null());
        self.prev.set(ptr::null());
        purged
    }

    /// Checks the equation at the top of this file. The caller owns the slab.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn debug_validate(&self, key: LinkKey) {
        let mut free = self.free();
        assert!(
            self.back() <= u32::from(self.reach.get()),
            "more blocks are free than were linked"
        );
        while !free.is_empty() {
            assert!(self.is_block(free.first()), "free list leaves its slab");
            // SAFETY: the block is on the free list of a slab that the caller owns.
            let rest = unsafe { key.rest(free.first()) };
            assert_eq!(rest.len() + 1, free.len(), "a free list has another length than it says");
            free = rest;
        }
        assert_eq!(free.len(), 0);
        let (mut chain, mut unlinked) = (self.chain_at(self.chain.get()), 0);
        while !chain.is_none() {
            assert!(self.is_block(chain.block()), "a chain leaves its slab");
            // SAFETY: the chains of a slab are its owner's.
            let word = unsafe { ChainWord::read(chain) };
            unlinked += word.count();
            chain = word.next_chain();
        }
        assert_eq!(unlinked, u32::from(self.unlinked.get()));
        let purged = self.purged_blocks();
        assert_eq!(u32::from(self.reach.get()) + purged, self.linked());
        assert!(self.linked() <= self.capacity());
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
