//! The end of a soak, as its threads see it: a flag that wakes who rests, and a pace to rest by.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest rest between two looks at the clock of a [`Pace`]; who fell behind by more starts afresh.
const BEHIND: Duration = Duration::from_millis(500);

/// Raised once, when the threads are to finish.
#[derive(Debug, Default)]
pub struct Pulse {
    stopped: Mutex<bool>,
    bell: Condvar,
}

impl Pulse {
    /// Tells everybody to finish.
    pub fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_all();
    }

    /// Whether it is time to finish.
    pub fn is_stopped(&self) -> bool {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rests for `time`, less if it is time to finish. True if it is.
    pub fn rest(&self, time: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.bell.wait_timeout_while(stopped, time, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A number of turns per second. Who falls behind does not catch up: a soak wants time, not a total.
#[derive(Debug)]
pub struct Pace {
    between: Duration,
    due: Instant,
}

impl Pace {
    /// `per_second` turns, from now on.
    pub fn new(per_second: f64) -> Pace {
        Pace { between: Duration::from_secs_f64(1.0 / per_second), due: Instant::now() }
    }

    /// Rests until the next turn. True if it is time to finish instead.
    pub fn rest(&mut self, pulse: &Pulse) -> bool {
        let now = Instant::now();
        self.due += self.between;
        if now > self.due + BEHIND {
            self.due = now;
        }
        pulse.rest(self.due.saturating_duration_since(now))
    }

    /// When the turn that [`rest`](Self::rest) ended with was due.
    pub fn due(&self) -> Instant {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stopping_ends_every_rest() {
        let pulse = Pulse::default();
        assert!(!pulse.rest(Duration::from_millis(1)));
        std::thread::scope(|scope| {
            let resting = scope.spawn(|| pulse.rest(Duration::from_secs(3600)));
            pulse.stop();
            assert!(resting.join().unwrap());
        });
        assert!(pulse.is_stopped() && Pace::new(0.001).rest(&pulse));
    }
}
