//! The workloads: what a program under test does with its allocator.
//!
//! Written anew after the suites of the field (mimalloc-bench, the Hoard benchmarks, larson,
//! xmalloc-test, rptest, the benchmarks game), one file each, whose head says what it is after and
//! what it shows. Rules that all of them keep:
//! - the work is fixed by count and seeded, never by time: every allocator does the same, and comes
//!   to the same checksum whatever the interleaving of its threads;
//! - preparation lies outside the measured [`Section`](crate::measure::Section), thread creation
//!   and the freeing of what was allocated inside;
//! - blocks are written to, and what was written is checked: corruption panics.

use std::fmt;

use crate::measure::Measured;

pub mod binary_trees;
pub mod cache_scratch;
pub mod cache_thrash;
pub mod cfrac;
pub mod espresso;
pub mod hash_map;
pub mod json;
pub mod large_blocks;
pub mod larson;
pub mod memory_return;
pub mod mleak;
pub mod pair_count;
pub mod pairs;
pub mod random_lifetimes;
pub mod rptest;
pub mod small_batches;
pub mod tokio_mpsc;
pub mod vec_growth;
pub mod xmalloc;

/// Every workload, in the order of the reports.
pub const ALL: &[Workload] = &[
    pairs::WORKLOAD,
    pair_count::WORKLOAD,
    random_lifetimes::WORKLOAD,
    larson::WORKLOAD,
    xmalloc::WORKLOAD,
    small_batches::WORKLOAD,
    cache_scratch::WORKLOAD,
    cache_thrash::WORKLOAD,
    rptest::WORKLOAD,
    cfrac::WORKLOAD,
    espresso::WORKLOAD,
    binary_trees::WORKLOAD,
    large_blocks::WORKLOAD,
    vec_growth::WORKLOAD,
    mleak::WORKLOAD,
    json::WORKLOAD,
    hash_map::WORKLOAD,
    tokio_mpsc::WORKLOAD,
    memory_return::WORKLOAD,
];

/// A workload: its name, its parameters with their defaults, and how to run it.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Name on the command line and in reports.
    pub name: &'static str,
    /// One line for `worker --list`.
    pub about: &'static str,
    /// Its parameters.
    pub params: &'static [Param],
    /// The parameter that the work grows with in proportion, and the live memory does not.
    pub work: &'static str,
    /// Parameters that make it end within milliseconds, for tests.
    pub tiny: &'static [(&'static str, u64)],
    /// Runs it.
    pub run: fn(&Params) -> Outcome,
}

/// One parameter of a workload.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Name, as in `--set name=value`.
    pub name: &'static str,
    /// Value when not set.
    pub default: u64,
    /// What it is, with its unit.
    pub about: &'static str,
}

/// Shorthand for the tables of the workloads.
pub(crate) const fn param(name: &'static str, default: u64, about: &'static str) -> Param {
    Param { name, default, about }
}

/// What a run gave.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[must_use]
pub struct Outcome {
    /// Time and faults of the measured part.
    pub measured: Measured,
    /// Operations done, as the workload counts them.
    pub operations: u64,
    /// Depends on the work alone.
    pub checksum: u64,
    /// Resident bytes at the moment that the workload is about; the end of the run if `None`.
    pub settled_rss: Option<u64>,
}

/// The values of a workload's parameters.
#[derive(Clone, Debug)]
pub struct Params {
    of: &'static str,
    values: Vec<(&'static str, u64)>,
}

impl Params {
    /// The defaults of `workload`.
    pub fn defaults(workload: &Workload) -> Params {
        Params {
            of: workload.name,
            values: workload.params.iter().map(|p| (p.name, p.default)).collect(),
        }
    }

    /// The defaults of `workload` with some values in their place.
    pub fn with<'a>(
        workload: &Workload,
        set: impl IntoIterator<Item = (&'a str, u64)>,
    ) -> Result<Params, UnknownParam> {
        let mut params = Params::defaults(workload);
        for (name, value) in set {
            params.set(name, value)?;
        }
        Ok(params)
    }

    /// Sets one value.
    pub fn set(&mut self, name: &str, value: u64) -> Result<(), UnknownParam> {
        match self.values.iter_mut().find(|(known, _)| *known == name) {
            Some((_, slot)) => {
                *slot = value;
                Ok(())
            }
            None => Err(UnknownParam { workload: self.of, param: name.to_owned() }),
        }
    }

    /// The value of a parameter that the workload declares.
    ///
    /// # Panics
    /// Panics for a name that it does not declare: a slip in the workload, which its test finds.
    pub fn get(&self, name: &str) -> u64 {
        let found = self.values.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("{} declares no parameter `{name}`", self.of)).1
    }

    /// [`get`](Self::get) as a size or a count.
    pub fn count(&self, name: &str) -> usize {
        self.get(name) as usize
    }

    /// Every name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.values.iter().copied()
    }
}

/// A parameter that the workload does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownParam {
    /// The workload's name.
    pub workload: &'static str,
    /// The parameter's name as given.
    pub param: String,
}

impl fmt::Display for UnknownParam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "workload `{}` has no parameter `{}`", self.workload, self.param)
    }
}

impl std::error::Error for UnknownParam {}

/// The workload of that name.
pub fn find(name: &str) -> Option<&'static Workload> {
    ALL.iter().find(|workload| workload.name == name)
}

/// Joins a worker thread, passing its panic on.
pub(crate) fn join<T>(handle: std::thread::JoinHandle<T>) -> T {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests;
