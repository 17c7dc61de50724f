//! Series of the heap as a whole: bytes by use, cross-thread frees, segments, tiers.

use flagstone_slab::stats::SegmentUse;

use super::Kind::{Counter, Gauge};
use super::Unit::{Bytes, Count, Seconds};
use super::{Number, Read, Series};

pub(super) const SERIES: &[Series] = &[
    Series::new(
        Gauge,
        Bytes,
        "flagstone_heap_bytes",
        "heap.bytes.{use}",
        "Mapped bytes by use; their sum is flagstone_mapped_bytes less the residual.",
        Read::HeapBy("use", |s, emit| {
            let b = &s.heap.bytes;
            emit("live", b.live);
            emit("cached", b.cached);
            emit("fragmentation", b.fragmentation);
            emit("retired", b.retired);
            emit("metadata", b.metadata);
        }),
    ),
    bytes(
        "flagstone_mapped_bytes",
        "heap.bytes.mapped",
        "Bytes taken from the system and not given back.",
        |s| Number::Whole(s.heap.bytes.mapped),
    ),
    bytes(
        "flagstone_retained_bytes",
        "heap.bytes.retained",
        "Address space that is reserved but holds no pages.",
        |s| Number::Whole(s.heap.bytes.retained),
    ),
    bytes(
        "flagstone_active_bytes",
        "heap.bytes.active",
        "Slabs in use and fallback blocks, whole.",
        |s| Number::Whole(s.heap.bytes.active),
    ),
    bytes(
        "flagstone_resident_bytes",
        "heap.bytes.resident",
        "Resident set of the whole process, read together with the heap.",
        |s| s.heap.bytes.resident.map_or(Number::Unknown, Number::Whole),
    ),
    bytes(
        "flagstone_residual_bytes",
        "heap.bytes.residual",
        "Mapped bytes less the sum of flagstone_heap_bytes: what the accounting misses.",
        |s| Number::Signed(s.heap.bytes.residual()),
    ),
    counter(
        "flagstone_remote_posted_blocks_total",
        "heap.remote.posted_blocks",
        "Blocks freed by another thread than their owner's and posted to the owner.",
        |s| Number::Whole(s.heap.remote.posted_blocks),
    ),
    counter(
        "flagstone_remote_posted_batches_total",
        "heap.remote.posted_batches",
        "Batches of such blocks posted, one atomic operation each.",
        |s| Number::Whole(s.heap.remote.posted_batches),
    ),
    counter(
        "flagstone_remote_drained_blocks_total",
        "heap.remote.drained_blocks",
        "Posted blocks that owners took back.",
        |s| Number::Whole(s.heap.remote.drained_blocks),
    ),
    counter(
        "flagstone_remote_drained_batches_total",
        "heap.remote.drained_batches",
        "Posted batches that owners took back.",
        |s| Number::Whole(s.heap.remote.drained_batches),
    ),
    counter(
        "flagstone_remote_forwarded_batches_total",
        "heap.remote.forwarded_batches",
        "Batches passed on because the owner of their slab had changed.",
        |s| Number::Whole(s.heap.remote.forwarded_batches),
    ),
    Series::new(
        Gauge,
        Count,
        "flagstone_remote_pending_blocks",
        "heap.remote.pending_blocks",
        "Posted blocks that no owner has taken back yet.",
        Read::Heap(|s| Number::Whole(s.heap.deferred_blocks())),
    ),
    bytes(
        "flagstone_remote_outbox_bytes",
        "heap.remote.outbox_bytes",
        "Bytes gathered for other owners and not yet posted.",
        |s| Number::Whole(s.heap.remote.outbox_bytes),
    ),
    Series::new(
        Gauge,
        Count,
        "flagstone_remote_pending_inboxes",
        "heap.remote.pending_inboxes",
        "Inboxes with batches that nobody has taken yet.",
        Read::Heap(|s| Number::Whole(s.heap.remote.pending_inboxes)),
    ),
    Series::new(
        Gauge,
        Seconds,
        "flagstone_remote_oldest_inbox_seconds",
        "heap.remote.oldest_inbox_nanos",
        "How long the oldest batch in an inbox has waited; it grows while an owner blocks without parking.",
        Read::Heap(|s| Number::Whole(s.heap.remote.oldest_inbox_nanos)),
    ),
    Series::new(
        Gauge,
        Count,
        "flagstone_segments",
        "heap.segments.segments",
        "Segments mapped now.",
        Read::Heap(|s| Number::Whole(s.heap.segments.segments)),
    ),
    bytes(
        "flagstone_segment_size_bytes",
        "heap.segments.segment_bytes",
        "Bytes of one segment.",
        |s| Number::Whole(s.heap.segments.segment_bytes),
    ),
    counter(
        "flagstone_segments_mapped_total",
        "heap.segments.mapped_total",
        "Segments mapped.",
        |s| Number::Whole(s.heap.segments.mapped_total),
    ),
    counter(
        "flagstone_segments_unmapped_total",
        "heap.segments.unmapped_total",
        "Segments unmapped.",
        |s| Number::Whole(s.heap.segments.unmapped_total),
    ),
    bytes(
        "flagstone_free_dirty_bytes",
        "heap.segments.free_dirty_bytes",
        "Free bytes whose pages are populated.",
        |s| Number::Whole(s.heap.segments.free_dirty_bytes),
    ),
    bytes(
        "flagstone_free_clean_bytes",
        "heap.segments.free_clean_bytes",
        "Free bytes without pages.",
        |s| Number::Whole(s.heap.segments.free_clean_bytes),
    ),
    Series::new(
        Counter,
        Bytes,
        "flagstone_purged_bytes_total",
        "heap.segments.purged_bytes_total",
        "Bytes of free slabs given back to the system, purged or unmapped.",
        Read::Heap(|s| Number::Whole(s.heap.segments.purged_bytes_total)),
    ),
    counter("flagstone_purges_total", "heap.segments.purges_total", "Purges of free slabs.", |s| {
        Number::Whole(s.heap.segments.purges_total)
    }),
    counter(
        "flagstone_refused_purges_total",
        "heap.segments.refused_purges_total",
        "Purges of free slabs that the system refused, in whole or in part.",
        |s| Number::Whole(s.heap.segments.refused_purges_total),
    ),
    Series::new(
        Gauge,
        Count,
        "flagstone_segments_by_use",
        "heap.segments.in_use.segments_by_use.{share}",
        "Segments by the share of their slices that slabs have.",
        Read::HeapBy("share", |s, emit| {
            let in_use = &s.heap.segments.in_use;
            for (name, n) in SegmentUse::NAMES.into_iter().zip(in_use.segments_by_use) {
                emit(name, n);
            }
        }),
    ),
    Series::new(
        Gauge,
        Count,
        "flagstone_segment_used_slices",
        "heap.segments.in_use.used_slices",
        "Slices of segments that slabs have, 64 KiB each.",
        Read::Heap(|s| Number::Whole(s.heap.segments.in_use.used_slices)),
    ),
    Series::new(
        Gauge,
        Count,
        "flagstone_segment_populated_free_slices",
        "heap.segments.in_use.populated_free_slices",
        "Free slices of segments that have pages, as the segments show it.",
        Read::Heap(|s| Number::Whole(s.heap.segments.in_use.populated_free_slices)),
    ),
    counter(
        "flagstone_slabs_returned_total",
        "heap.segments.slabs_returned_total",
        "Slabs that became empty and went back whole.",
        |s| Number::Whole(s.heap.segments.slabs_returned_total),
    ),
    Series::new(
        Counter,
        Count,
        "flagstone_tier_hits_total",
        "heap.tiers.{tier}_hits",
        "Allocations that a tier served; those of a shard from its current slab, at once.",
        Read::HeapBy("tier", |s, emit| {
            emit("shard", s.heap.tiers.shard_hits);
            emit("bucket", s.heap.tiers.bucket_hits);
            emit("fallback", s.heap.tiers.fallback_hits);
        }),
    ),
    Series::new(
        Counter,
        Count,
        "flagstone_tier_misses_total",
        "heap.tiers.{tier}_misses",
        "Allocations that found a tier's current slab empty and took the slow path.",
        Read::HeapBy("tier", |s, emit| {
            emit("shard", s.heap.tiers.shard_misses);
            emit("bucket", s.heap.tiers.bucket_misses);
        }),
    ),
    counter(
        "flagstone_lease_refusals_total",
        "heap.tiers.lease_refusals",
        "Threads that asked for a shard when every one was leased and no more could be made.",
        |s| Number::Whole(s.heap.tiers.lease_refusals),
    ),
    counter(
        "flagstone_alloc_failures_total",
        "heap.tiers.failures",
        "Allocations that failed for want of memory.",
        |s| Number::Whole(s.heap.tiers.failures),
    ),
];

const fn bytes(
    name: &'static str,
    json: &'static str,
    help: &'static str,
    read: fn(&crate::Snapshot) -> Number,
) -> Series {
    Series::new(Gauge, Bytes, name, json, help, Read::Heap(read))
}

const fn counter(
    name: &'static str,
    json: &'static str,
    help: &'static str,
    read: fn(&crate::Snapshot) -> Number,
) -> Series {
    Series::new(Counter, Count, name, json, help, Read::Heap(read))
}
