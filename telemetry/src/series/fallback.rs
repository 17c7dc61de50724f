//! Series of the fallback tier (requirement D8), its histogram of requested sizes among them.

use flagstone_slab::stats::{FALLBACK_BOUNDS, FallbackSnapshot};

use super::Kind::{Counter, Gauge, Histogram};
use super::Unit::{Bytes, Count};
use super::{Kind, Number, Read, Series, Unit};
use crate::Snapshot;

pub(super) const SERIES: &[Series] = &[
    fallback(
        Counter,
        Count,
        "flagstone_fallback_allocs_total",
        "heap.fallback.allocs",
        "Blocks allocated by the fallback.",
        |s| Number::Whole(s.heap.fallback.allocs),
    ),
    fallback(
        Counter,
        Count,
        "flagstone_fallback_frees_total",
        "heap.fallback.frees",
        "Blocks freed by the fallback.",
        |s| Number::Whole(s.heap.fallback.frees),
    ),
    fallback(
        Counter,
        Count,
        "flagstone_fallback_resizes_total",
        "heap.fallback.resizes",
        "Resizes of fallback blocks, in place or not.",
        |s| Number::Whole(s.heap.fallback.resizes),
    ),
    fallback(
        Counter,
        Count,
        "flagstone_fallback_remaps_total",
        "heap.fallback.remaps",
        "Resizes that moved pages instead of copying bytes.",
        |s| Number::Whole(s.heap.fallback.remaps),
    ),
    fallback(
        Counter,
        Count,
        "flagstone_fallback_failures_total",
        "heap.fallback.failures",
        "Requests that the backing refused.",
        |s| Number::Whole(s.heap.fallback.failures),
    ),
    fallback(
        Gauge,
        Bytes,
        "flagstone_fallback_live_bytes",
        "heap.fallback.live_bytes",
        "Bytes requested by fallback blocks in use.",
        |s| Number::Whole(s.heap.fallback.live_bytes),
    ),
    fallback(
        Gauge,
        Bytes,
        "flagstone_fallback_mapped_bytes",
        "heap.fallback.mapped_bytes",
        "Bytes of the ranges of fallback blocks in use, rounding included.",
        |s| Number::Whole(s.heap.fallback.mapped_bytes),
    ),
    fallback(
        Gauge,
        Bytes,
        "flagstone_fallback_cached_bytes",
        "heap.fallback.cached_bytes",
        "Free bytes of the fallback that stay populated.",
        |s| Number::Whole(s.heap.fallback.cached_bytes),
    ),
    fallback(
        Gauge,
        Bytes,
        "flagstone_fallback_retained_bytes",
        "heap.fallback.retained_bytes",
        "Free address space of the fallback without pages.",
        |s| Number::Whole(s.heap.fallback.retained_bytes),
    ),
    fallback(
        Counter,
        Bytes,
        "flagstone_fallback_purged_bytes_total",
        "heap.fallback.purged_bytes",
        "Bytes that the fallback gave back to the system.",
        |s| Number::Whole(s.heap.fallback.purged_bytes),
    ),
    Series::new(
        Histogram,
        Bytes,
        "flagstone_fallback_request_bytes",
        "heap.fallback.histogram",
        "Fallback allocations by requested size; the heap keeps no sum of the sizes.",
        Read::FallbackSizes,
    ),
];

/// Bounds that are always shown (64 bytes to 8 KiB); larger ones appear with the first request they
/// hold.
const BOUNDS_ALWAYS: usize = 8;

/// Cumulative counts by upper bound, then the total under `None`.
///
/// A histogram that grows a bound keeps every older one, and counts never run backwards, so bounds
/// never vanish.
pub(super) fn cumulative(fallback: &FallbackSnapshot) -> Vec<(Option<u64>, u64)> {
    let reached = fallback.histogram[..FALLBACK_BOUNDS - 1]
        .iter()
        .rposition(|&n| n > 0)
        .map_or(BOUNDS_ALWAYS, |i| BOUNDS_ALWAYS.max(i + 1));
    let mut total = 0;
    let mut buckets = Vec::with_capacity(reached + 1);
    for (i, &n) in fallback.histogram.iter().enumerate() {
        total += n;
        if i < reached {
            buckets.push((FallbackSnapshot::bound(i), total));
        }
    }
    buckets.push((None, total));
    buckets
}

const fn fallback(
    kind: Kind,
    unit: Unit,
    name: &'static str,
    json: &'static str,
    help: &'static str,
    read: fn(&Snapshot) -> Number,
) -> Series {
    Series::new(kind, unit, name, json, help, Read::Heap(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    // requirement: D8
    #[test]
    fn bounds_run_from_64_to_8192_and_extend_to_the_sizes_seen() {
        let mut fallback = FallbackSnapshot::default();
        let bounds =
            |f: &FallbackSnapshot| cumulative(f).into_iter().map(|b| b.0).collect::<Vec<_>>();
        let standard: Vec<_> = (0..8).map(|i| Some(64 << i)).chain([None]).collect();
        assert_eq!(bounds(&fallback), standard);

        fallback.histogram[1] = 2;
        fallback.histogram[10] = 3;
        fallback.histogram[FALLBACK_BOUNDS - 1] = 5;
        let buckets = cumulative(&fallback);
        assert_eq!(buckets[0], (Some(64), 0));
        assert_eq!(buckets[1], (Some(128), 2));
        assert_eq!(buckets[10], (Some(64 << 10), 5));
        assert_eq!(buckets[11], (None, 10));
        assert_eq!(buckets.len(), 12);
    }
}
