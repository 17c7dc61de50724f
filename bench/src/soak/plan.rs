//! How long a soak takes, how hard it loads the server, and which faults it makes.

use std::time::Duration;

/// Rounds that are run even if the time is over: fewer give no verdict on the resident set.
pub const FEWEST_ROUNDS: usize = 12;

/// Rounds of warm-up at the least: every fault once, and two more.
const FEWEST_WARM_UP: usize = super::faults::FAULTS.len() + 2;

/// What a soak is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Time for everything. The last round may pass it, and the end comes on top of that.
    pub length: Duration,
    /// A tenth of the load, for a machine that others need, too.
    pub light: bool,
    /// Servers that are soaked at once; one if they take turns.
    pub at_once: u32,
    /// Faults by name; see [`super::faults::FAULTS`].
    pub faults: Vec<&'static str>,
    /// Errors of our own making, which the checks must find.
    pub inject: Vec<Injected>,
}

/// An error that the soak makes itself, to show that its checks can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Injected {
    /// Somebody stores keys that nobody deletes.
    Leak,
    /// Somebody overwrites a key of a client that knows what it stored.
    Value,
    /// The server is killed where it should be asked to end.
    Kill,
}

impl Injected {
    /// Every one.
    pub const ALL: [Injected; 3] = [Injected::Leak, Injected::Value, Injected::Kill];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Injected::Leak => "leak",
            Injected::Value => "value",
            Injected::Kill => "kill",
        }
    }
}

impl Plan {
    /// Churn of one round, in which the resident set is read.
    pub fn churn(&self) -> Duration {
        (self.length / 30).clamp(Duration::from_millis(800), Duration::from_secs(30))
    }

    /// Time for the resident set to settle after a fault: the heap's decay is a second.
    pub fn settle(&self) -> Duration {
        (self.length / 80).clamp(Duration::from_millis(300), Duration::from_secs(3))
    }

    /// Time after which no further round begins.
    pub fn rounds_until(&self) -> Duration {
        self.length.saturating_sub((self.length / 10).min(Duration::from_secs(15)))
    }

    /// Rounds at the start that are warm-up: a quarter, and until every fault has left its mark once.
    pub fn warm_up(rounds: usize) -> usize {
        rounds.div_ceil(4).max(FEWEST_WARM_UP)
    }

    /// Whether a rise after `rounds` is looked at for as many again before it counts: in a short soak
    /// a pause of the machine, after which memory fills anew, is much of the window.
    pub fn confirms(&self, rounds: usize) -> bool {
        rounds < 2 * FEWEST_ROUNDS
    }

    /// A rate or a number at full load, as this plan has it.
    pub fn load(&self, full: u32) -> u32 {
        if self.light { full.div_ceil(10) } else { full }
    }

    /// Requests of each of redis-benchmark's tests: a series is over before its round is.
    pub fn series(&self) -> u32 {
        let full = 1000.0 * self.churn().as_secs_f64();
        self.load((full as u32).clamp(500, 5000))
    }

    /// Whether an error is injected.
    pub fn injects(&self, what: Injected) -> bool {
        self.inject.contains(&what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::trend::FEWEST;

    #[test]
    fn the_fewest_rounds_give_a_verdict() {
        let after = FEWEST_ROUNDS - Plan::warm_up(FEWEST_ROUNDS);
        assert!(after >= FEWEST, "{after}");
        assert_eq!(Plan::warm_up(40), 10);
    }

    #[test]
    fn two_minutes_have_time_for_fourteen_rounds() {
        let plan = Plan {
            length: Duration::from_secs(120),
            light: true,
            at_once: 1,
            faults: Vec::new(),
            inject: vec![Injected::Leak],
        };
        let round = plan.churn() + plan.settle() + Duration::from_secs(2);
        assert!(round * 14 < plan.rounds_until(), "{round:?}");
        assert_eq!((plan.load(200), plan.load(4)), (20, 1));
        assert!(plan.injects(Injected::Leak) && !plan.injects(Injected::Kill));
    }
}
