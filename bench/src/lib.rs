//! Flagstone measured beside its peers: workloads, the worker that runs one of them under one
//! allocator, and the driver that builds the workers, runs them in turn and reports.
//!
//! Each allocator gets a binary of its own: the `worker`, built with at most one `peer-*` feature,
//! which chooses the process's global allocator. The driver (`flagstone-bench`, feature `driver`)
//! links no peer at all, so a plain `cargo test --workspace` compiles none of them.
//!
//! Layers, each using only those above it:
//! 1. [`rng`], [`block`], [`measure`], [`stats`]: tools.
//! 2. [`wire`]: what a worker says; [`peer`]: the allocators, and the proof that a given one serves.
//! 3. [`workload`]: what is run. Deterministic, fixed by count, checked by content.
//!    [`epochs`]: guards and retiring beside crossbeam-epoch, both in one process; [`slabs`]: typed
//!    slabs and domains beside their own peers, in one process as well.
//! 4. [`driver`]: building and running workers; [`report`]: JSON, Markdown, charts, the last line.
//! 5. [`soak`]: the reference server under churn and faults, with checks that can fail.
//! 6. [`suite`]: which cells are run, by whom and how often.

pub mod block;
#[cfg(feature = "driver")]
pub mod driver;
pub mod epochs;
pub mod measure;
pub mod peer;
#[cfg(feature = "driver")]
pub mod report;
pub mod rng;
pub mod slabs;
#[cfg(feature = "driver")]
pub mod soak;
pub mod stats;
#[cfg(feature = "driver")]
pub mod suite;
pub mod wire;
pub mod workload;
