//! The suites: which cells, under which allocators, how often; from the command line's wishes to a
//! written report and its last line.
//!
//! | suite | what |
//! |---|---|
//! | `smoke` | every timed cell at an eighth of its work, one round: does it all run |
//! | `core` | every timed cell, interleaved rounds with A/A controls: the comparison |
//! | `stats-cost` | the same cells, Flagstone with its counters against Flagstone without |
//! | `return` | memory that comes back after a peak over 64 threads |
//! | `pair` | instructions per allocate/free pair, by callgrind |
//! | `slab` | the typed slab beside sharded-slab, its domain beside other ways to reclaim |
//! | `server` | the reference server under redis-benchmark, one build per allocator |
//! | `soak` | the reference server under churn and faults, with checks |

use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::driver::build::Builder;
use crate::report::model::SkippedPeer;
use crate::soak::plan::Injected;

pub mod cells;
pub mod pair;
pub mod server;
pub mod slab;
pub mod soak;
pub mod timed;

/// What the command line asked for.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Only these allocators; the suite's own choice if empty.
    pub peers: Vec<String>,
    /// Only cells whose name contains one of these; all if empty.
    pub cells: Vec<String>,
    /// Rounds; the suite's own number if not given.
    pub rounds: Option<usize>,
    /// Folder for the reports, under which each suite has one of its name; in the target folder if
    /// not given.
    pub out: Option<PathBuf>,
    /// Time after which no further round is begun, from the start of the program.
    pub budget: Duration,
    /// When the program started.
    pub started: Instant,
    /// What concerns `soak` alone.
    pub soak: SoakWishes,
}

/// What the command line asked of a soak.
#[derive(Clone, Debug, Default)]
pub struct SoakWishes {
    /// Servers that are built already, one for each allocator, instead of those that the driver builds.
    pub servers: Vec<PathBuf>,
    /// A tenth of the load.
    pub light: bool,
    /// All servers at once instead of one after the other.
    pub abreast: bool,
    /// Errors to make on purpose.
    pub inject: Vec<Injected>,
}

/// A suite by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Suite {
    /// See the table above.
    Smoke,
    /// See the table above.
    Core,
    /// See the table above.
    StatsCost,
    /// See the table above.
    Return,
    /// See the table above.
    Pair,
    /// See the table above.
    Server,
    /// See the table above.
    Slab,
    /// See the table above.
    Soak,
}

/// How a suite ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Ended {
    /// The last line.
    pub last_line: String,
    /// Runs that failed.
    pub failures: usize,
}

/// A suite that could not be run at all.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CannotRun(pub String);

impl std::fmt::Display for CannotRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CannotRun {}

impl Suite {
    /// Every suite.
    pub const ALL: [Suite; 8] = [
        Suite::Smoke,
        Suite::Core,
        Suite::StatsCost,
        Suite::Return,
        Suite::Pair,
        Suite::Slab,
        Suite::Server,
        Suite::Soak,
    ];

    /// Its name on the command line, and of its folder.
    pub const fn name(self) -> &'static str {
        match self {
            Suite::Smoke => "smoke",
            Suite::Core => "core",
            Suite::StatsCost => "stats-cost",
            Suite::Return => "return",
            Suite::Pair => "pair",
            Suite::Server => "server",
            Suite::Slab => "slab",
            Suite::Soak => "soak",
        }
    }

    /// Builds what it needs, runs it, and writes its report. Prints what it does.
    pub fn run(self, wishes: &Wishes) -> Result<Ended, CannotRun> {
        let builder = Builder::new();
        match self {
            Suite::Pair => pair::run(&builder, wishes),
            Suite::Server => server::run(&builder, wishes),
            Suite::Slab => slab::run(&builder, wishes),
            Suite::Soak => soak::run(&builder, wishes),
            Suite::Smoke | Suite::Core | Suite::StatsCost | Suite::Return => {
                timed::run(self, &builder, wishes)
            }
        }
    }
}

impl Wishes {
    /// The folder of a suite's report.
    fn folder(&self, suite: Suite, builder: &Builder) -> PathBuf {
        let base = self.out.clone().unwrap_or_else(|| builder.target().join("bench-report"));
        base.join(suite.name())
    }

    /// Whether a cell of this name is asked for.
    fn wants(&self, cell: &str) -> bool {
        self.cells.is_empty() || self.cells.iter().any(|part| cell.contains(part.as_str()))
    }
}

/// Prints that an allocator is left out, and keeps it for the report.
fn skip(skipped: &mut Vec<SkippedPeer>, peer: &str, reason: String) {
    println!("skipped {peer}: {reason}");
    skipped.push(SkippedPeer { peer: peer.to_owned(), reason });
}

fn progress_bar(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed}+{eta} {msg:32}")
        .expect("the template is well-formed");
    ProgressBar::new(steps as u64).with_style(style)
}
