//! Empty slabs that a shard keeps against the next burst: one per class at most, and all of them
//! together within a budget.
//!
//! Owns the order in which they leave: those that have been empty longest first. Without a budget for
//! all classes a server that once used each of them keeps a slab of each in every shard. What leaves
//! is no further away than the pool, whose slices serve every class of every shard. All functions are
//! the shard holder's (rule H1).

use std::ptr;

use super::imp::Shard;
use crate::layout::{SLICE_BYTES, Slab, SlabPtr};

/// Bytes of empty slabs that a shard keeps. As large as a core's private cache: of what is kept beyond
/// that, nothing is warm.
const KEPT_BYTES: usize = 1 << 20;
const KEPT_SLICES: u32 = (KEPT_BYTES / SLICE_BYTES) as u32;

impl Shard {
    /// Keeps a slab that has become empty: of all, its blocks are the likeliest to be cached. Returns a
    /// slab that leaves the shard instead, if one does; there may be [more](Self::take_surplus).
    ///
    /// A slab of one block leaves at once: against what its block costs to use, the pool's lock is
    /// nothing.
    ///
    /// # Safety
    /// The caller has the shard, whose slab it is, in no list and not current.
    #[must_use]
    pub(super) unsafe fn keep(&self, slab: &Slab) -> Option<SlabPtr> {
        if slab.capacity() == 1 {
            self.counters.slabs.sub(1);
            return Some(slab);
        }
        // SAFETY: by contract; kept slabs are the shard's (rule H2).
        unsafe {
            let before = self.take_kept(slab.class.get() as usize);
            self.reserve[slab.class.get() as usize].set(slab);
            self.kept.push(slab);
            self.kept_slices.set(self.kept_slices.get() + u32::from(slab.slices.get()));
            if before.is_null() {
                return self.take_surplus();
            }
            self.counters.slabs.sub(1);
            Some(before)
        }
    }

    /// Takes out the slab that was kept longest, if more are kept than the budget allows. It leaves the
    /// shard.
    ///
    /// # Safety
    /// The caller has the shard.
    #[must_use]
    pub(crate) unsafe fn take_surplus(&self) -> Option<SlabPtr> {
        if self.kept_slices.get() <= KEPT_SLICES {
            return None;
        }
        // SAFETY: by contract; what is counted as kept is in the list.
        let oldest = unsafe { (*self.kept.first()).class.get() as usize };
        self.counters.slabs.sub(1);
        // SAFETY: by contract.
        Some(unsafe { self.take_kept(oldest) })
    }

    /// Takes out the class's empty slab, or null. It stays counted as the shard's.
    ///
    /// # Safety
    /// The caller has the shard.
    pub(super) unsafe fn take_kept(&self, class: usize) -> SlabPtr {
        let slab = self.reserve[class].replace(ptr::null());
        // SAFETY: by contract; a reserve is in the list.
        unsafe {
            if let Some(kept) = slab.as_ref() {
                self.kept.remove(kept);
                self.kept_slices.set(self.kept_slices.get() - u32::from(kept.slices.get()));
            }
        }
        slab
    }

    /// Whether the shard has not been trimmed for a period, and counts it as trimmed now. Both in
    /// milliseconds, of the coarse clock. The holder only.
    pub(crate) fn trim_is_due(&self, now: u32, period: u32) -> bool {
        let due = now.wrapping_sub(self.trimmed.get()) > period;
        if due {
            self.trimmed.set(now);
        }
        due
    }
}
