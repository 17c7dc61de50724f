//! Sharded slab allocator runtime for long-running async servers.
#![forbid(unsafe_code)]

pub mod admin;
mod heap_ref;
pub mod runtime;
pub mod scavenger;

pub use flagstone_epoch as epoch;
pub use flagstone_slab::{Flagstone, Heap, stats, thread};
pub use flagstone_telemetry as telemetry;
