//! A class's slabs in a shard: one current, a list of partly used ones, one reserve; slabs that ran
//! out sleep in no list until enough of their blocks are back.
//!
//! Owns the transitions between these places. All functions are the shard holder's (rule H1) and
//! touch neither locks nor the pool: a slab that leaves the shard is returned to the caller.
//!
//! ```text
//!  adopt --> current --(ran out)--> sleeping --(an eighth is back)--> partial --(last free)--> reserve | leaves
//!               ^                                                        |                         |
//!               +----------------------- next_current -------------------+-------------------------+
//! ```

use std::ptr;

use super::imp::Shard;
use super::outbox::Chain;
use crate::counter::SharedCounter;
use crate::layout::{Block, EMPTY_SLAB, List, OwnerCell, Slab, SlabPtr, open_block, wipe_link};
use crate::os::debug_check;
use crate::sync::{Ordering, fence, weakened};

impl Shard {
    /// The class's current slab ran out of linked blocks: links more, or else retires it as full
    /// and makes the next slab at hand current. Returns whether the class has a free block now.
    ///
    /// # Safety
    /// The caller has the shard.
    pub(crate) unsafe fn next_current(&self, class: usize, purged: &SharedCounter) -> bool {
        // SAFETY: slabs in a shard's places are in use and the caller's (rules H1, H2).
        unsafe {
            if self.extend_ready(class, purged) {
                return true;
            }
            let current = &*self.current[class].get();
            if !current.is_stand_in() {
                self.retire_current(class, current);
            }
            let mut slab = self.partial[class].first();
            if !slab.is_null() {
                self.partial[class].remove(slab);
                (*slab).listed.set(false);
            } else {
                slab = self.reserve[class].replace(ptr::null());
            }
            match slab.as_ref() {
                Some(slab) => {
                    self.make_current(class, slab, purged);
                    true
                }
                None => false,
            }
        }
    }

    /// Makes ready what was freed to the class's current slab since its blocks were last taken, or
    /// else some blocks of it that were never used; returns whether there were any.
    ///
    /// # Safety
    /// The caller has the shard, and the class's ready list is empty.
    pub(crate) unsafe fn extend_ready(&self, class: usize, purged: &SharedCounter) -> bool {
        // SAFETY: as in `next_current`; the stand-in has nothing to take and nothing to link.
        unsafe {
            let current = &*self.current[class].get();
            if current.is_stand_in() {
                return false;
            }
            self.count_frees(class, current);
            if !current.link_free(self.key, purged) {
                return false;
            }
            let list = if reuses_last_freed(current) {
                let block = current.take_last_freed(self.key);
                self.key.set_rest(block, List::EMPTY);
                List::starting(block, 1)
            } else {
                current.take_free()
            };
            // After the blocks left the slab; see `Heap::counts_before`.
            self.taken[class].add_after(u64::from(list.len()));
            self.ready[class].set(list.word());
        }
        true
    }

    /// Takes the block of the class's current slab that was freed last, and makes ready the others on
    /// its free list; null if there are none, or if others freed some: the long way links these first.
    ///
    /// # Safety
    /// The caller has the shard or the sentinel, and the class's ready list is empty.
    pub(crate) unsafe fn take_freed(&self, class: usize) -> Block {
        // SAFETY: as in `next_current`; the stand-in has no block.
        unsafe {
            let current = &*self.current[class].get();
            let block = current.free().first();
            if block.is_null() || current.has_unlinked() {
                return ptr::null_mut();
            }
            self.count_frees(class, current);
            // As in `extend_ready`.
            if reuses_last_freed(current) {
                current.take_last_freed(self.key);
                self.taken[class].add_after(1);
            } else {
                let list = current.take_free();
                self.taken[class].add_after(u64::from(list.len()));
                self.ready[class].set(self.key.rest(block).word());
            }
            open_block(block);
            wipe_link(block);
            block
        }
    }

    /// Puts the class's ready blocks back on their slab's free list, so that the slab can be looked
    /// at or leave.
    ///
    /// # Safety
    /// The caller has the shard.
    unsafe fn stow_ready(&self, class: usize) {
        let ready = List::of(self.ready[class].get());
        if ready.is_empty() {
            return;
        }
        self.returned[class].add(u64::from(ready.len()));
        // Release pairs with the acquire of statistics readers' glances: who sees the blocks back in
        // their slab sees them counted; who sees them counted may see them nowhere.
        fence(Ordering::Release);
        self.ready[class].set(List::EMPTY.word());
        // SAFETY: as in `next_current`; ready blocks are free blocks of the current slab (rule H3).
        unsafe {
            let current = &*self.current[class].get();
            self.count_frees(class, current);
            if current.free().is_empty() {
                current.put_free(ready);
            } else {
                current.push_list(self.key, ready);
            }
            current.skip_count();
        }
    }

    /// Counts what was freed to one of the shard's slabs since that was last done.
    fn count_frees(&self, class: usize, slab: &Slab) {
        self.frees[class].count(u64::from(slab.count_frees()));
    }

    /// Blocks on the class's ready list. The holder only.
    fn ready_blocks(&self, class: usize) -> u32 {
        List::of(self.ready[class].get()).len()
    }

    /// Makes a slab from elsewhere current. It has free blocks and its owner word names this shard.
    ///
    /// # Safety
    /// The caller has the shard, whose class has no current slab, and owns the slab.
    pub(crate) unsafe fn adopt(&self, class: usize, slab: &Slab, purged: &SharedCounter) {
        debug_check!(owner_word(slab).get() == self.owner(), "a shard adopts a slab of another");
        self.counters.slabs.add(1);
        slab.skip_count();
        // SAFETY: the caller's contract.
        unsafe { self.make_current(class, slab, purged) };
    }

    /// Takes back a chain of blocks of one of this shard's slabs. Returns the slab if it became
    /// empty and is to leave the shard.
    ///
    /// # Safety
    /// The caller has the shard and owns the chain; the slab's owner word names this shard.
    #[must_use]
    pub(crate) unsafe fn take_back(&self, chain: &Chain) -> Option<SlabPtr> {
        // SAFETY: the slab is in use, having blocks out, and ours (rule O1).
        unsafe {
            let look = (*chain.slab).push_chain(self.key, chain.head, chain.count);
            if look { self.look_at(chain.slab) } else { None }
        }
    }

    /// Many blocks of a slab came back: they are counted, and if it woke up, it is listed; if it holds
    /// nothing any more, it becomes the class's reserve or leaves.
    ///
    /// # Safety
    /// The caller has the shard, whose slab it is, and which is not current.
    #[cold]
    #[must_use]
    pub(crate) unsafe fn look_at(&self, slab: SlabPtr) -> Option<SlabPtr> {
        // SAFETY: the caller's contract.
        unsafe {
            let slab = &*slab;
            let class = slab.class.get() as usize;
            self.count_frees(class, slab);
            if slab.out() > 0 && !weakened("slab_not_empty") {
                slab.watch();
                if !slab.listed.get() && slab.wakes() {
                    slab.listed.set(true);
                    self.partial[class].push(slab);
                }
                return None;
            }
            slab.watch_for_nothing();
            if slab.listed.replace(false) {
                self.partial[class].remove(slab);
            }
            // The one that became empty last stays: of all, its blocks are the likeliest to be cached.
            let before = self.reserve[class].replace(slab);
            if before.is_null() {
                return None;
            }
            self.counters.slabs.sub(1);
            Some(before)
        }
    }

    /// Takes out the next slab of the class that holds no block in use: the reserve, or a current
    /// slab nobody uses. Until there is none.
    ///
    /// # Safety
    /// The caller has the shard.
    #[must_use]
    pub(crate) unsafe fn take_empty(&self, class: usize) -> Option<SlabPtr> {
        let reserve = self.reserve[class].replace(ptr::null());
        if !reserve.is_null() {
            self.counters.slabs.sub(1);
            return Some(reserve);
        }
        // SAFETY: as in `next_current`.
        let current = unsafe { &*self.current[class].get() };
        let ready = self.ready_blocks(class);
        if current.is_stand_in() || current.out() > ready {
            return None;
        }
        self.count_frees(class, current);
        if ready > 0 {
            // As in `stow_ready`, but nobody needs their links any more.
            self.returned[class].add(u64::from(ready));
            fence(Ordering::Release);
            self.ready[class].set(List::EMPTY.word());
            current.forget(ready);
        }
        self.current[class].set(&EMPTY_SLAB);
        self.counters.slabs.sub(1);
        Some(current)
    }

    /// Takes out the next slab of the class that has free blocks and blocks in use. Until there is
    /// none.
    ///
    /// # Safety
    /// The caller has the shard.
    #[must_use]
    pub(crate) unsafe fn take_partial(&self, class: usize) -> Option<SlabPtr> {
        // SAFETY: as in `next_current`.
        unsafe {
            self.stow_ready(class);
            let current = &*self.current[class].get();
            if !current.is_stand_in() {
                if current.is_full() {
                    self.retire_current(class, current);
                } else {
                    self.count_frees(class, current);
                    self.current[class].set(&EMPTY_SLAB);
                    self.counters.slabs.sub(1);
                    return Some(current);
                }
            }
            let slab = self.partial[class].first();
            if slab.is_null() {
                return None;
            }
            self.partial[class].remove(slab);
            (*slab).listed.set(false);
            (*slab).watch_for_nothing();
            self.count_frees(class, &*slab);
            self.counters.slabs.sub(1);
            Some(slab)
        }
    }

    /// Calls `each` for the class's slabs that have free blocks beside ones in use.
    ///
    /// # Safety
    /// The caller has the shard; `each` moves no slab.
    pub(crate) unsafe fn for_each_partial(&self, class: usize, mut each: impl FnMut(&Slab)) {
        // SAFETY: as in `next_current`.
        unsafe {
            self.stow_ready(class);
            let current = &*self.current[class].get();
            if !current.is_stand_in() {
                self.count_frees(class, current);
                each(current);
            }
            let mut slab = self.partial[class].first();
            while let Some(partial) = slab.as_ref() {
                self.count_frees(class, partial);
                each(partial);
                slab = self.partial[class].after(slab);
            }
        }
    }

    /// # Safety
    /// The caller has the shard; `current` is its current slab of the class and has no free block.
    unsafe fn retire_current(&self, class: usize, current: &Slab) {
        current.watch();
        self.current[class].set(&EMPTY_SLAB);
    }

    /// # Safety
    /// The caller has the shard and the slab, which has free blocks and is in no list.
    unsafe fn make_current(&self, class: usize, slab: &Slab, purged: &SharedCounter) {
        slab.watch_for_nothing();
        self.current[class].set(slab);
        // SAFETY: the slab is ours; the last current slab left with an empty ready list.
        let ready = unsafe { self.extend_ready(class, purged) };
        debug_check!(ready, "a slab without free blocks was made current");
    }

    /// Checks every list of the shard against its equations.
    ///
    /// # Safety
    /// The caller has the shard.
    #[cfg(any(test, debug_assertions))]
    pub(crate) unsafe fn debug_validate(&self) {
        for class in 0..crate::layout::MAX_CLASSES {
            // SAFETY: as in `next_current`.
            unsafe {
                let current = &*self.current[class].get();
                if !current.is_stand_in() {
                    assert!(owner_word(current).get() == self.owner());
                    current.debug_validate(self.key);
                }
                let mut ready = List::of(self.ready[class].get());
                assert!(ready.len() <= current.out(), "more blocks are ready than are out");
                while !ready.is_empty() {
                    assert!(current.is_block(ready.first()), "not a block of the current slab");
                    let rest = self.key.rest(ready.first());
                    assert_eq!(rest.len() + 1, ready.len(), "a ready list has another length");
                    ready = rest;
                }
                let mut slab = self.partial[class].first();
                while let Some(partial) = slab.as_ref() {
                    assert!(owner_word(partial).get() == self.owner());
                    assert_eq!(partial.class.get() as usize, class);
                    assert!(partial.listed.get() && partial.free_blocks() > 0 && partial.out() > 0);
                    assert!(!partial.wants_look(partial.free()), "nobody looked at a slab");
                    partial.debug_validate(self.key);
                    slab = self.partial[class].after(slab);
                }
                if let Some(reserve) = self.reserve[class].get().as_ref() {
                    assert_eq!(reserve.out(), 0);
                    reserve.debug_validate(self.key);
                }
            }
        }
    }
}

/// Bytes of the largest blocks that are made ready several at once.
const READY_MAX: u32 = 32 * 1024;

/// Whether blocks of a slab are so large that they are made ready one by one, the one freed last first:
/// going round all of a slab's blocks would put them out of the caches by the time they are used again.
#[inline]
fn reuses_last_freed(slab: &Slab) -> bool {
    slab.block_bytes.get() > READY_MAX
}

/// The owner word of a slab in use.
pub(crate) fn owner_word(slab: &Slab) -> &OwnerCell {
    &slab.segment().owners[slab.first_slice()]
}
