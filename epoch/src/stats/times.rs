//! How long grace periods took: a log2 histogram, its sum and its maximum.
//!
//! Written by whoever completes a period. Periods run one after another, and each launch acquires
//! what the completion before it released ([`Periods`](crate::grace::Periods)), so the writers take
//! turns and plain single-writer counters suffice.

use super::counter::Counter;
use crate::sync::{AtomicU64, Ordering};

/// Number of counts in a [`GraceSnapshot`](super::GraceSnapshot)'s histogram, the overflow included.
pub const GRACE_BUCKETS: usize = 28;

/// Upper bound of the first bucket in nanoseconds: 1.024 us.
const FIRST_BOUND_LOG2: u32 = 10;

/// Upper bound in nanoseconds of histogram count `i`; `None` for the overflow.
pub(super) fn bound_nanos(i: usize) -> Option<u64> {
    (i + 1 < GRACE_BUCKETS).then(|| 1u64 << (FIRST_BOUND_LOG2 as usize + i))
}

fn bucket(nanos: u64) -> usize {
    // The bucket of the smallest bound that is not below `nanos`.
    let log2 = u64::BITS - nanos.saturating_sub(1).leading_zeros();
    (log2.saturating_sub(FIRST_BOUND_LOG2) as usize).min(GRACE_BUCKETS - 1)
}

#[derive(Debug)]
pub(crate) struct GraceTimes {
    started_at: AtomicU64,
    counts: [Counter; GRACE_BUCKETS],
    sum_nanos: Counter,
    max_nanos: AtomicU64,
}

impl GraceTimes {
    pub(crate) fn new() -> Self {
        Self {
            started_at: AtomicU64::new(0),
            counts: std::array::from_fn(|_| Counter::new()),
            sum_nanos: Counter::new(),
            max_nanos: AtomicU64::new(0),
        }
    }

    /// The launcher notes when its period started.
    pub(crate) fn start(&self, now: u64) {
        // Relaxed: read by whoever completes the period, after the collector handed it the function.
        self.started_at.store(now, Ordering::Relaxed);
    }

    /// The completer records the period, before it marks it complete.
    pub(crate) fn record(&self, now: u64) {
        let nanos = now.saturating_sub(self.started_at.load(Ordering::Relaxed));
        self.counts[bucket(nanos)].add(1);
        self.sum_nanos.add(nanos);
        if nanos > self.max_nanos.load(Ordering::Relaxed) {
            self.max_nanos.store(nanos, Ordering::Relaxed);
        }
    }

    pub(crate) fn counts(&self) -> [u64; GRACE_BUCKETS] {
        std::array::from_fn(|i| self.counts[i].get())
    }

    pub(crate) fn sum_nanos(&self) -> u64 {
        self.sum_nanos.get()
    }

    pub(crate) fn max_nanos(&self) -> u64 {
        self.max_nanos.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_within_the_bounds_of_its_bucket() {
        for nanos in [0, 1, 1023, 1024, 1025, 2048, 2049, 1 << 36, (1 << 36) + 1, u64::MAX] {
            let i = bucket(nanos);
            assert!(bound_nanos(i).is_none_or(|bound| nanos <= bound), "{nanos} in {i}");
            if i > 0 {
                assert!(bound_nanos(i - 1).is_some_and(|bound| nanos > bound), "{nanos} in {i}");
            }
        }
    }

    #[test]
    fn records_sum_and_maximum() {
        let times = GraceTimes::new();
        for (start, end) in [(10, 2_010), (5_000, 6_000), (9_000, 8_000)] {
            times.start(start);
            times.record(end);
        }
        assert_eq!(times.sum_nanos(), 3_000);
        assert_eq!(times.max_nanos(), 2_000);
        assert_eq!(times.counts().iter().sum::<u64>(), 3);
    }
}
