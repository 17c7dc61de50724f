//! How long the scavenger sleeps between two passes: plain arithmetic, no clock of its own.
//!
//! - Half the decay, so that what is due is purged at most half a decay late.
//! - Twice that after a pass that found nothing: an idle program is woken half as often, and what a
//!   peak leaves behind is still returned within two decay times (one to fall due, one to the next
//!   pass).
//! - At least nineteen times the last pass, which keeps a heap of many gigabytes from taking more
//!   than a twentieth of a core.
//!
//! The bounds were chosen, not measured.

use std::time::Duration;

const DEFAULT_MIN: Duration = Duration::from_millis(10);
const DEFAULT_MAX: Duration = Duration::from_secs(10);
const EXPLICIT_MIN: Duration = Duration::from_millis(1);
const EXPLICIT_MAX: Duration = Duration::from_secs(3600);
/// Time asleep for each time spent in a pass.
const SLEEP_PER_WORK: u32 = 19;

/// The pace of a scavenger.
#[derive(Debug)]
pub(super) struct Pace {
    /// `None`: follow the heap's decay.
    explicit: Option<Duration>,
    last_pass: Duration,
    was_idle: bool,
}

impl Pace {
    pub(super) fn new(explicit: Option<Duration>) -> Self {
        Self { explicit, last_pass: Duration::ZERO, was_idle: false }
    }

    /// Tells how the last pass went.
    pub(super) fn after_pass(&mut self, took: Duration, did_something: bool) {
        self.last_pass = took;
        self.was_idle = !did_something;
    }

    /// How long to sleep before the next pass.
    pub(super) fn interval(&self, decay: Duration) -> Duration {
        let base = match self.explicit {
            Some(interval) => interval.clamp(EXPLICIT_MIN, EXPLICIT_MAX),
            None => (decay / 2).clamp(DEFAULT_MIN, DEFAULT_MAX),
        };
        let wanted = if self.was_idle { base * 2 } else { base };
        let rest = self.last_pass.saturating_mul(SLEEP_PER_WORK).min(EXPLICIT_MAX);
        wanted.max(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn half_the_decay_and_the_whole_when_idle() {
        let mut pace = Pace::new(None);
        assert_eq!(pace.interval(SECOND), SECOND / 2);
        pace.after_pass(Duration::ZERO, false);
        assert_eq!(pace.interval(SECOND), SECOND);
        pace.after_pass(Duration::ZERO, false);
        assert_eq!(pace.interval(SECOND), SECOND, "never more than one decay");
        pace.after_pass(Duration::ZERO, true);
        assert_eq!(pace.interval(SECOND), SECOND / 2);
    }

    #[test]
    fn extreme_settings_are_bounded() {
        let pace = Pace::new(None);
        assert_eq!(pace.interval(Duration::ZERO), DEFAULT_MIN);
        assert_eq!(pace.interval(Duration::MAX), DEFAULT_MAX);
        assert_eq!(Pace::new(Some(Duration::ZERO)).interval(SECOND), EXPLICIT_MIN);
        assert_eq!(Pace::new(Some(Duration::MAX)).interval(SECOND), EXPLICIT_MAX);
    }

    #[test]
    fn long_passes_come_less_often() {
        let mut pace = Pace::new(None);
        pace.after_pass(Duration::from_millis(200), true);
        assert_eq!(pace.interval(SECOND), Duration::from_millis(3_800));
        pace.after_pass(Duration::MAX, true);
        assert_eq!(pace.interval(SECOND), EXPLICIT_MAX);
    }
}
