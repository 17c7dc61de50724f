//! One coherent snapshot of a heap, as Prometheus text and as JSON.
//!
//! [`Snapshot::take`] reads the heap and its process once. Everything that shows figures works from
//! such a snapshot, so two views of one moment never disagree (requirement D10):
//!
//! - [`prometheus::Exporter`] renders it as Prometheus text, together with whatever the program
//!   itself emits through the [`metrics`] facade;
//! - [`publish()`] sets it in a recorder that the program has installed by itself;
//! - [`json::to_value`] gives every figure as JSON.
//!
//! ```
//! use flagstone_slab::Heap;
//! use flagstone_telemetry::{Options, Snapshot, json, prometheus::Exporter};
//!
//! let exporter = Exporter::local();
//! let snapshot = Snapshot::take(Heap::global());
//! let text = exporter.render(&snapshot, Options::default());
//! assert!(text.contains("# TYPE flagstone_mapped_bytes gauge"));
//! assert!(json::to_value(&snapshot)["heap"]["bytes"]["mapped"].is_u64());
//! ```
//!
//! No allocation of the program pays for this: the heap's counters are plain memory of their
//! writers, and only taking a snapshot reads them. Every exported name is defined in
//! `docs/stats.md`, with its unit and the identities it obeys; [`series()`] lists the same at run
//! time.
#![forbid(unsafe_code)]

pub mod json;
pub mod prometheus;
mod publish;
mod series;
mod snapshot;

pub use publish::{Options, describe, publish, publish_with};
pub use series::{Kind, Series, Unit, all as series};
pub use snapshot::{AdminSnapshot, ProcessSnapshot, ScavengerSnapshot, Snapshot, did_something};

use std::time::{Duration, SystemTime};

/// Whole nanoseconds; u64 holds 584 years of them.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Whole nanoseconds since the Unix epoch; 0 for a clock set before it.
fn unix_nanos(time: SystemTime) -> u64 {
    nanos(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
