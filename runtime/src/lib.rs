//! Sharded slab allocator runtime for long-running async servers.
//!
//! A server adds this crate. Its workers then allocate from shards of their own, free across
//! workers without locks, hold no memory while they sleep, and show where every byte is at
//! `/metrics`:
//!
//! ```
//! use flagstone::{admin, runtime::Builder};
//!
//! #[global_allocator]
//! static GLOBAL: flagstone::Flagstone = flagstone::Flagstone::new();
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let admin = admin::Config::new(([127, 0, 0, 1], 0)); // any free port
//!     let runtime = Builder::new_multi_thread().admin(admin).build()?;
//!     println!("http://{}/metrics", runtime.admin_addr().expect("configured"));
//!     let answer = runtime.block_on(async { 6 * 7 });
//!     assert_eq!(answer, 42);
//!     Ok(())
//! }
//! ```
//!
//! # Parts
//!
//! Each part works without the others:
//!
//! | part | what it does | alone |
//! |---|---|---|
//! | [`Flagstone`], [`Heap`], [`thread`], [`stats`] | the allocator and its figures (`flagstone-slab`) | `#[global_allocator]` |
//! | [`runtime`] | a Tokio runtime with all of this in it | [`runtime::hooks`] on a Tokio builder of one's own |
//! | [`scavenger`] | returns memory while threads sleep | [`scavenger::spawn`] |
//! | [`admin`] | serves `/metrics`, `/stats.json`, `/healthz` | [`admin::bind`] on any Tokio runtime |
//! | [`telemetry`] | snapshots as Prometheus text and JSON (`flagstone-telemetry`) | [`telemetry::publish`] into a `metrics` recorder of one's own |
//! | [`verify()`] | proof that this process allocates from Flagstone | anywhere |
//! | [`epoch`] | memory reclamation for concurrent readers (`flagstone-epoch`) | |
//! | [`typed`] | values by key, read without locks; the runtime looks after slabs that are [attached](typed::Slab::attach) | |
//!
//! With a Tokio runtime of one's own:
//!
//! ```no_run
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut tokio = tokio::runtime::Builder::new_multi_thread();
//!     flagstone::runtime::hooks::install(&mut tokio);
//!     let _scavenger = flagstone::scavenger::spawn()?;
//!     tokio.enable_all().build()?.block_on(async {
//!         let admin = flagstone::admin::bind(flagstone::admin::Config::default()).await?;
//!         tokio::spawn(admin.serve(std::future::pending()));
//!         // the server
//! #       Ok::<(), flagstone::admin::BindError>(())
//!     })?;
//!     Ok(())
//! }
//! ```
//!
//! # Limits
//!
//! - Tokio has hooks for the threads that it starts. The thread that calls `block_on` of a
//!   multi-thread runtime leases a shard with its first allocation and gives it back when it exits;
//!   so do threads of other libraries.
//! - Threads of Tokio's blocking pool do not tell when they wait; [`runtime::spawn_blocking`] does
//!   it for them.
//! - The drivers of Tokio may allocate after a worker's park hook. Such an allocation takes the
//!   shard back, correctly, and the worker then holds it until it parks again.
#![forbid(unsafe_code)]

pub mod admin;
mod heap_ref;
pub mod runtime;
pub mod scavenger;
pub mod verify;

pub use flagstone_epoch as epoch;
pub use flagstone_slab::{
    BuildError, BuildFailure, ClassTable, ClassTableError, Flagstone, Heap, HeapBuilder, OwnedHeap,
    SharedHeap, mode, port, stats, thread, typed,
};
pub use flagstone_telemetry as telemetry;
pub use verify::verify;

/// The README's example, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
