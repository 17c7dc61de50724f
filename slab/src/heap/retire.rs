//! Retiring blocks: freed after a grace period of the heap's domain.
//!
//! Owns the heap's [`Domain`], made on first use, and the way of a retired block. Protocol: the block
//! joins the retiring thread's batch through a link out of line, because readers may look at every byte
//! of it (ADR 9); until its grace period is over it counts as in use, so its slab cannot become empty,
//! move or be unmapped (rule S3). Then whoever reclaims the batch frees it like any other block, so it
//! goes to its owner's inbox if it is somebody else's.
//!
//! A heap that [retires every free](super::HeapBuilder::retire_frees) does the same with each block that
//! it is given back, on whatever thread: a thread that has joined the domain retires through its
//! participant, any other through the domain's own batch, under a lock.
//!
//! Nothing here is on the way of `GlobalAlloc`: domains and batches allocate.

use std::ptr::NonNull;

use flagstone_epoch::{Domain, Participant, RetireError};

use super::Heap;
use super::registry::Visit;
use crate::layout::{Kind, SegmentMap};
use crate::os::fatal;

impl Heap {
    /// The domain whose guards keep this heap's retired blocks. It is made by the first call, which
    /// allocates.
    ///
    /// Threads that read retired blocks register with it; so may anything else that is read under the
    /// same guards. Its figures are part of the heap's statistics.
    pub fn domain(&self) -> &Domain {
        self.domain.get_or_init(|| {
            let made = Domain::builder().name(self.name()).build();
            made.unwrap_or_else(|error| unreachable!("default settings are in range: {error}"))
        })
    }

    /// Uses `domain` as the heap's own, so that its limits can be chosen. Before the first use only.
    ///
    /// # Errors
    /// Gives the domain back if the heap has one already.
    pub fn set_domain(&self, domain: Domain) -> Result<(), Domain> {
        self.domain.set(domain)
    }

    /// The heap's domain if it has one.
    pub(crate) fn domain_if_any(&self) -> Option<&Domain> {
        self.domain.get()
    }

    /// Frees a block after a grace period: when every guard of the heap's domain that is held now is
    /// gone. `by` is the calling thread's participant in that domain, or a guard of it.
    ///
    /// Takes the block whatever is pending; [`try_retire`](Self::try_retire) keeps the domain's limit.
    ///
    /// ```
    /// use std::alloc::{GlobalAlloc, Layout};
    /// use std::ptr::NonNull;
    /// use flagstone_slab::{Flagstone, Heap};
    ///
    /// let participant = Heap::global().domain().register();
    /// // SAFETY: of some bytes.
    /// let block = NonNull::new(unsafe { Flagstone.alloc(Layout::new::<[u64; 4]>()) }).unwrap();
    /// let guard = participant.pin();
    /// // SAFETY: nobody else knows the block.
    /// unsafe { Heap::global().retire(block, &guard) };
    /// assert_eq!(Heap::global().snapshot().bytes.retired, 32);
    /// drop(guard);
    /// participant.collect();
    /// assert_eq!(Heap::global().snapshot().bytes.retired, 0);
    /// ```
    ///
    /// # Panics
    /// If `by` is of another domain. A block that is not this heap's ends the process, as freeing it
    /// would.
    ///
    /// # Safety
    /// The block came from this heap and is given up. No reader that takes its guard from now on can
    /// find it, and those who found it hold a guard of the heap's domain.
    #[inline]
    pub unsafe fn retire(&self, block: NonNull<u8>, by: &impl AsRef<Participant>) {
        // SAFETY: by contract.
        let (participant, bytes) = unsafe { self.about_to_retire(block, by.as_ref()) };
        self.count_retired(bytes);
        // SAFETY: the caller's promise; a block stays in place until it is freed, from any thread.
        unsafe { participant.retire_unlinked(block, bytes, self.retire_context(), reclaim) };
    }

    /// Like [`retire`](Self::retire), within the hard limit of the heap's domain.
    ///
    /// # Errors
    /// [`RetireError`] gives the block back when the limit would be passed, after an attempt to collect.
    ///
    /// # Panics
    /// As [`retire`](Self::retire).
    ///
    /// # Safety
    /// As [`retire`](Self::retire).
    #[inline]
    pub unsafe fn try_retire(
        &self,
        block: NonNull<u8>,
        by: &impl AsRef<Participant>,
    ) -> Result<(), RetireError<NonNull<u8>>> {
        // SAFETY: by contract.
        let (participant, bytes) = unsafe { self.about_to_retire(block, by.as_ref()) };
        self.count_retired(bytes);
        let context = self.retire_context();
        // SAFETY: as in `retire`.
        let tried = unsafe { participant.try_retire_unlinked(block, bytes, context, reclaim) };
        if tried.is_err() {
            self.count_reclaimed(bytes);
        }
        tried
    }

    /// Whether every block that is given back is retired.
    pub fn retires_frees(&self) -> bool {
        self.retires
    }

    /// Retires a block for callers without a participant at hand: through that of the calling thread, if
    /// it has [joined](Self::join_domain) the heap's domain, else through the domain's own batch, under
    /// a lock. Takes the block whatever is pending.
    ///
    /// A block that is not this heap's ends the process, as freeing it would.
    ///
    /// # Safety
    /// As [`retire`](Self::retire).
    #[cold]
    #[inline(never)]
    pub unsafe fn retire_here(&self, block: NonNull<u8>) {
        // SAFETY: by contract.
        let bytes = unsafe { self.retired_size(block) };
        self.count_retired(bytes);
        let context = self.retire_context();
        // SAFETY: by contract; a block stays in place until it is freed, from any thread.
        unsafe {
            match self.participant() {
                Some(participant) => participant.retire_unlinked(block, bytes, context, reclaim),
                None => self.domain().retire_unlinked(block, bytes, context, reclaim),
            }
        }
    }

    /// # Safety
    /// As [`retired_size`](Self::retired_size).
    #[inline]
    unsafe fn about_to_retire<'p>(
        &self,
        block: NonNull<u8>,
        participant: &'p Participant,
    ) -> (&'p Participant, usize) {
        let ours = self.domain_if_any().is_some_and(|domain| participant.is_in(domain));
        assert!(ours, "a block is retired by a participant of another domain than its heap's");
        // SAFETY: by contract.
        (participant, unsafe { self.retired_size(block) })
    }

    /// What a block counts for while it is retired: what it counts for while it is in use.
    ///
    /// # Safety
    /// The block is in use, or retired and not yet freed, if it is this heap's.
    #[inline]
    unsafe fn retired_size(&self, block: NonNull<u8>) -> usize {
        // SAFETY: by contract.
        let bytes = unsafe { self.accounted_size(block.as_ptr()) };
        bytes.unwrap_or_else(|| {
            fatal(format_args!("retire of {block:p}, which is not in heap {}", self.name()))
        })
    }

    /// What tells [`reclaim`], beyond a block's address, which heap it is of.
    #[inline]
    fn retire_context(&self) -> usize {
        self.generation
    }

    fn count_retired(&self, bytes: usize) {
        let shard = self.thread_shard();
        if shard.is_sentinel() {
            self.retired_unsharded.add(bytes as u64);
        } else {
            shard.counters.retired_bytes.add(bytes as u64);
        }
    }

    fn count_reclaimed(&self, bytes: usize) {
        let shard = self.thread_shard();
        if shard.is_sentinel() {
            self.reclaimed_unsharded.add(bytes as u64);
        } else {
            shard.counters.reclaimed_bytes.add(bytes as u64);
        }
    }

    /// Bytes of blocks that wait for a grace period.
    pub(crate) fn retired_bytes(&self) -> u64 {
        // Reclaimed first: a block is retired before.
        let mut reclaimed = self.reclaimed_unsharded.get();
        for shard in self.shards.iter() {
            reclaimed += shard.counters.reclaimed_bytes.get();
        }
        let mut retired = self.retired_unsharded.get();
        for shard in self.shards.iter() {
            retired += shard.counters.retired_bytes.get();
        }
        retired.saturating_sub(reclaimed)
    }
}

impl Heap {
    /// # Safety
    /// As [`reclaim`]; the block is of this heap.
    unsafe fn free_retired(&self, block: NonNull<u8>) {
        // SAFETY: by contract; it is freed below.
        self.count_reclaimed(unsafe { self.retired_size(block) });
        // SAFETY: the block was given up when it was retired, and no reader is left.
        unsafe { self.free_any(block.as_ptr()) };
    }
}

/// Frees a retired block.
///
/// An instance may have ended since, with everything in it. Then the visit finds another generation or
/// none, or the address is no heap's any more; there is nothing left to do.
///
/// # Safety
/// `block` was retired by its heap with `context`; its grace period is over; called once.
unsafe fn reclaim(block: NonNull<u8>, context: usize) {
    let global = Heap::global();
    if context == global.retire_context() {
        // SAFETY: by contract.
        return unsafe { global.free_retired(block) };
    }
    if let Kind::Segment(id) | Kind::Large(id) = SegmentMap::kind(block.addr().get())
        && let Some(visit) = Visit::to(id.0, context)
    {
        // SAFETY: by contract; the generation is the block's heap's, which is there while visited.
        unsafe { visit.heap().free_retired(block) };
    }
}
