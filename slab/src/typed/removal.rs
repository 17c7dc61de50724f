//! Removing: out of sight at once, out of the slot after the grace period.
//!
//! The remover takes the value out of sight with one compare-exchange, and lists the slot in its shard's
//! limbo chunk, which is retired with its first slot and takes further ones as riders. When the grace
//! period is over, [`reclaim`] vacates the slots and puts the chunk into a bucket. Until then nobody
//! uses the slot again: that its word has moved on says nothing to a reader who has found the value
//! already (rule T6).

use std::ptr::NonNull;
use std::sync::Arc;

use flagstone_epoch::{Guard, RetireNode};

use super::chunk::Chunk;
use super::core::{Core, Page, Table};
use super::error::OutOfMemory;
use super::key::Key;
use super::mode::{Mode, through_panics};
use super::shard::Shard;
use super::slot::{Listed, Slot};
use super::word::Removal;
use crate::sync::{Ordering, weakened};

impl<T, M: Mode<T>> Table<T, M> {
    /// Removes the value of `key`, which holds `bytes` besides its slot; true if it was there.
    #[inline(always)]
    pub(super) fn remove(
        &self,
        key: Key,
        bytes: usize,
        guard: &Guard<'_>,
    ) -> Result<bool, OutOfMemory> {
        let bytes = size_of::<Slot<T>>().saturating_add(bytes);
        self.check(guard);
        let Some((slot, page)) = self.core.slot(key.index()) else { return Ok(false) };
        let shard = self.shard(guard)?;
        let participant = guard.participant();
        if let Some(seat) = participant.seat(shard.carrier.get(), bytes) {
            // SAFETY: rule T3: its batch is open, so the chunk has not been reclaimed, and it is this
            // participant's.
            let limbo = unsafe { shard.limbo.get().as_ref() };
            if let Some(place) = limbo.place() {
                match slot.word.remove(key.word()) {
                    Removal::Removed => place.put(Listed::new(slot)),
                    Removal::RemovedLast => place.put_worn(slot),
                    Removal::Missed => return Ok(false),
                }
                shard.removed.add_after(1);
                // SAFETY: the participant was not used since it gave the seat. The value is out of
                // sight, and in the chunk, whose reclaim is `reclaim`.
                unsafe { participant.ride(seat) };
                return Ok(true);
            }
        }
        self.remove_slow(key, bytes, slot, page, shard, guard)
    }

    /// Removes with a new limbo chunk.
    #[cold]
    fn remove_slow(
        &self,
        key: Key,
        bytes: usize,
        slot: &Slot<T>,
        page: &Page<T>,
        shard: &Shard<T, M>,
        guard: &Guard<'_>,
    ) -> Result<bool, OutOfMemory> {
        // Before the removal, which cannot be taken back.
        let chunk = shard.take_spare(&self.core)?;
        // SAFETY: rule T3: just taken.
        let limbo = unsafe { chunk.as_ref() };
        let removal = slot.word.remove(key.word());
        match (limbo.place(), removal) {
            (Some(place), Removal::Removed) => place.put(Listed::new(slot)),
            (Some(place), Removal::RemovedLast) => place.put_worn(slot),
            // A spare chunk is empty, and has a place.
            (None, _) | (_, Removal::Missed) => {
                shard.put_spare(chunk);
                return Ok(false);
            }
        }
        // What this thread uses up it gets back; what it removes beyond that goes to who inserted it,
        // as far as the page tells.
        let home = if shard.pay_chunk() {
            self.core.home(guard.participant())
        } else {
            page.home.load(Ordering::Relaxed) as usize
        };
        limbo.home.set(home as u16);
        shard.removed.add_after(1);
        if weakened("typed_reuse_at_once") {
            // SAFETY: none; this is the control, which must fail.
            unsafe { reclaim::<T, M>(chunk.cast()) };
            return Ok(true);
        }
        // SAFETY:
        // 1. The node is at the front of the chunk, which `reclaim` takes over, and which stays until
        //    then: the core that it holds keeps everything alive.
        // 2. The values are out of sight, and who found them holds a guard.
        // 3. `T` is `Send` and `'static`, as the constructors ask, so values may drop anywhere, later.
        let carrier =
            unsafe { guard.participant().retire_carrier(chunk.cast(), bytes, reclaim::<T, M>) };
        // Values dropped in that call may have removed others with a chunk of their own: it is in the
        // domain's hands too, and just gets no more.
        shard.limbo.set(chunk);
        shard.carrier.set(carrier);
        if self.core.is_trim_due(home) {
            self.trim(guard);
        }
        Ok(true)
    }
}

/// Vacates the slots of a limbo chunk and puts it into its bucket.
///
/// # Safety
/// `node` is the front of a chunk that was retired, and its grace period is over. Called once.
unsafe fn reclaim<T, M: Mode<T>>(node: NonNull<RetireNode>) {
    let chunk = node.cast::<Chunk<T, M>>();
    // SAFETY: rule T3: from now on the chunk is the reclaimer's.
    let limbo = unsafe { chunk.as_ref() };
    let core = limbo.core();
    let panic = if M::ACTS { vacate(limbo) } else { None };
    close(limbo);
    let vacated = limbo.len();
    core.take_out_worn(limbo);
    // Once the chunk is in the bucket it is no longer ours, and whoever drops the slab may free it, and
    // the core with it, while this thread is still on its way out of the bucket's lock. So the bucket
    // is held on its own: a count in the bucket's memory, and not one that all reclaimers share.
    let bucket = Arc::clone(&core.buckets[usize::from(limbo.home.get()) % core.buckets.len()]);
    if let Some(chunk) = bucket.put_counted(chunk, vacated) {
        // SAFETY: rule T3: given back, and not needed.
        unsafe { Chunk::free(chunk) };
    }
    // The domain counts it.
    if let Some(payload) = panic {
        std::panic::resume_unwind(payload);
    }
}

/// Vacates each slot of a chunk, through panics.
fn vacate<T, M: Mode<T>>(limbo: &Chunk<T, M>) -> Option<Box<dyn std::any::Any + Send>> {
    let mut at = 0;
    through_panics(|| {
        let Some(listed) = limbo.at(at) else { return false };
        at += 1;
        // SAFETY: rule T2: the slot is listed here and nowhere else; its grace period is over, so the
        // value, which was published, is ours alone.
        unsafe { M::vacate(listed.slot().as_ref().value()) };
        true
    })
}

/// Tells the sanitizer, if there is one, that the slots of a chunk are free.
fn close<T, M: Mode<T>>(limbo: &Chunk<T, M>) {
    if cfg!(flagstone_asan) {
        for listed in (0..limbo.len()).filter_map(|at| limbo.at(at)) {
            // SAFETY: rule T2: as in `vacate`.
            unsafe { listed.slot().as_ref() }.close();
        }
    }
}

impl<T, M: Mode<T>> Core<T, M> {
    /// Counts and drops from the chunk the slots that have had their last value.
    fn take_out_worn(&self, limbo: &Chunk<T, M>) {
        if limbo.has_worn() {
            limbo.retain(|slot, worn| !(worn && self.wear_out(slot)));
        }
    }

    #[cold]
    fn wear_out(&self, slot: NonNull<Slot<T>>) -> bool {
        self.worn.add(1);
        // SAFETY: rule T2: listed in a chunk that the caller has.
        let index = unsafe { slot.as_ref() }.index();
        if let Some(page) = self.pages.get(Slot::<T>::locate(index).0) {
            // Relaxed: a count; who adds it up holds all free slots of the page, or returns nothing.
            page.worn.fetch_add(1, Ordering::Relaxed);
        }
        true
    }
}
