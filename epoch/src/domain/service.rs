//! The domain's own handle to its collector: how those drive it who have no participant.
//!
//! One handle for the whole life of the domain, because registering and dropping one allocates about
//! 4 KiB each time. Whoever finds it busy leaves: another thread is doing the same work, or the same
//! thread is, further up its stack.

use std::sync::Arc;

use crossbeam_epoch::LocalHandle;

use super::core::Core;
use crate::memory::{self, BAG, Reserve};
use crate::sync::Mutex;
use crate::unregistered::Unregistered;

#[derive(Debug)]
pub(crate) struct Service(Mutex<Handle>);

/// What a step is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// A grace period, whether or not anything is pending.
    Period,
    /// What is pending.
    Reclaim,
}

#[derive(Debug)]
struct Handle {
    /// Goes first: for the drop of the handle.
    _reserve: Reserve,
    handle: LocalHandle,
}

/// Batches that one step hands over at most: a part of a bag, for which there is memory.
const MOST_BATCHES: usize = if cfg!(miri) { 2 } else { 32 };

// SAFETY: rule D3. A handle is `!Send` because a guard may stay behind on the thread that it leaves.
// This one is used under the mutex alone, its guards end before the mutex is unlocked, and what its
// bag holds was deferred by us and may run on any thread (rule R3).
unsafe impl Send for Handle {}

impl Service {
    pub(crate) fn new(handle: LocalHandle) -> Self {
        Self(Mutex::new(Handle { _reserve: Reserve::new(), handle }))
    }

    /// One step: hands over what was retired without a participant, starts a grace period if none runs
    /// and batches or the caller want one, lets the epoch advance, reclaims what expired.
    /// Returns false when the handle was busy or there was no memory for a bag.
    pub(crate) fn step(&self, core: &Arc<Core>, unregistered: &Unregistered, want: Want) -> bool {
        let handle = match self.0.try_lock() {
            Ok(handle) => handle,
            // Nothing that runs under the lock leaves the handle in disorder; see `run_all`.
            #[cfg(not(flagstone_loom))]
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(_) => return false,
        };
        if !memory::at_hand([BAG]) {
            return false;
        }
        let guard = handle.handle.pin();
        for _ in 0..MOST_BATCHES {
            let Some(batch) = unregistered.take_one() else { break };
            // SAFETY:
            // 1. Rule R1: its objects were unlinked before they joined it, and the collector waits for
            //    all that are inside.
            // 2. Rule R3: they may be reclaimed on any thread; what else the closure holds is `Send`.
            unsafe { guard.defer_unchecked(move || batch.reclaim()) };
        }
        match want {
            Want::Period => core.launch_period(&guard),
            Want::Reclaim => core.launch_period_for_batches(&guard),
        }
        guard.flush();
        true
    }
}
