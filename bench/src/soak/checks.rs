//! The ledger of a soak: every check by name, how often it was looked at, and the first violations.
//!
//! A check that was never looked at has not held: the verdict counts it as broken, unless it was
//! excused with a reason before the end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// Violations of one check that are kept in words; the rest is counted.
const KEPT: usize = 5;

/// What a soak checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Check {
    /// Every reply is the one that the client's model expects.
    Replies,
    /// Elements pushed for waiting clients arrive once and in order.
    Handover,
    /// Subscribers that read get every message, in order.
    Messages,
    /// Clients killed in the middle of a command leave nothing behind.
    Killed,
    /// Subscribers that do not read are closed; the others do not notice.
    SlowSubscribers,
    /// Half-open and half-closed connections harm nobody and are closed when idle for too long.
    HalfOpen,
    /// Without free descriptors the server serves who is there and recovers.
    Descriptors,
    /// At the memory cap writes are refused, reads go on, and deleting makes room.
    MemoryCap,
    /// The resident set does not rise after the warm-up.
    Resident,
    /// What the clients stored and held is given back when they are gone.
    Released,
    /// The parts of the heap add up to what is mapped; counters agree with each other.
    Identity,
    /// No counter runs backwards.
    Counters,
    /// promtool accepts the exposition.
    Exposition,
    /// No epoch is stalled.
    Epochs,
    /// A signal under load loses no reply that was due.
    Termination,
    /// The server lives until it is told to end, and does not panic.
    Alive,
}

impl Check {
    /// Every check.
    pub const ALL: [Check; 16] = [
        Check::Replies,
        Check::Handover,
        Check::Messages,
        Check::Killed,
        Check::SlowSubscribers,
        Check::HalfOpen,
        Check::Descriptors,
        Check::MemoryCap,
        Check::Resident,
        Check::Released,
        Check::Identity,
        Check::Counters,
        Check::Exposition,
        Check::Epochs,
        Check::Termination,
        Check::Alive,
    ];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Check::Replies => "replies",
            Check::Handover => "handover",
            Check::Messages => "messages",
            Check::Killed => "killed",
            Check::SlowSubscribers => "slow-subscribers",
            Check::HalfOpen => "half-open",
            Check::Descriptors => "descriptors",
            Check::MemoryCap => "memory-cap",
            Check::Resident => "resident",
            Check::Released => "released",
            Check::Identity => "identity",
            Check::Counters => "counters",
            Check::Exposition => "exposition",
            Check::Epochs => "epochs",
            Check::Termination => "termination",
            Check::Alive => "alive",
        }
    }

    /// What it says, for the report.
    pub const fn about(self) -> &'static str {
        match self {
            Check::Replies => "every reply is what the client's model expects",
            Check::Handover => "elements for waiting clients arrive once, in order",
            Check::Messages => "subscribers that read get every message, in order",
            Check::Killed => "clients killed mid-command leave nothing behind",
            Check::SlowSubscribers => "subscribers that do not read are closed, others unharmed",
            Check::HalfOpen => "half-open connections harm nobody and are closed when idle",
            Check::Descriptors => {
                "without descriptors: who is there is served, nobody is lost, recovery"
            }
            Check::MemoryCap => "at the memory cap: -OOM for writes, reads go on, recovery",
            Check::Resident => "resident set flat after the warm-up",
            Check::Released => "memory, descriptors and clients are back at the start's",
            Check::Identity => "parts of the heap = mapped bytes; counters agree",
            Check::Counters => "no counter runs backwards",
            Check::Exposition => "promtool accepts /metrics",
            Check::Epochs => "no stalled epoch",
            Check::Termination => "SIGTERM under load loses no reply that was due",
            Check::Alive => "the server lives to its end and does not panic",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is known of one check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Times that it was looked at and held.
    pub held: u64,
    /// Times that it did not.
    pub broken: u64,
    /// The first violations.
    pub violations: Vec<String>,
    /// Why it could not be looked at.
    pub excuse: Option<String>,
}

/// Collects from every thread of a soak.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<BTreeMap<Check, Entry>>);

impl Ledger {
    /// It held, once more.
    pub fn held(&self, check: Check) {
        self.with(check, |entry| entry.held += 1);
    }

    /// It did not hold.
    pub fn broke(&self, check: Check, what: impl Into<String>) {
        self.with(check, |entry| {
            entry.broken += 1;
            if entry.violations.len() < KEPT {
                entry.violations.push(what.into());
            }
        });
    }

    /// Held if `result` is fine, else broken with its reason.
    pub fn judge(&self, check: Check, result: Result<(), String>) {
        match result {
            Ok(()) => self.held(check),
            Err(what) => self.broke(check, what),
        }
    }

    /// It cannot be looked at in this run.
    pub fn excuse(&self, check: Check, why: impl Into<String>) {
        self.with(check, |entry| entry.excuse = Some(why.into()));
    }

    /// Everything so far, the checks that were never looked at included.
    pub fn entries(&self) -> Vec<(Check, Entry)> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Check::ALL
            .into_iter()
            .map(|check| (check, entries.get(&check).cloned().unwrap_or_default()))
            .collect()
    }

    fn with(&self, check: Check, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(entries.entry(check).or_default());
    }
}

impl Entry {
    /// The verdict: broken, or never looked at without an excuse.
    pub fn failed(&self) -> bool {
        self.broken > 0 || (self.held == 0 && self.excuse.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_nobody_looked_at_has_failed_unless_excused() {
        let ledger = Ledger::default();
        assert!(ledger.entries().iter().all(|(_, entry)| entry.failed()));
        ledger.held(Check::Replies);
        ledger.excuse(Check::Exposition, "promtool is not installed");
        ledger.judge(Check::Epochs, Err(String::from("stalled")));
        ledger.held(Check::Epochs);
        let failed: Vec<&str> = ledger
            .entries()
            .iter()
            .filter(|(_, entry)| entry.failed())
            .map(|(check, _)| check.name())
            .collect();
        assert!(!failed.contains(&"replies") && !failed.contains(&"exposition"));
        assert!(failed.contains(&"epochs") && failed.contains(&"termination"));
    }

    #[test]
    fn violations_are_all_counted_and_some_are_kept() {
        let ledger = Ledger::default();
        for n in 0..100 {
            ledger.broke(Check::Replies, format!("number {n}"));
        }
        let (_, entry) = ledger.entries().swap_remove(0);
        assert_eq!((entry.broken, entry.violations.len()), (100, KEPT));
        assert_eq!(entry.violations[0], "number 0");
    }

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<&str> = Check::ALL.iter().map(|check| check.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Check::ALL.len());
    }
}
