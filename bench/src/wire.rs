//! The one line of JSON that a worker prints and the driver reads.

use serde::{Deserialize, Serialize};

/// Which allocator served a worker, and how that was shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// The peer's name, as in [`PEERS`](crate::peer::PEERS).
    pub peer: String,
    /// What the allocator says its version is.
    pub version: String,
    /// What was checked, in a few words.
    pub proof: String,
}

/// The result of one run of one workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// The allocator, proven before the run.
    pub served: Served,
    /// The workload's name.
    pub workload: String,
    /// Wall time of the measured part, seconds.
    pub seconds: f64,
    /// Processor time of the measured part, all threads, seconds.
    pub cpu_seconds: f64,
    /// What the workload counts as its operations.
    pub operations: u64,
    /// Depends on the work done alone: every allocator must come to the same.
    pub checksum: u64,
    /// Largest resident set of the process, bytes.
    pub peak_rss_bytes: u64,
    /// Resident set when the workload had freed what it holds, bytes.
    pub final_rss_bytes: u64,
    /// Page faults of the measured part.
    pub minor_faults: u64,
}
