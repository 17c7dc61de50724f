//! Guards held too long: who, where, since when.
//!
//! A guard notes its place and nothing else; reading a clock at every guard would cost more than the
//! guard. So age is what observers saw: the first look that finds a guard notes the time, later looks
//! subtract it. The figure is a lower bound, short by at most the time between two looks (rule P5).
//! This is how RCU's stall detector sees it too: from the grace period, not from the reader.

use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::Core;
use crate::registry::Record;
use crate::sync::Ordering;

/// A guard that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuardReport {
    /// Name of the domain.
    pub domain: Arc<str>,
    /// Number of the participant's record in its domain.
    pub participant: usize,
    /// Name of the thread that registered the participant, or its id if it has no name.
    pub thread: Arc<str>,
    /// Where the outermost guard was taken.
    pub place: &'static Location<'static>,
    /// For how long it has been seen held: a lower bound of its age.
    pub age: Duration,
}

impl fmt::Display for GuardReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, thread, place, age, .. } = self;
        write!(f, "guard of domain {domain} held by thread {thread} for {age:?}, taken at {place}")
    }
}

impl Core {
    /// Notes which guards are held. Does nothing when another thread is at it.
    pub(crate) fn observe(&self) {
        let _ = self.with_observer(|core, now| {
            let epoch = core.periods.completed();
            for record in core.registry.iter() {
                if let Some(held) = record.held() {
                    record.observe(held, now, epoch);
                }
            }
        });
    }

    /// Reports guards that have stalled and were not reported yet.
    pub(crate) fn check_stalls(&self) -> usize {
        let limit = self.config.stall_after.as_nanos() as u64;
        let found = self.with_observer(|core, now| {
            let mut found = Vec::new();
            let epoch = core.periods.completed();
            for record in core.registry.iter() {
                let Some(held) = record.held() else { continue };
                let nanos = now.saturating_sub(record.observe(held, now, epoch));
                // Without memory it is reported by a later look.
                if nanos >= limit && found.try_reserve(1).is_ok() && record.first_report(held) {
                    found.push(core.report(record, held.place, nanos));
                }
            }
            found
        });
        // Out of the observer's turn: the callback may look for itself.
        let found = found.unwrap_or_default();
        for report in &found {
            self.shared.stalls.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                domain = &*self.name,
                thread = &*report.thread,
                place = %report.place,
                age_seconds = report.age.as_secs_f64(),
                reserved_bytes = self.ledger.reserved(),
                "a guard is held for long: retired memory cannot be freed",
            );
            if let Some(on_stall) = &self.config.on_stall {
                // It may run in the drop of a guard, where a panic could abort.
                if catch_unwind(AssertUnwindSafe(|| on_stall(report))).is_err() {
                    tracing::error!(domain = &*self.name, "the stall callback panicked");
                }
            }
        }
        found.len()
    }

    /// The guard seen held for longest. Reads what observers noted and notes nothing.
    pub(crate) fn oldest_guard(&self) -> Option<GuardReport> {
        let now = self.now();
        let held = self.registry.iter().filter_map(|record| {
            let held = record.held()?;
            let since = record.observed_since(held).map_or(now, |(since, _)| since);
            Some((now.saturating_sub(since), record, held))
        });
        let (nanos, record, held) = held.max_by_key(|(nanos, ..)| *nanos)?;
        Some(self.report(record, held.place, nanos))
    }

    /// The epoch in which the guard held longest was first seen; the current one if none is held.
    pub(crate) fn oldest_epoch(&self) -> u64 {
        let current = self.periods.completed();
        let seen = self.registry.iter().filter_map(|record| {
            let (_, epoch) = record.observed_since(record.held()?)?;
            Some(epoch)
        });
        seen.min().unwrap_or(current).min(current)
    }

    fn report(
        &self,
        record: &Record,
        place: &'static Location<'static>,
        nanos: u64,
    ) -> GuardReport {
        GuardReport {
            domain: Arc::clone(&self.name),
            participant: record.number(),
            thread: record.thread(),
            place,
            age: Duration::from_nanos(nanos),
        }
    }

    /// Runs `look` as the only observer, or not at all.
    fn with_observer<R>(&self, look: impl FnOnce(&Self, u64) -> R) -> Option<R> {
        struct Turn<'a>(&'a Core);
        impl Drop for Turn<'_> {
            fn drop(&mut self) {
                // Release: pairs with the acquire below; the next observer sees these notes.
                self.0.observing.store(false, Ordering::Release);
            }
        }
        // Acquire: pairs with the release above. If both swap at once, one finds `true` and leaves.
        if self.observing.swap(true, Ordering::Acquire) {
            return None;
        }
        let turn = Turn(self);
        Some(look(turn.0, self.now()))
    }
}
