//! What a slab knows about itself.
//!
//! Counters are the shards' own, single-writer, and summed up here; each is exact, and two of them may
//! be a few operations apart while others work.

use std::time::Duration;

use super::core::Table;
use super::mode::Mode;
use super::slot::Slot;

/// Figures of a slab or a pool at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Values that are there.
    pub len: usize,
    /// Shards: one for each participant that has inserted or removed, ended ones included.
    pub shards: usize,
    /// Insertions that found a slot in their shard.
    pub hits: u64,
    /// Insertions that went to a bucket, a fresh page or the system.
    pub misses: u64,
    /// Values removed: their drop, and the use of their slot, deferred.
    pub deferred: u64,
    /// Values removed whose grace period is not over.
    pub pending: u64,
    /// Slots in use: of a value, pending, free, or worn.
    pub slots: usize,
    /// Slots that are free and in buckets; threads keep some more at hand.
    pub free: usize,
    /// Slots of pages that have never been handed out.
    pub fresh: usize,
    /// Slots out of use for good, because they have had as many values as keys can tell apart.
    pub worn: u64,
    /// Pages that are there.
    pub pages: usize,
    /// Pages returned since the slab exists.
    pub returned_pages: u64,
    /// Bytes of pages and directories.
    pub bytes: usize,
    /// Number of the domain's latest grace period: the epoch that a removal falls into now.
    pub current_period: u64,
    /// Number of the last grace period that is over: the oldest epoch that a reader may still be in is
    /// the one after.
    pub completed_period: u64,
    /// For how long the oldest guard of the domain has been seen held.
    pub oldest_guard: Option<Duration>,
}

impl Stats {
    pub(super) fn of<T, M: Mode<T>>(table: &Table<T, M>) -> Self {
        let core = &*table.core;
        let domain = table.domain.snapshot();
        let reclaimed: u64 = core.buckets.iter().map(|bucket| bucket.reclaimed.get()).sum();
        let mut stats = Self {
            current_period: domain.grace.started,
            completed_period: domain.grace.completed,
            oldest_guard: domain.oldest_guard.map(|guard| guard.age),
            worn: core.worn.get(),
            returned_pages: core.trim.pages.get(),
            slots: core.slots(),
            free: core.free(),
            fresh: core.buckets.iter().map(|bucket| bucket.fresh()).sum(),
            pages: core.pages().count(),
            len: core.len(),
            ..Self::default()
        };
        for shard in core.shards() {
            stats.shards += 1;
            stats.deferred += shard.removed.get_before();
            let misses = shard.misses.get();
            stats.misses += misses;
            stats.hits += shard.inserted.get().saturating_sub(misses);
        }
        stats.pending = stats.deferred.saturating_sub(reclaimed);
        stats.bytes = stats.pages * Slot::<T>::PAGE_BYTES + core.directory_bytes();
        stats
    }
}
