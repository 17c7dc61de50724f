//! Retiring without a participant: for threads that nobody registered, and for the end of a thread,
//! when its participant is gone and destructors still free.
//!
//! Owns one open batch for the whole domain, under a lock, with a record of its own for the counts; and
//! the batches that are complete and wait for a handle. Protocol: a batch is complete when it is full or
//! when somebody drives the domain; it enters its era under the lock (rule B3), and the next step of the
//! service handle hands it to the collector. So one retire costs a lock and an entry, and crossbeam-epoch
//! is entered once per batch.
//!
//! Order of locks: the service handle's, then this one; nothing is called out to under it.

use std::alloc::handle_alloc_error;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use crate::batch::chunk::{Chunk, Entry, ReclaimUnlinked};
use crate::batch::open::OpenBatch;
use crate::batch::sealed::SealedBatch;
use crate::domain::{Core, Domain, Inner, Want};
use crate::memory::OutOfMemory;
use crate::retire::{RetireError, RetireRefusal, countable};
use crate::sync::{Mutex, MutexGuard, Ordering};

/// Steps that one complete batch pushes on when pending bytes are above the watermark.
const HELP_STEPS: u32 = 4;

/// Made by the first retire that needs it, so that a domain without such costs its steps no lock. Who
/// drives the domain and does not see it yet misses what a lock taken earlier would have missed too.
#[derive(Debug, Default)]
pub(crate) struct Unregistered(OnceLock<Mutex<Lane>>);

#[derive(Debug, Default)]
struct Lane {
    open: OpenBatch,
    complete: Vec<SealedBatch>,
}

// SAFETY: the lane is used under its lock alone; what its batches link may be reclaimed on any thread
// (rule R3).
unsafe impl Send for Lane {}

impl Unregistered {
    /// Adds an object whose bytes are reserved. Returns whether it completed a batch; without memory
    /// for a link nothing has happened.
    ///
    /// # Safety
    /// Rules R1, R3 and R4 hold for the object.
    unsafe fn push(&self, core: &Arc<Core>, entry: Entry, bytes: u64) -> Result<bool, OutOfMemory> {
        let mut lane = lock(self.0.get_or_init(Mutex::default));
        let record = &core.unregistered;
        lane.open.grant(record, bytes, core.config.batch_blocks);
        let Some(room) = lane.open.room(record, bytes) else {
            unreachable!("a full batch was completed by the object that filled it")
        };
        // SAFETY: the caller's promise; the room is for this object.
        if let Err(refused) = unsafe { lane.open.push_entry(record, room, entry, core) } {
            lane.open.revoke(bytes);
            return Err(refused);
        }
        let (blocks, sum) = record.open();
        let full = blocks >= u64::from(core.config.batch_blocks) || sum >= core.config.batch_bytes;
        if full {
            lane.complete(core);
        }
        Ok(full)
    }

    /// Completes the open batch, if there is one.
    pub(crate) fn complete(&self, core: &Arc<Core>) {
        if let Some(lane) = self.0.get() {
            lock(lane).complete(core);
        }
    }

    /// Takes a batch that waits for a handle.
    pub(crate) fn take_one(&self) -> Option<SealedBatch> {
        lock(self.0.get()?).complete.pop()
    }

    /// Takes what is left when the domain ends, a batch at a time; the open one last.
    pub(crate) fn take_rest(&self, core: &Arc<Core>) -> Option<SealedBatch> {
        let mut lane = lock(self.0.get()?);
        lane.complete.pop().or_else(|| lane.seal(core))
    }
}

fn lock(lane: &Mutex<Lane>) -> MutexGuard<'_, Lane> {
    lane.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Lane {
    fn complete(&mut self, core: &Arc<Core>) {
        // Without memory to note it, the batch stays open and grows, as long as it may.
        if self.complete.try_reserve(1).is_err() && !self.open.is_at_most(&core.unregistered) {
            return;
        }
        if let Some(batch) = self.seal(core) {
            self.complete.push(batch);
        }
    }

    fn seal(&mut self, core: &Arc<Core>) -> Option<SealedBatch> {
        let record = &core.unregistered;
        let taken = self.open.take(record)?;
        let era = core.eras.enter();
        record.handed(u64::from(taken.blocks), taken.bytes);
        core.shared.batches.fetch_add(1, Ordering::Relaxed);
        Some(SealedBatch::new(core, taken, era))
    }
}

impl Domain {
    /// Retires an object from a thread that has no participant, whatever is pending; what
    /// [`Participant::retire_unlinked`](crate::Participant::retire_unlinked) does, under a lock.
    ///
    /// The object may wait in a batch until other objects fill it, or until somebody calls
    /// [`collect`](Self::collect), [`advance`](Self::advance), [`maintain`](Self::maintain) or
    /// [`barrier`](Self::barrier).
    ///
    /// # Safety
    /// As for [`Participant::retire_unlinked`](crate::Participant::retire_unlinked).
    pub unsafe fn retire_unlinked(
        &self,
        object: NonNull<u8>,
        bytes: usize,
        context: usize,
        reclaim: ReclaimUnlinked,
    ) {
        let bytes = countable(bytes);
        self.inner().core.ledger.reserve(bytes);
        let entry = Entry { object, context, reclaim };
        // SAFETY: the caller's promise.
        if unsafe { self.inner().push_unregistered(entry, bytes) }.is_err() {
            // What can be reclaimed may be what is missing.
            self.collect();
            // SAFETY: as above; the first call has done nothing.
            if unsafe { self.inner().push_unregistered(entry, bytes) }.is_err() {
                handle_alloc_error(Chunk::LAYOUT);
            }
        }
    }

    /// Like [`retire_unlinked`](Self::retire_unlinked), within the hard limit.
    ///
    /// # Errors
    /// [`RetireError`] gives the object back when the limit would be passed, after an attempt to
    /// collect, or when there is no memory for a link.
    ///
    /// # Safety
    /// As for [`retire_unlinked`](Self::retire_unlinked).
    pub unsafe fn try_retire_unlinked(
        &self,
        object: NonNull<u8>,
        bytes: usize,
        context: usize,
        reclaim: ReclaimUnlinked,
    ) -> Result<(), RetireError<NonNull<u8>>> {
        let bytes = countable(bytes);
        let core = &self.inner().core;
        if core.ledger.try_reserve(bytes).is_err() {
            self.collect();
            if let Err(reserved) = core.ledger.try_reserve(bytes) {
                core.shared.refusals.fetch_add(1, Ordering::Relaxed);
                core.check_stalls();
                return Err(RetireError::new(object, RetireRefusal::Limit, bytes, reserved, core));
            }
        }
        let entry = Entry { object, context, reclaim };
        // SAFETY: the caller's promise.
        unsafe { self.inner().push_unregistered(entry, bytes) }.map_err(|OutOfMemory| {
            core.ledger.release(bytes);
            let reserved = core.ledger.reserved();
            RetireError::new(object, RetireRefusal::OutOfMemory, bytes, reserved, core)
        })
    }
}

impl Inner {
    /// # Safety
    /// As [`Unregistered::push`].
    unsafe fn push_unregistered(&self, entry: Entry, bytes: u64) -> Result<(), OutOfMemory> {
        // SAFETY: the caller's promise.
        if unsafe { self.unregistered.push(&self.core, entry, bytes) }? {
            self.help_unregistered();
        }
        Ok(())
    }

    /// A batch is complete: hands it over, and collects where much is pending.
    fn help_unregistered(&self) {
        self.step(Want::Reclaim);
        let is_over = || self.core.ledger.reserved() <= self.core.config.watermark;
        if is_over() {
            return;
        }
        self.core.shared.helps.fetch_add(1, Ordering::Relaxed);
        for _ in 0..HELP_STEPS {
            if is_over() || !self.step(Want::Reclaim) {
                return;
            }
        }
        self.core.check_stalls();
    }
}
