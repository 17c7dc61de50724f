//! Counters that one thread writes and any thread reads.
//!
//! A [`Counter`] is written by its owner alone: an addition is a load and a store, never a
//! read-modify-write. Who the owner is may change only through a release/acquire hand-over, as
//! [`Record`](crate::registry::Record) does it (rule P2). They live on the crate's facade and not on
//! plain std atomics, because a model checks that hand-over.

use crate::sync::{AtomicU64, Ordering};

/// A single-writer counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter at zero.
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `n`. Only the owner may call this; two at once lose additions (not memory).
    #[inline]
    pub fn add(&self, n: u64) {
        // Relaxed: nobody derives the state of other memory from the value.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Sets the value, which the owner has counted on by itself.
    #[inline]
    pub(crate) fn set(&self, value: u64) {
        // Relaxed: as in `add`.
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds `n` and publishes what the owner did before.
    #[inline]
    pub fn add_release(&self, n: u64) {
        // Release: pairs with the acquire in `get_acquire`.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Release);
    }

    /// The value as of some moment not before the reader's last synchronisation with the owner.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The value, and with it everything that the owner did before it added the last of it.
    #[inline]
    pub fn get_acquire(&self) -> u64 {
        // Acquire: pairs with the release in `add_release`.
        self.0.load(Ordering::Acquire)
    }
}
