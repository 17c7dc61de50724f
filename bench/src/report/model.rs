//! What was run: contenders, cells and every run's figures. Plain data, filled by the suites.

use serde::Serialize;

use crate::driver::host::Host;

/// Everything measured by one suite.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of the suite.
    pub suite: String,
    /// Machine, commit and date.
    pub host: Host,
    /// Rounds that were run; every cell has at most one run per contender and round.
    pub rounds: usize,
    /// Who ran, in the order of the columns.
    pub contenders: Vec<Contender>,
    /// Allocators that were asked for and could not be measured.
    pub skipped: Vec<SkippedPeer>,
    /// The cells, in the order of the rows.
    pub cells: Vec<Cell>,
    /// Runs that gave no figures, or the wrong ones.
    pub failures: Vec<Failure>,
}

/// One column of a report: an allocator, or the same one again as a control.
#[derive(Clone, Debug, Serialize)]
pub struct Contender {
    /// Heading of its column.
    pub label: String,
    /// Name of the allocator.
    pub peer: String,
    /// The same binary as the contender of this peer before it, run for the A/A spread only.
    pub control: bool,
    /// The allocator's version, as it says itself.
    pub version: String,
    /// How it was shown that it serves.
    pub proof: String,
}

/// An allocator without figures, and why.
#[derive(Clone, Debug, Serialize)]
pub struct SkippedPeer {
    /// Its name.
    pub peer: String,
    /// The reason, possibly of several lines.
    pub reason: String,
}

/// One row of a report.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// Its name.
    pub name: String,
    /// The workload and its parameters, in words.
    pub about: String,
    /// The parameters.
    pub params: Vec<(String, u64)>,
    /// Operations of one run.
    pub operations: u64,
    /// What every run came to, whoever served.
    pub checksum: u64,
    /// The figures of each contender, in the order of [`Report::contenders`].
    pub runs: Vec<Runs>,
}

/// The figures of one contender in one cell, one entry per run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Runs {
    /// Wall time in seconds.
    pub seconds: Vec<f64>,
    /// Processor time in seconds; empty where it was not taken.
    pub cpu_seconds: Vec<f64>,
    /// Largest resident set, bytes.
    pub peak_rss_bytes: Vec<f64>,
    /// Resident set at the end, bytes.
    pub final_rss_bytes: Vec<f64>,
    /// Page faults without input or output.
    pub minor_faults: Vec<f64>,
}

/// A run that failed.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// The cell.
    pub cell: String,
    /// The contender's label.
    pub contender: String,
    /// What happened.
    pub reason: String,
}

impl Report {
    /// Position of the allocator `peer`, controls aside.
    pub fn contender(&self, peer: &str) -> Option<usize> {
        self.contenders.iter().position(|c| c.peer == peer && !c.control)
    }

    /// Pairs of positions: an allocator, and its control.
    pub fn controls(&self) -> Vec<(usize, usize)> {
        self.contenders
            .iter()
            .enumerate()
            .filter(|(_, contender)| contender.control)
            .filter_map(|(control, contender)| Some((self.contender(&contender.peer)?, control)))
            .collect()
    }
}

impl Contender {
    /// The heading of an allocator's control.
    pub fn control_label(peer: &str) -> String {
        format!("{peer} (A/A)")
    }
}
