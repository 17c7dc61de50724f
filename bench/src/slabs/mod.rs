//! The typed slab beside sharded-slab, and its domain beside other ways to free what others may read.
//!
//! Everything runs in one process, the binary `slabs`; sides take turns, and ours stands there twice,
//! so that each cell has its own A/A control. What is measured:
//!
//! | cell | one operation |
//! |---|---|
//! | `get` | a lookup of a random key of 4,096, 64 of them under each guard: a request's |
//! | `get own guard` | the same, with a guard of its own |
//! | `insert+remove` | a random value of 4,096 out and another in on the same thread, 64 pairs under each guard |
//! | `insert+remove own guard` | the same, each pair under a guard of its own |
//! | `insert+remove at once` | one value alone, in and out again, 64 pairs under each guard |
//! | `remote remove` | a value in on one thread and out on another, which got the key over a channel |
//! | `guard` | enter and leave, outermost |
//! | `retire or defer` | an object retired, freed by counting it, 64 under each guard; crossbeam-epoch's `defer` |
//! | `retire` | an 8-byte box made, retired and freed, 64 under each guard |
//!
//! sharded-slab needs no guard; where ours has one for 64 operations, theirs has none at all. The
//! modules that link a peer need the feature `peer-slabs`; the types are the driver's as well.

use serde::{Deserialize, Serialize};

#[cfg(feature = "peer-slabs")]
pub mod guards;
#[cfg(feature = "peer-slabs")]
pub mod memory;
#[cfg(feature = "peer-slabs")]
pub mod operations;
#[cfg(feature = "peer-slabs")]
pub mod turns;

/// Our side of a cell.
pub const FLAGSTONE: &str = "flagstone";
/// Our side once more, for the noise of the run.
pub const CONTROL: &str = "flagstone (again)";
/// The peer that the promises are made against.
pub const SHARDED_SLAB: &str = "sharded-slab";

/// What our domain stands on.
pub const CROSSBEAM: &str = "crossbeam-epoch";

/// Everything that the binary `slabs` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Timed cells.
    pub cells: Vec<Cell>,
    /// Memory by kind of value.
    pub memory: Vec<Memory>,
    /// Objects that wait.
    pub backlogs: Vec<Backlog>,
}

/// Objects retired and not reclaimed, at most, in a long run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Backlog {
    /// Retired under each guard.
    pub per_guard: usize,
    /// In our domain.
    pub ours: u64,
    /// In a collector of crossbeam-epoch.
    pub crossbeam: u64,
}

/// A timed cell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// What one operation is, see the table above.
    pub name: String,
    /// Threads that do it at once.
    pub threads: usize,
    /// The sides, ours first.
    pub sides: Vec<Times>,
}

/// One side of a cell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Times {
    /// Who.
    pub side: String,
    /// Nanoseconds for one operation of one thread, by round.
    pub nanos: Vec<f64>,
}

/// Bytes that a slab takes from the allocator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// Type of the values.
    pub value: String,
    /// Who.
    pub side: String,
    /// Values at the peak.
    pub values: usize,
    /// Bytes for each value at the peak.
    pub bytes_per_value: f64,
    /// Bytes left when all values are removed and whatever returns memory has run.
    pub bytes_after: usize,
}

impl Cell {
    /// The times of a side.
    pub fn side(&self, name: &str) -> Option<&[f64]> {
        let times = self.sides.iter().find(|times| times.side == name)?;
        Some(&times.nanos)
    }
}
