//! Telemetry counters: written by one thread at a time, read by anyone, guarding nothing.
//!
//! Owns the single-writer counter types. The writer is whoever has exclusive use of the structure
//! around the counter (a shard's lease, a held lock), so an increment is a plain load, add and
//! store, never an atomic read-modify-write. Readers may see a value a few operations old; they
//! never see a torn one. These use `std` atomics outside the `sync` facade on purpose (see there), all
//! but the one kind that promises something of others.

#![allow(clippy::disallowed_types, reason = "telemetry counters stay outside the facade")]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sync::{self as facade, const_off_loom};

/// A 64-bit single-writer counter.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Any thread. Relaxed: the value stands for itself and orders nothing.
    #[inline(always)]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The writer only.
    #[inline(always)]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The writer only. Wraps, after some centuries.
    #[inline(always)]
    pub(crate) fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }

    /// The writer only. As [`add`](Self::add), for what only telemetry asks about: with
    /// `flagstone_no_counters` it is nothing, which is how a benchmark finds out what it costs.
    #[inline(always)]
    pub(crate) fn count(&self, n: u64) {
        if !cfg!(flagstone_no_counters) {
            self.add(n);
        }
    }

    /// As [`OrderedCounter::add_after`], for a promise that is not modelled by itself.
    pub(crate) fn add_after(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Release);
    }

    /// [`add_after`](Self::add_after) for what only telemetry asks about.
    #[inline(always)]
    pub(crate) fn count_after(&self, n: u64) {
        if !cfg!(flagstone_no_counters) {
            self.add_after(n);
        }
    }

    /// As [`OrderedCounter::get_before`]. Where the writer is the fast path, which makes no release
    /// store, it only keeps the reads in their order: see [`came_and_went`].
    pub(crate) fn get_before(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// The writer only. For gauges that this type also carries.
    pub(crate) fn sub(&self, n: u64) {
        self.set(self.get().wrapping_sub(n));
    }
}

/// A 64-bit single-writer counter that promises readers an order: what it says is never ahead of a
/// counter of this kind that was written before it. Its words come from the `sync` facade, because the
/// promise is modelled; it costs what a [`Counter`] does, off x86 a release store more.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct OrderedCounter(facade::AtomicU64);

impl OrderedCounter {
    const_off_loom! {
        pub(crate) fn new() -> Self {
            Self(facade::AtomicU64::new(0))
        }
    }

    /// Any thread.
    #[inline(always)]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The writer only.
    #[inline(always)]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    /// The writer only. Like [`add`](Self::add), for a counter that is never ahead of one written
    /// before it.
    ///
    /// Release pairs with [`get_before`](Self::get_before): a reader that sees this increment also
    /// sees the earlier counter's; a reader that does not may see either.
    pub(crate) fn add_after(&self, n: u64) {
        self.set_after(self.get().wrapping_add(n));
    }

    /// The writer only. Keeps the larger of the value and `seen`; ordered as [`add_after`] is.
    ///
    /// [`add_after`]: Self::add_after
    pub(crate) fn raise_after(&self, seen: u64) {
        if seen > self.get() {
            self.set_after(seen);
        }
    }

    fn set_after(&self, value: u64) {
        let order = if facade::weakened("counter_written_relaxed") {
            Ordering::Relaxed
        } else {
            Ordering::Release
        };
        self.0.store(value, order);
    }

    /// Reads a counter that must not appear ahead of one that is read after it.
    /// Acquire pairs with [`add_after`](Self::add_after), and keeps reads in their order.
    pub(crate) fn get_before(&self) -> u64 {
        let order = if facade::weakened("counter_read_relaxed") {
            Ordering::Relaxed
        } else {
            Ordering::Acquire
        };
        self.0.load(order)
    }
}

/// Reads a counter of things that came and one of things that went, as a pair whose difference
/// means something, whenever the reader may be interrupted.
///
/// If the second stands still around the read of the first, the writer was at that pair at some
/// moment. A busy writer gets a few tries; then the pair is one that shows too few present and
/// not too many, so that nobody takes it for a peak.
///
/// That is exact where the machine keeps a thread's stores in their order, as x86 does. Elsewhere the
/// pair may be some operations apart, whoever reads it: the writer would need a release store on the
/// fast path. Sums over such pairs are bounded by what slabs hold.
pub(crate) fn came_and_went(came: &Counter, went: &Counter) -> (u64, u64) {
    const TRIES: usize = 4;
    let mut before = went.get_before();
    let mut tries = 0;
    loop {
        let now = came.get_before();
        let after = went.get_before();
        tries += 1;
        if after == before || tries == TRIES {
            return (now, after);
        }
        before = after;
    }
}

/// A 64-bit counter with several writers; for slow paths only.
#[derive(Debug, Default)]
pub(crate) struct SharedCounter(AtomicU64);

impl SharedCounter {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds a difference that may be negative, modulo 2^64; returns the sum.
    pub(crate) fn add_wrapping(&self, difference: u64) -> u64 {
        self.0.fetch_add(difference, Ordering::Relaxed).wrapping_add(difference)
    }

    /// For gauges that this type also carries.
    pub(crate) fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// Keeps the larger of the value and `seen`, whoever else writes.
    pub(crate) fn raise_to(&self, seen: u64) {
        // The load spares the line when there is nothing to raise, the common case.
        if seen > self.get() {
            self.0.fetch_max(seen, Ordering::Relaxed);
        }
    }

    /// Replaces the value: a window that starts anew, or a setting.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// A mask of 64 bits that its one writer changes and statistics readers look at.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Mask(AtomicU64);

impl Mask {
    pub(crate) const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The writer only.
    #[inline(always)]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The writer only.
    pub(crate) fn replace(&self, value: u64) -> u64 {
        let before = self.get();
        self.set(value);
        before
    }
}

/// A 32-bit figure that its one writer changes and statistics readers look at.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Figure(AtomicU32);

impl Figure {
    pub(crate) const fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// The writer only.
    #[inline(always)]
    pub(crate) fn set(&self, value: u32) {
        self.0.store(value, Ordering::Relaxed);
    }
}
