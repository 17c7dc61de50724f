//! Waiting for everything that was retired before.
//!
//! Two stages. First the open batches: each participant that has one is asked for it, and its record
//! tells when the objects counted at the start have been handed over. Then the batches in flight: the
//! two waits of [`Drain`]. Between polls the barrier drives the collector itself, so it ends even when
//! nobody else is active. Rules B1 to B3 of `docs/invariants/epoch.md`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::domain::{Core, Inner, Want};
use crate::eras::Drain;
use crate::reclaiming;
use crate::stall::GuardReport;
use crate::sync::{Ordering, yield_now};

/// Why a barrier did not end.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BarrierError {
    /// The calling participant holds a guard, which the barrier would wait for.
    GuardHeld,
    /// The caller is inside a reclaim function, whose own batch the barrier would wait for.
    InReclaim,
    /// The time is up.
    #[non_exhaustive]
    TimedOut {
        /// Objects that were retired before the barrier and are still in a participant's open batch.
        open_blocks: u64,
        /// The thread of one such participant.
        open_on: Option<Arc<str>>,
        /// Batches handed over and not reclaimed.
        in_flight_batches: u64,
        /// The guard held longest, which may be what they wait for.
        oldest_guard: Option<GuardReport>,
    },
}

impl fmt::Display for BarrierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GuardHeld => f.write_str("barrier called while holding a guard of its domain"),
            Self::InReclaim => f.write_str("barrier called from a reclaim function"),
            Self::TimedOut { open_blocks, open_on, in_flight_batches, oldest_guard } => {
                write!(f, "barrier timed out: {open_blocks} objects in open batches")?;
                if let Some(thread) = open_on {
                    write!(f, " (of thread {thread})")?;
                }
                write!(f, ", {in_flight_batches} batches in flight")?;
                match oldest_guard {
                    Some(guard) => write!(f, "; oldest guard: {guard}"),
                    None => f.write_str("; no guard is held"),
                }
            }
        }
    }
}

impl std::error::Error for BarrierError {}

pub(crate) fn wait(inner: &Inner, timeout: Duration) -> Result<(), BarrierError> {
    let core = &*inner.core;
    if reclaiming::is_going_on(core.id) {
        return Err(BarrierError::InReclaim);
    }
    inner.unregistered.complete(&inner.core);
    // A time that cannot be expressed never comes.
    let deadline = Instant::now().checked_add(timeout);
    let mut patience = Patience { deadline, rounds: 0 };

    // Rule B3: counts read now cover all that happened before the call.
    let open: Vec<_> = core
        .registry
        .iter()
        .filter(|record| record.open().0 > 0)
        .map(|record| (record, record.retired_so_far().0))
        .collect();
    for (record, _) in &open {
        record.ask();
    }
    let missing = || {
        open.iter().map(|(record, target)| (record, target.saturating_sub(record.handed_blocks())))
    };
    while missing().any(|(_, blocks)| blocks > 0) {
        if !patience.pause() {
            let first = missing().find(|(_, blocks)| *blocks > 0);
            let blocks = missing().map(|(_, blocks)| blocks).sum();
            return Err(timed_out(core, blocks, first.map(|(record, _)| record.thread())));
        }
    }

    let Some(_turn) = Turn::wait(core, &mut patience) else {
        return Err(timed_out(core, 0, None));
    };
    let mut drain = Drain::start(&core.eras);
    while !drain.poll(&core.eras) {
        inner.step(Want::Reclaim);
        if !drain.poll(&core.eras) && !patience.pause() {
            return Err(timed_out(core, 0, None));
        }
    }
    Ok(())
}

#[cold]
fn timed_out(core: &Core, open_blocks: u64, open_on: Option<Arc<str>>) -> BarrierError {
    core.observe();
    BarrierError::TimedOut {
        open_blocks,
        open_on,
        in_flight_batches: core.eras.in_flight(),
        oldest_guard: core.oldest_guard(),
    }
}

/// The right to flip eras, for one barrier at a time.
struct Turn<'a>(&'a Core);

impl<'a> Turn<'a> {
    fn wait(core: &'a Core, patience: &mut Patience) -> Option<Self> {
        // Relaxed: the flag orders nothing; any number of barriers at once would be correct.
        while core.barrier.swap(true, Ordering::Relaxed) {
            if !patience.pause() {
                return None;
            }
        }
        Some(Self(core))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.barrier.store(false, Ordering::Relaxed);
    }
}

/// Pauses that grow from a yield to a millisecond, until the deadline.
struct Patience {
    deadline: Option<Instant>,
    rounds: u32,
}

impl Patience {
    /// Pauses, or returns false when the time is up.
    fn pause(&mut self) -> bool {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return false;
        }
        self.rounds = self.rounds.saturating_add(1);
        match self.rounds {
            0..=32 => yield_now(),
            rounds => std::thread::sleep(Duration::from_micros(u64::from(rounds).min(1000))),
        }
        true
    }
}
