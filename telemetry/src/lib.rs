//! One coherent snapshot of a heap, as Prometheus text and as JSON.
#![forbid(unsafe_code)]

pub mod json;
pub mod prometheus;
mod snapshot;

pub use snapshot::{AdminSnapshot, ProcessSnapshot, ScavengerSnapshot, Snapshot, did_something};
