//! A class's slabs in a shard: one current, a list of partly used ones, one reserve; full slabs are
//! in no list and carry their mark in the owner word.
//!
//! Owns the transitions between these places. All functions are the shard holder's (rule H1) and
//! touch neither locks nor the pool: a slab that leaves the shard is returned to the caller.
//!
//! ```text
//!  adopt --> current --(ran out)--> full --(a free)--> partial --(last free)--> reserve | leaves
//!               ^                                        |                         |
//!               +----------------- next_current ---------+-------------------------+
//! ```

use std::ptr;

use super::imp::Shard;
use super::outbox::Chain;
use crate::counter::SharedCounter;
use crate::layout::{EMPTY_SLAB, OwnerCell, Slab, SlabPtr};
use crate::os::debug_check;

impl Shard {
    /// The class's current slab ran out of linked blocks: links more, or else retires it as full
    /// and makes the next slab at hand current. Returns whether the class has a free block now.
    ///
    /// # Safety
    /// The caller has the shard.
    pub(crate) unsafe fn next_current(&self, class: usize, purged: &SharedCounter) -> bool {
        // SAFETY: slabs in a shard's places are in use and the caller's (rules H1, H2).
        unsafe {
            let current = &*self.current[class].get();
            if !current.is_stand_in() {
                if !current.free.get().is_null() || current.link_more(self.key, purged) {
                    return true;
                }
                self.retire_current(class, current);
            }
            let mut slab = self.partial[class].first();
            if !slab.is_null() {
                self.partial[class].remove(slab);
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

    /// Links more blocks of the class's current slab; returns whether there were any left.
    ///
    /// # Safety
    /// The caller has the shard, and the current slab's free list is empty.
    pub(crate) unsafe fn extend_current(&self, class: usize, purged: &SharedCounter) -> bool {
        // SAFETY: as in `next_current`; the stand-in has nothing to link.
        unsafe { (*self.current[class].get()).link_more(self.key, purged) }
    }

    /// Makes a slab from elsewhere current. It has free blocks and its owner word names this shard.
    ///
    /// # Safety
    /// The caller has the shard, whose class has no current slab, and owns the slab.
    pub(crate) unsafe fn adopt(&self, class: usize, slab: &Slab, purged: &SharedCounter) {
        debug_check!(owner_word(slab).get() == self.owner(), "a shard adopts a slab of another");
        self.counters.slabs.add(1);
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
            let slab = &*chain.slab;
            let used = slab.push_chain(self.key, chain.head, chain.tail, chain.count);
            self.frees[slab.class.get() as usize].add(u64::from(chain.count));
            let owner = owner_word(slab);
            if owner.get().is_full() {
                owner.set(self.owner());
                self.partial[slab.class.get() as usize].push(slab);
            }
            if used == 0 { self.emptied(slab) } else { None }
        }
    }

    /// A partly used slab has no block out any more: it becomes the class's reserve, or leaves.
    ///
    /// # Safety
    /// The caller has the shard; the slab is in its partial list.
    #[cold]
    #[must_use]
    pub(crate) unsafe fn emptied(&self, slab: SlabPtr) -> Option<SlabPtr> {
        // SAFETY: the caller's contract.
        unsafe {
            let class = (*slab).class.get() as usize;
            self.partial[class].remove(slab);
            if self.reserve[class].get().is_null() {
                self.reserve[class].set(slab);
                return None;
            }
        }
        self.counters.slabs.sub(1);
        Some(slab)
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
        // Only the phantom is out.
        if !current.is_stand_in() && current.used.get() == 1 {
            current.used.set(0);
            self.current[class].set(&EMPTY_SLAB);
            self.counters.slabs.sub(1);
            return Some(current);
        }
        None
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
            let current = &*self.current[class].get();
            if !current.is_stand_in() {
                if current.is_full() {
                    self.retire_current(class, current);
                } else {
                    current.used.set(current.used.get() - 1);
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
            let current = &*self.current[class].get();
            if !current.is_stand_in() {
                each(current);
            }
            let mut slab = self.partial[class].first();
            while let Some(partial) = slab.as_ref() {
                each(partial);
                slab = self.partial[class].after(slab);
            }
        }
    }

    /// # Safety
    /// The caller has the shard; `current` is its current slab of the class and has no free block.
    unsafe fn retire_current(&self, class: usize, current: &Slab) {
        current.used.set(current.used.get() - 1);
        owner_word(current).set(self.owner().full());
        self.current[class].set(&EMPTY_SLAB);
    }

    /// # Safety
    /// The caller has the shard and the slab, which has free blocks and is in no list.
    unsafe fn make_current(&self, class: usize, slab: &Slab, purged: &SharedCounter) {
        slab.used.set(slab.used.get() + 1);
        self.current[class].set(slab);
        if slab.free.get().is_null() {
            // SAFETY: the slab is ours and its list is empty.
            let linked = unsafe { slab.link_more(self.key, purged) };
            debug_check!(linked, "a slab without free blocks was made current");
        }
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
                    current.debug_validate(self.key, true);
                }
                let mut slab = self.partial[class].first();
                while let Some(partial) = slab.as_ref() {
                    assert!(owner_word(partial).get() == self.owner());
                    assert_eq!(partial.class.get() as usize, class);
                    assert!(partial.free_blocks(false) > 0 && partial.used.get() > 0);
                    partial.debug_validate(self.key, false);
                    slab = self.partial[class].after(slab);
                }
                if let Some(reserve) = self.reserve[class].get().as_ref() {
                    assert_eq!(reserve.used.get(), 0);
                    reserve.debug_validate(self.key, false);
                }
            }
        }
    }
}

/// The owner word of a slab in use.
pub(crate) fn owner_word(slab: &Slab) -> &OwnerCell {
    &slab.segment().owners[slab.first_slice()]
}
