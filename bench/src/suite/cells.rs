//! The cells of the timed suites: a workload with its parameters and a name for the reports.
//!
//! Sizes are such that the faster allocators need 0.2 to 0.5 s per cell on a current machine: long
//! against the start of a process, short enough for many interleaved rounds.

use crate::workload::{self, Params, Workload};

/// One line of a report.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// Name in reports and for `--cells`.
    pub name: &'static str,
    /// The workload's name.
    pub workload: &'static str,
    /// Parameters that differ from the workload's defaults.
    pub set: &'static [(&'static str, u64)],
}

impl Cell {
    /// The workload.
    ///
    /// # Panics
    /// Panics for a name that no workload has, which a test of the tables excludes.
    pub fn workload(&self) -> &'static Workload {
        workload::find(self.workload).expect("the tables name known workloads")
    }

    /// All parameters, with the work divided by `share` (at least one unit of it is left).
    ///
    /// # Panics
    /// As [`workload`](Self::workload), for a parameter.
    pub fn params(&self, share: u64) -> Params {
        let workload = self.workload();
        let mut params = Params::with(workload, self.set.iter().copied())
            .expect("the tables name known parameters");
        let work = params.get(workload.work);
        params.set(workload.work, (work / share).max(1)).expect("a workload declares its work");
        params
    }
}

const fn cell(
    name: &'static str,
    workload: &'static str,
    set: &'static [(&'static str, u64)],
) -> Cell {
    Cell { name, workload, set }
}

/// The cells of `smoke`, `core` and `stats-cost`.
pub const TIMED: &[Cell] = &[
    cell("pair-16", "pairs", &[("size", 16), ("window", 1), ("pairs", 30_000_000)]),
    cell("pair-64", "pairs", &[("size", 64)]),
    cell("pair-512", "pairs", &[("size", 512)]),
    cell("pair-4k", "pairs", &[("size", 4 << 10), ("window", 59), ("pairs", 12_000_000)]),
    cell("pair-32k", "pairs", &[("size", 32 << 10), ("window", 17), ("pairs", 12_000_000)]),
    cell("mstress", "random-lifetimes", &[]),
    cell("mstress-large", "random-lifetimes", &[("slots", 200_000), ("rounds", 10)]),
    cell("larson", "larson", &[]),
    cell("larson-8", "larson", &[("threads", 8), ("generations", 20)]),
    cell("xmalloc", "xmalloc", &[]),
    cell("xmalloc-2", "xmalloc", &[("pairs", 2)]),
    cell("sh6", "small-batches", &[]),
    cell("sh8", "small-batches", &[("exchange", 1), ("batches", 1_200)]),
    cell("cache-scratch", "cache-scratch", &[]),
    cell("cache-thrash", "cache-thrash", &[]),
    cell("rptest", "rptest", &[]),
    cell("cfrac", "cfrac", &[]),
    cell("espresso", "espresso", &[]),
    cell("binary-trees", "binary-trees", &[]),
    cell("malloc-large", "large-blocks", &[]),
    cell("vec-growth", "vec-growth", &[]),
    cell("mleak", "mleak", &[]),
    cell("json", "json", &[]),
    cell("json-handed", "json", &[("hand_over", 1), ("documents", 500)]),
    cell("hash-map", "hash-map", &[]),
    cell("mpsc-small", "tokio-mpsc", &[]),
    cell("mpsc-64k", "tokio-mpsc", &[("min", 4 << 10), ("max", 64 << 10), ("messages", 120_000)]),
    cell(
        "mpsc-256k",
        "tokio-mpsc",
        &[("min", 128 << 10), ("max", 256 << 10), ("messages", 20_000)],
    ),
];

/// The cells of `return`: memory after a peak.
pub const RETURN: &[Cell] = &[
    cell("return-64", "memory-return", &[]),
    cell("return-64-scattered", "memory-return", &[("scattered", 1)]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_a_name_of_its_own_and_known_parameters() {
        let cells: Vec<&Cell> = TIMED.iter().chain(RETURN).collect();
        for (index, cell) in cells.iter().enumerate() {
            assert!(cells[index + 1..].iter().all(|other| other.name != cell.name));
            let workload = cell.workload();
            let full = cell.params(1).get(workload.work);
            let eighth = cell.params(8).get(workload.work);
            assert!((1..=full).contains(&eighth), "{}", cell.name);
            assert!(cell.params(u64::MAX).get(workload.work) == 1);
        }
    }

    #[test]
    fn every_workload_with_a_time_is_in_a_cell() {
        for workload in workload::ALL {
            // Counted by `--suite pair`.
            let timed = workload.name != "pair-count";
            let used = TIMED.iter().chain(RETURN).any(|cell| cell.workload == workload.name);
            assert_eq!(used, timed, "{}", workload.name);
        }
    }
}
