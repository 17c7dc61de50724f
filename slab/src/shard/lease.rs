//! The lease: who has a shard, in one word.
//!
//! Owns the state machine. A shard is *idle* (nobody's), *leased* (one thread allocates from it),
//! *parked* (its thread sleeps and has stepped back) or *claimed* (the scavenger works on it). A
//! claimed shard remembers whether a parked thread waits for it.
//!
//! ```text
//!            lease                 park
//!   idle  ----------->  leased  --------->  parked
//!    ^ \                  |  ^                | |  \
//!    |  \     give_back   |  |     unpark     | |   \ claim
//!    |   \ <--------------+  +----------------+ |    v
//!    |    \ claim                     give_back |   claimed, homed
//!    |     v                                    |    |        |
//!    |   claimed  <-----------------------------+----+        | unclaim
//!    +------ unclaim              give_back (of a homed one)  v
//!                                                           parked
//! ```
//!
//! Protocol: taking a shard (lease, unpark, claim) is an acquire compare-exchange, stepping back
//! from one (park, give_back, unclaim) a release one. Each take that reads a step-back's value
//! therefore sees everything that the former holder did to the shard; a take that reads an older
//! value fails its exchange. Nobody ever waits: a refused take is reported and the caller goes on
//! without the shard.

use crate::sync::{AtomicU32, Ordering, const_off_loom, weakened};

/// The packed state word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseWord(u32);

/// The lease of one shard.
#[derive(Debug)]
pub struct Lease(AtomicU32);

/// What asking for an idle shard gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Take {
    /// The caller has the shard.
    Taken,
    /// Somebody else has it.
    Refused,
}

/// What asking for one's parked shard gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Unpark {
    /// The caller has its shard again.
    Taken,
    /// The scavenger works on it; ask again later.
    Claimed,
}

impl LeaseWord {
    /// Nobody has the shard.
    pub const IDLE: Self = Self(0);
    /// A thread allocates from it.
    pub const LEASED: Self = Self(1);
    /// Its thread sleeps.
    pub const PARKED: Self = Self(2);
    /// Claimed while idle: no thread waits for it.
    pub const CLAIMED: Self = Self(3);
    /// Claimed while parked: a thread will want it back.
    pub const CLAIMED_HOMED: Self = Self(4);
    /// Left behind by a thread that a forked child does not have. For good.
    pub const ORPHANED: Self = Self(5);
}

impl Lease {
    const_off_loom! {
        /// The lease of a new shard, which its maker has.
        pub fn new_leased() -> Self {
            Self(AtomicU32::new(LeaseWord::LEASED.0))
        }
    }

    /// The state now; advice, for statistics and for choosing whom to ask. Relaxed: every decision
    /// is made by an exchange.
    pub fn word(&self) -> LeaseWord {
        LeaseWord(self.0.load(Ordering::Relaxed))
    }

    /// A thread asks for an idle shard.
    pub fn try_lease(&self) -> Take {
        self.take(LeaseWord::IDLE, LeaseWord::LEASED)
    }

    /// The leaseholder is about to sleep.
    pub fn park(&self) {
        self.step_back(LeaseWord::LEASED, LeaseWord::PARKED);
    }

    /// The thread that parked the shard wants it back.
    pub fn try_unpark(&self) -> Unpark {
        match self.take(LeaseWord::PARKED, LeaseWord::LEASED) {
            Take::Taken => Unpark::Taken,
            Take::Refused => Unpark::Claimed,
        }
    }

    /// The thread whose shard this is, leased or parked, gives it up for good.
    pub fn give_back(&self) {
        loop {
            let word = self.word();
            let idle = match word {
                LeaseWord::LEASED | LeaseWord::PARKED => LeaseWord::IDLE,
                LeaseWord::CLAIMED_HOMED => LeaseWord::CLAIMED,
                _ => unreachable_state(),
            };
            // Only the scavenger can come between, once per pass.
            if self.exchange(word, idle) {
                return;
            }
        }
    }

    /// The scavenger, or a thread with a chain for a sleeping owner, asks for the shard.
    pub fn try_claim(&self) -> Take {
        match self.word() {
            LeaseWord::IDLE => self.take(LeaseWord::IDLE, LeaseWord::CLAIMED),
            LeaseWord::PARKED => self.take(LeaseWord::PARKED, LeaseWord::CLAIMED_HOMED),
            _ => Take::Refused,
        }
    }

    /// The claimer is done. The shard is parked again if its thread still waits, else idle.
    pub fn unclaim(&self) {
        loop {
            let word = self.word();
            let next = match word {
                LeaseWord::CLAIMED => LeaseWord::IDLE,
                LeaseWord::CLAIMED_HOMED => LeaseWord::PARKED,
                _ => unreachable_state(),
            };
            // Only the home thread's `give_back` can come between, once.
            if self.exchange(word, next) {
                return;
            }
        }
    }

    /// In a forked child, before it has threads: the shard's thread is not here, and what it was
    /// doing will never be finished.
    pub(crate) fn orphan(&self) {
        // Relaxed: the child's threads start after this and so see it.
        self.0.store(LeaseWord::ORPHANED.0, Ordering::Relaxed);
    }

    /// In a forked child, before it has threads: the thread that had parked the shard is not here.
    pub(crate) fn leave_idle(&self) {
        // Relaxed: as in `orphan`.
        self.0.store(LeaseWord::IDLE.0, Ordering::Relaxed);
    }

    fn take(&self, from: LeaseWord, to: LeaseWord) -> Take {
        // Acquire pairs with the release of the step-back that wrote `from`: we see all that the
        // former holder did. If another taker was first, we read its value and fail.
        let order = if weakened("lease_acquire") { Ordering::Relaxed } else { Ordering::Acquire };
        if weakened("lease_take") {
            // The control: a look and a store are not a take.
            if self.word() == from {
                self.0.store(to.0, Ordering::Release);
                return Take::Taken;
            }
            return Take::Refused;
        }
        match self.0.compare_exchange(from.0, to.0, order, Ordering::Relaxed) {
            Ok(_) => Take::Taken,
            Err(_) => Take::Refused,
        }
    }

    fn step_back(&self, from: LeaseWord, to: LeaseWord) {
        let done = self.exchange(from, to);
        debug_assert!(done, "only the leaseholder parks a shard");
    }

    fn exchange(&self, from: LeaseWord, to: LeaseWord) -> bool {
        // Release pairs with the acquire of the next take: it sees our writes to the shard. Acquire
        // too, because a claimer whose unclaim follows a give_back passes that thread's writes on.
        let order = if weakened("lease_release") { Ordering::Relaxed } else { Ordering::AcqRel };
        self.0.compare_exchange(from.0, to.0, order, Ordering::Relaxed).is_ok()
    }
}

#[cold]
fn unreachable_state() -> ! {
    crate::os::fatal(format_args!("a shard's lease was given up by a thread that had none"));
}

#[cfg(all(test, not(flagstone_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_shard_goes_round_its_states() {
        let lease = Lease::new_leased();
        assert_eq!(lease.try_lease(), Take::Refused);
        assert_eq!(lease.try_claim(), Take::Refused);
        lease.park();
        assert_eq!(lease.try_lease(), Take::Refused, "a parked shard waits for its thread");
        assert_eq!(lease.try_claim(), Take::Taken);
        assert_eq!(lease.try_unpark(), Unpark::Claimed);
        lease.unclaim();
        assert_eq!(lease.try_unpark(), Unpark::Taken);
        lease.give_back();
        assert_eq!(lease.word(), LeaseWord::IDLE);
        assert_eq!(lease.try_claim(), Take::Taken);
        assert_eq!(lease.try_lease(), Take::Refused);
        lease.unclaim();
        assert_eq!(lease.try_lease(), Take::Taken);
    }

    #[test]
    fn a_thread_that_ends_while_its_shard_is_claimed_leaves_it_idle() {
        let lease = Lease::new_leased();
        lease.park();
        assert_eq!(lease.try_claim(), Take::Taken);
        lease.give_back();
        assert_eq!(lease.try_claim(), Take::Refused, "still claimed once");
        lease.unclaim();
        assert_eq!(lease.word(), LeaseWord::IDLE);
    }
}
