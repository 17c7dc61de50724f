//! Grace periods: numbered, at most one running, shared by everyone who asks for one.
//!
//! Owns the numbers of the last period started and the last one completed. crossbeam-epoch runs a
//! deferred function once every guard held at that moment is gone, but tells nobody the epoch; so a
//! period is one deferred function, and its number is what callers compare. Protocol:
//!
//! 1. Whoever drives the domain *launches* the next period when none is running, and then defers the
//!    function that completes it (rule G1).
//! 2. A [`GraceToken`] names the first period that has not been launched yet. A period that runs
//!    already may have looked at the guards before the caller unlinked anything, so it does not count
//!    (rule G2).
//! 3. A token is over when that period is complete. Later periods complete later, so one number
//!    answers for every token (rule G3).
//!
//! Tokens are the polled grace periods of RCU (`get_state_synchronize_rcu`, `poll_state_...`): taking
//! one allocates nothing and needs no participant.

use crate::sync::{AtomicU64, Ordering, fence, weakened};

/// A promise to be asked later whether every guard held when it was made is gone.
///
/// Made by [`Domain::start_grace`](crate::Domain::start_grace) and asked through
/// [`Domain::poll_grace`](crate::Domain::poll_grace). Tokens of one domain are ordered: when one is
/// over, so are all smaller ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GraceToken {
    pub(crate) domain: u64,
    pub(crate) period: u64,
}

/// What asking a [`GraceToken`] gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum Grace {
    /// Every guard that was held when the token was made is gone.
    Over,
    /// Some of them may still be held, the caller's own included.
    Pending,
    /// The token is of another domain; this one can say nothing about it.
    Foreign,
}

impl Grace {
    /// True for [`Over`](Self::Over).
    pub fn is_over(self) -> bool {
        self == Self::Over
    }
}

/// The numbers of the periods.
#[derive(Debug)]
pub struct Periods {
    started: AtomicU64,
    completed: AtomicU64,
}

impl Periods {
    /// No period started.
    pub fn new() -> Self {
        Self { started: AtomicU64::new(0), completed: AtomicU64::new(0) }
    }

    /// The period that a caller has to wait for whose unlinking comes before this call.
    pub fn awaited(&self) -> u64 {
        if !weakened("grace_no_fence") {
            // SeqCst: orders the caller's unlinking before the load below. It pairs with the fence
            // in crossbeam's pin: a reader whose fence comes first is pinned, in plain sight of the
            // launch that follows our load; a reader whose fence comes later sees the unlinking and
            // holds nothing that we wait for.
            fence(Ordering::SeqCst);
        }
        // Relaxed: the value read comes before the launch of the period returned, in the
        // modification order of `started`, and the launcher's own fence stands after that launch.
        let started = self.started.load(Ordering::Relaxed);
        if weakened("grace_running_period") && self.completed() < started {
            return started;
        }
        started + 1
    }

    /// Starts the next period and returns its number, unless one is running.
    ///
    /// Whoever gets a number must see to it that [`complete`](Self::complete) is called with it,
    /// once, after every guard held at this moment is gone.
    #[must_use]
    pub fn try_launch(&self) -> Option<u64> {
        let completed = self.completed();
        let next = completed + 1;
        // AcqRel: acquires what the previous period's completion released through `completed`, and
        // keeps the launch before the fence below. If two callers race, one gets the number and the
        // other sees a running period.
        self.started.compare_exchange(completed, next, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        // SeqCst: see `awaited`. Guards are looked at after this point only.
        fence(Ordering::SeqCst);
        Some(next)
    }

    /// Marks `period`, which [`try_launch`](Self::try_launch) gave, as over.
    pub fn complete(&self, period: u64) {
        debug_assert_eq!(self.completed.load(Ordering::Relaxed) + 1, period);
        // Release: pairs with the acquire in `completed`. Who sees the number has all that the
        // readers did under their guards behind it; who does not, goes on waiting.
        self.completed.store(period, Ordering::Release);
    }

    /// Number of the last period completed.
    pub fn completed(&self) -> u64 {
        // Acquire: pairs with the release in `complete`.
        self.completed.load(Ordering::Acquire)
    }

    /// Number of the last period started.
    pub fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// True while a period runs.
    pub fn is_running(&self) -> bool {
        self.completed() < self.started()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_taken_while_a_period_runs_waits_for_the_next_one() {
        let periods = Periods::new();
        let before = periods.awaited();
        let first = periods.try_launch().expect("none runs");
        assert_eq!(before, first);
        let during = periods.awaited();
        assert_eq!(during, first + 1);
        assert_eq!(periods.try_launch(), None, "one at a time");
        periods.complete(first);
        assert!(periods.completed() >= before);
        assert!(periods.completed() < during);
        let second = periods.try_launch().expect("the first is over");
        periods.complete(second);
        assert!(periods.completed() >= during);
        assert!(!periods.is_running());
    }
}
