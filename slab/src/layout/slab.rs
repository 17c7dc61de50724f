//! Slab metadata: one 64-byte entry per slice, used for a slab's first slice.
//!
//! Owns the shape and the list links. Where entries and blocks lie is not known here: a segment's head
//! holds both for heaps (`seat`), a table in the caller's buffer for the embedded heap. Who may touch what
//! is written in `docs/invariants/heap.md`;
//! in short (rule S1): every `Cell` here belongs to the slab's owner (a shard's leaseholder, the
//! bucket's lock holder, the pool while nobody owns it). `class`, `slices` and `block_bytes` do not
//! change while a block of the slab is out, so whoever holds a block may read them (rule S2).
//!
//! The free list is one word that says how many blocks it has ([`List`]), so frees are counted by the
//! push itself. What other threads freed comes back in chains, whose blocks are *unlinked* until the
//! slab's blocks are needed. `reach` blocks are out or came back; those that are *out*, that is,
//! `reach - |free list| - unlinked`, are in use, on their way back, or on the owner's ready list.
//!
//! `look` is the length of the list at which the owner has to look at the slab:
//!
//! * current: never; nobody need look at it;
//! * sleeping (it ran out; no list has it): it is time to count what came back, and when an eighth of
//!   its blocks did, to list it, after snmalloc's sleeping slabs;
//! * listed as partly used: it is time to count, or it is empty.
//!
//! Statistics readers glance at `free`, `unlinked`, `reach` and `counted` of slabs that others own, and at
//! nothing else.
//!
//! Equation that `debug_validate` checks: `out + |free list| + |purged blocks| = linked <= capacity`,
//! with `out + |free list| + unlinked = reach`, here with the unlinked ones among the free.

use core::ptr;

use super::class::ClassInfo;
use super::link::{Block, LinkKey, List, wipe_link};
use crate::shown::{Shown, ShownHalf};
use crate::sync::Cell;

/// A pointer to slab metadata; never null once a slab exists.
pub(crate) type SlabPtr = *const Slab;

/// Metadata of one slab.
#[repr(C, align(64))]
pub(crate) struct Slab {
    /// The free blocks, a [`List`].
    pub(super) free: Shown,
    /// Where in the slab the chain is that came back last, or [`NO_CHAIN`]: its head, less the slab's
    /// start.
    pub(super) chain: Cell<u32>,
    /// Blocks in the chains that came back and are not linked yet.
    pub(super) unlinked: ShownHalf,
    /// Blocks that are out, on the free list or in chains.
    pub(super) reach: ShownHalf,
    /// Length of the free list at which the owner has to look; see the top.
    pub(super) look: Cell<u16>,
    /// Blocks that had come back when frees were last counted. A shard's slabs only.
    pub(super) counted: ShownHalf,
    /// Blocks that were ever linked: the rest of the slab was never touched.
    pub(super) linked: Cell<u16>,
    /// Blocks that fit.
    pub(super) capacity: Cell<u16>,
    /// Size class.
    pub(crate) class: Cell<u8>,
    /// Slices that the slab covers.
    pub(crate) slices: Cell<u8>,
    /// Whether the slab is in its shard's list of partly used ones.
    pub(crate) listed: Cell<bool>,
    /// Bytes of one block.
    pub(crate) block_bytes: Cell<u32>,
    /// Parts without pages, a bit each; see [`purge`](super::purge).
    pub(crate) purged: Cell<u64>,
    /// 2^64 / `block_bytes`, rounded up.
    pub(super) inverse: Cell<u64>,
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
            free: Shown::new(0),
            chain: Cell::new(NO_CHAIN),
            unlinked: ShownHalf::new(0),
            reach: ShownHalf::new(0),
            look: Cell::new(NEVER),
            counted: ShownHalf::new(0),
            linked: Cell::new(0),
            capacity: Cell::new(0),
            class: Cell::new(0),
            slices: Cell::new(0),
            listed: Cell::new(false),
            block_bytes: Cell::new(0),
            purged: Cell::new(0),
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
        self.set_free(List::EMPTY);
        self.chain.set(NO_CHAIN);
        self.unlinked.set(0);
        self.reach.set(0);
        self.look.set(NEVER);
        self.counted.set(0);
        self.listed.set(false);
        self.class.set(class as u8);
        self.slices.set(info.slices as u8);
        self.purged.set(0);
        self.linked.set(0);
        self.capacity.set(info.capacity as u16);
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
        self.starts_block(offset) && offset < self.capacity() as usize * bytes
    }

    /// The free blocks. The owner only.
    #[inline(always)]
    pub(crate) fn free(&self) -> List {
        List::of(self.free.get())
    }

    /// The owner only.
    #[inline(always)]
    pub(crate) fn set_free(&self, list: List) {
        self.free.set(list.word());
    }

    /// Whether no block can be had: every one is out.
    pub(crate) fn is_full(&self) -> bool {
        self.back() == 0 && self.linked.get() == self.capacity.get() && self.purged.get() == 0
    }

    /// Blocks that fit.
    pub(crate) fn capacity(&self) -> u32 {
        u32::from(self.capacity.get())
    }

    /// Blocks that were ever linked.
    pub(crate) fn linked(&self) -> u32 {
        u32::from(self.linked.get())
    }

    /// Blocks that are not out, linked or in chains. The owner only.
    pub(crate) fn back(&self) -> u32 {
        self.free().len() + u32::from(self.unlinked.get())
    }

    /// Links about a page of blocks that were never used, and returns whether there were any. Touching
    /// them late keeps the resident set to what is needed.
    ///
    /// # Safety
    /// The caller owns the slab, which starts at `start` and whose free list is empty.
    pub(crate) unsafe fn link_untouched(&self, start: *mut u8, key: LinkKey) -> bool {
        let (linked, capacity) = (self.linked(), self.capacity());
        if linked == capacity {
            return false;
        }
        let bytes = self.block_bytes.get();
        let more = (LINK_BYTES / bytes).clamp(1, capacity - linked);
        let first = start.wrapping_add(linked as usize * bytes as usize);
        let mut block = first;
        for behind in (1..more).rev() {
            let next = block.wrapping_add(bytes as usize);
            // SAFETY: the blocks lie inside the slab and are nobody's yet.
            unsafe { key.set_rest(block, List::starting(next, behind)) };
            block = next;
        }
        // SAFETY: as above.
        unsafe { key.set_rest(block, List::EMPTY) };
        self.linked.set((linked + more) as u16);
        self.link(List::starting(first, more));
        true
    }

    /// Blocks that were in no list become the free list, which was empty.
    pub(super) fn link(&self, list: List) {
        self.reach.set(self.reach.get() + list.len() as u16);
        self.set_free(list);
        self.counted.set(list.len() as u16);
    }

    /// Takes so many blocks out of reach and leaves the free list `rest`, all of it counted. There
    /// are no chains.
    pub(super) fn unlink(&self, blocks: u32, rest: List) {
        self.reach.set(self.reach.get() - blocks as u16);
        self.set_free(rest);
        self.counted.set(rest.len() as u16);
        if self.look.get() != NEVER {
            self.watch();
        }
    }

    /// Forgets so many blocks that are out and in nobody's use: the slab leaves with its last ones, and is
    /// set up anew before it has blocks again.
    pub(crate) fn forget(&self, blocks: u32) {
        self.reach.set(self.reach.get() - blocks as u16);
    }

    /// Blocks that did not come back. The owner only.
    pub(crate) fn out(&self) -> u32 {
        u32::from(self.reach.get()) - self.back()
    }

    /// The same for anyone, which may be a few operations old, or wrong by what the owner just links.
    pub(crate) fn glance_out(&self) -> u32 {
        u32::from(self.reach.glance()).saturating_sub(self.glance_back())
    }

    /// Frees that were not counted yet, for anyone, as above. A shard's slab.
    pub(crate) fn glance_uncounted(&self) -> u32 {
        self.glance_back().saturating_sub(u32::from(self.counted.glance()))
    }

    fn glance_back(&self) -> u32 {
        List::of(self.free.glance()).len() + u32::from(self.unlinked.glance())
    }

    /// Whether the owner has to look at the slab now, after a push.
    #[inline(always)]
    pub(crate) fn wants_look(&self, free: List) -> bool {
        free.len() == u32::from(self.look.get())
    }

    /// From here on the owner need not look: the slab is current, or in no list but one's own.
    pub(crate) fn watch_for_nothing(&self) {
        self.look.set(NEVER);
    }

    /// From here on the owner looks when an eighth of the blocks came back, or all that are out.
    pub(crate) fn watch(&self) {
        let step = (self.capacity() / COUNT_SHARE).clamp(1, COUNT_STEP);
        let back = (self.back() + step).min(u32::from(self.reach.get()));
        // The free list's part in that.
        self.look.set(back as u16 - self.unlinked.get());
    }

    /// Whether enough blocks of a sleeping slab are back to list it.
    pub(crate) fn wakes(&self) -> bool {
        self.back() >= (u32::from(self.reach.get()) / WAKE_SHARE).max(1)
    }

    /// Frees since this was last asked.
    pub(crate) fn count_frees(&self) -> u32 {
        let back = self.back();
        back - u32::from(self.counted.replace(back as u16))
    }

    /// What is back counts as counted: the slab is new to its shard, or blocks were put there that
    /// nobody freed.
    pub(crate) fn skip_count(&self) {
        self.counted.set(self.back() as u16);
    }

    /// Takes one block off the free list.
    ///
    /// # Safety
    /// The caller owns the slab.
    #[inline(always)]
    pub(crate) unsafe fn pop(&self, key: LinkKey) -> Option<Block> {
        let list = self.free();
        if list.is_empty() {
            return None;
        }
        // SAFETY: a block on the free list is free and its link was written with the heap's key; it is
        // the caller's now.
        unsafe {
            self.set_free(key.rest(list.first()));
            wipe_link(list.first());
        }
        Some(list.first())
    }

    /// Puts one block onto the free list.
    ///
    /// # Safety
    /// The caller owns the slab and the block, a block of this slab.
    pub(crate) unsafe fn push(&self, key: LinkKey, block: Block) {
        // SAFETY: by contract.
        unsafe { key.set_rest(block, self.free()) };
        self.set_free(self.free().behind(block));
    }

    /// Puts the blocks of a list onto the free list, one by one: each has to know how many are behind
    /// it.
    ///
    /// # Safety
    /// The caller owns the slab and the list, of blocks of this slab.
    pub(crate) unsafe fn push_list(&self, key: LinkKey, mut blocks: List) {
        let mut list = self.free();
        while !blocks.is_empty() {
            let block = blocks.first();
            // SAFETY: by contract.
            unsafe {
                blocks = key.rest(block);
                key.set_rest(block, list);
            }
            list = list.behind(block);
        }
        self.set_free(list);
    }

    /// Free blocks right now, linked or not.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn free_blocks(&self) -> u32 {
        self.capacity() - self.out()
    }
}

/// Stands for no chain: no block starts there.
pub(super) const NO_CHAIN: u32 = u32::MAX;

/// A length of the free list that none has: nobody need look.
pub(super) const NEVER: u16 = u16::MAX;

/// A slab that is not current is looked at whenever this part of its blocks came back, so that all
/// frees but those are counted at any time.
const COUNT_SHARE: u32 = 8;
/// But at least once for so many.
const COUNT_STEP: u32 = 64;

const _: () = assert!(COUNT_SHARE >= WAKE_SHARE, "a slab that should wake is not looked at");

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
