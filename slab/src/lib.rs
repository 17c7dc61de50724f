//! Sharded slab allocator for long-running async servers.
//!
//! Owns size classes, segments, slabs, shards, buckets, the fallback tier and their statistics. Each
//! thread allocates from a *shard* of its own without locks or atomic read-modify-writes; a block
//! freed on another thread travels back to its shard in a batch; every byte is accounted for.
//!
//! ```text
//! GlobalAlloc ─ heap ─┬─ shard (fast path, lists, inbox, outbox, lease)
//!                     ├─ bucket (lock-protected tier, counted lock)
//!                     ├─ pool (segments, decay)            port (Backing)
//!                     └─ fallback (large space)
//! layout (classes, segment, slab, links)   os (pages, clocks)   sync, counter
//! ```
//!
//! The way of a block, the protocols and the promises are in `docs/ARCHITECTURE.md`; who may touch
//! what, and when, in `docs/invariants/heap.md`.
//!
//! # Without `std`
//!
//! With `default-features = false` the crate is `no_std`, needs no operating system and starts no thread.
//! It then has the [`embedded`] heap over a buffer of the caller's ([`port::FixedRegion`]) and the
//! ports; what is above, with threads, is behind the default feature `std`.
//!
//! Under `--cfg flagstone_loom` all of it runs on loom's types, with small constants, for the models
//! in `loom_tests/`; see `sync`. Under `--cfg flagstone_asan`, which goes with
//! `-Zsanitizer=address`, free memory is poisoned.
#![cfg_attr(flagstone_asan, feature(sanitize))]
#![cfg_attr(
    flagstone_loom,
    allow(clippy::new_without_default, reason = "inner types are public for the models alone"),
    allow(clippy::absurd_extreme_comparisons, reason = "limits are as small as models need them")
)]
#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(
    not(feature = "std"),
    allow(rustdoc::broken_intra_doc_links, reason = "what they lead to is behind the feature")
)]

#[cfg(any(feature = "allocator-api2-02", feature = "allocator-api2-04"))]
mod allocator_api2;
#[cfg(feature = "std")]
mod bucket;
#[cfg(feature = "std")]
mod counter;
#[cfg(not(flagstone_loom))]
pub mod embedded;
#[cfg(feature = "std")]
mod gate;
#[cfg(feature = "std")]
mod heap;
#[cfg(feature = "std")]
mod large;
mod layout;
#[cfg(feature = "std")]
mod lock;
mod os;
pub mod port;
#[cfg(feature = "std")]
mod shard;
mod shown;
#[cfg(feature = "std")]
pub mod stats;
mod sync;
#[cfg(feature = "std")]
pub mod thread;
#[cfg(feature = "std")]
pub mod typed;
#[cfg(feature = "std")]
mod walk;

#[cfg(feature = "std")]
pub use heap::{
    BuildError, BuildFailure, Flagstone, GuardReport, Heap, HeapBuilder, HugePages, OwnedHeap,
    SharedHeap, UnknownHugePages, mode, untyped,
};
#[cfg(feature = "std")]
pub use layout::{ClassTable, ClassTableError};

/// The protocols that `loom_tests/` checks. Not part of the interface.
#[cfg(flagstone_loom)]
#[doc(hidden)]
#[allow(missing_docs, reason = "seen by models only")]
pub mod model {
    pub use crate::gate::Gate;
    pub use crate::heap::modelled::{Capped, HighWater, LargeBlocks, SegmentCache, TakenSlab};
    pub use crate::lock::StatedLock;
    pub use crate::shard::inbox::{Inbox, Post};
    pub use crate::shard::lease::{Lease, LeaseWord, Take, Unpark};
    pub use crate::sync::watched::{gone, look, write};

    /// A thread of a model ends.
    pub fn end_thread() {
        crate::thread::give_back();
        crate::heap::local::end_thread();
    }
    pub use crate::typed::protocol::{Directory, PagePointer, Removal, SlotWord};
    pub use crate::walk::{WalkLinks, WalkList, Walked};
}
