//! The one place where this crate gets its atomics, cells and locks.
//!
//! Owns the switch between `std` and loom: under `--cfg flagstone_loom` the same protocols run on
//! loom's types and are model-checked from `loom_tests/`. Loom's atomics cannot be built in a
//! `const`, so what lives in statics (the global heap, the thread-local pointer) is compiled out
//! there; the protocols themselves (inbox, lease, counted lock) are compiled in both.
//!
//! Telemetry counters do not come from here but from [`counter`](crate::counter), on purpose: they
//! guard nothing, and in a model they would only multiply the interleavings.

#![allow(clippy::disallowed_types, reason = "this is the facade that the ban points at")]

#[cfg(not(flagstone_loom))]
mod imp {
    use std::sync::atomic;

    pub(crate) use std::sync::{Mutex, MutexGuard, TryLockError};

    // Aliases and not re-exports: the lint looks through a re-export, but not through these.
    pub(crate) type AtomicPtr<T> = atomic::AtomicPtr<T>;
    pub(crate) type AtomicU8 = atomic::AtomicU8;
    pub(crate) type AtomicU32 = atomic::AtomicU32;
    pub(crate) type AtomicUsize = atomic::AtomicUsize;
    pub(crate) use atomic::{Ordering, fence};
}

#[cfg(flagstone_loom)]
mod imp {
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence};
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    pub(crate) use std::sync::TryLockError;
}

pub(crate) use imp::*;
