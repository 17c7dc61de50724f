//! Words that belong to whoever has the structure around them, and that statistics readers glance at.
//!
//! Owns no state. To its owner such a word is a plain cell: models watch its accesses like a cell's.
//! Anyone else may see a value a few operations old, never a torn one, and must not follow it anywhere.

#![allow(
    clippy::disallowed_types,
    reason = "telemetry's part of these words stays outside the facade"
)]
#![cfg_attr(not(feature = "std"), allow(dead_code, reason = "shards need more of it"))]

use core::ptr;
#[cfg(target_has_atomic = "64")]
use core::sync::atomic::AtomicU64;
use core::sync::atomic::{AtomicU8, AtomicU16, Ordering};

#[cfg(not(target_has_atomic = "64"))]
use whole::AtomicU64;

use crate::sync::{read, written};

/// A word of 64 bits.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Shown(AtomicU64);

impl Shown {
    pub(crate) const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// The owner only.
    #[inline(always)]
    pub(crate) fn get(&self) -> u64 {
        read(ptr::from_ref(self).cast());
        self.0.load(Ordering::Relaxed)
    }

    /// The owner only.
    #[inline(always)]
    pub(crate) fn set(&self, value: u64) {
        written(ptr::from_ref(self).cast());
        self.0.store(value, Ordering::Relaxed);
    }

    /// Any thread. What was seen may be a few operations old, and leads nowhere.
    ///
    /// Acquire pairs with the release fence before a slow path's [`set`](Self::set): a reader that
    /// sees what was set sees the counters from before the fence; one that does not may see either.
    pub(crate) fn glance(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// The same with 16 bits.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct ShownHalf(AtomicU16);

impl ShownHalf {
    pub(crate) const fn new(value: u16) -> Self {
        Self(AtomicU16::new(value))
    }

    /// The owner only.
    pub(crate) fn get(&self) -> u16 {
        read(ptr::from_ref(self).cast());
        self.0.load(Ordering::Relaxed)
    }

    /// The owner only.
    pub(crate) fn set(&self, value: u16) {
        written(ptr::from_ref(self).cast());
        self.0.store(value, Ordering::Relaxed);
    }

    /// The owner only.
    pub(crate) fn replace(&self, value: u16) -> u16 {
        let before = self.get();
        self.set(value);
        before
    }

    /// Any thread, as above.
    pub(crate) fn glance(&self) -> u16 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A byte that its one writer changes and statistics readers look at.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Byte(AtomicU8);

impl Byte {
    #[inline(always)]
    pub(crate) fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    /// The writer only.
    pub(crate) fn set(&self, value: u8) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Any thread. Acquire pairs with [`publish`](Self::publish): who sees the value sees what was set before
    /// it, or something newer; who does not may see either.
    pub(crate) fn glance(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }

    /// The writer only: shows what it set before.
    pub(crate) fn publish(&self, value: u8) {
        self.0.store(value, Ordering::Release);
    }
}

/// Where the machine has no atomics of 64 bits there are no shards and nobody glances: a lock has the
/// words to itself.
#[cfg(not(target_has_atomic = "64"))]
mod whole {
    use core::cell::Cell;
    use core::sync::atomic::Ordering;

    #[derive(Debug, Default)]
    #[repr(transparent)]
    pub(super) struct AtomicU64(Cell<u64>);

    impl AtomicU64 {
        pub(super) const fn new(value: u64) -> Self {
            Self(Cell::new(value))
        }

        pub(super) fn load(&self, _: Ordering) -> u64 {
            self.0.get()
        }

        pub(super) fn store(&self, value: u64, _: Ordering) {
            self.0.set(value);
        }
    }
}
