//! A snapshot as JSON: what `/stats.json` and the command line show.
//!
//! Members are named as the fields of the snapshot model. Durations are whole nanoseconds, their
//! names end in `_nanos`; nothing is rounded. What the platform does not tell, and parts that do
//! not run in this process, are `null`. Every class, shard and lock is listed, used or not, and every heap
//! instance is told of as the heap is. Sums
//! that the model offers as methods stand beside what they are made from.
//!
//! Order: `serde_json` sorts members by name, or keeps the order below if some crate of the program
//! turns on its feature `preserve_order`. Either way it is the same from call to call.

use flagstone_epoch::{GraceSnapshot, Tally};
use flagstone_slab::stats::{
    ClassSnapshot, FallbackSnapshot, HeapSnapshot, LockSite, LockSnapshot, PurgeReport, SegmentUse,
    ShardSnapshot, ShardState,
};
use serde_json::{Value, json};

use crate::series::in_use_bytes;
use crate::{AdminSnapshot, ProcessSnapshot, ScavengerSnapshot, Snapshot, nanos, unix_nanos};

/// Names of the top-level members of [`to_value`]'s object.
pub const MEMBERS: [&str; 8] = [
    "admin",
    "domains",
    "heap",
    "instance_count",
    "instances",
    "process",
    "scavenger",
    "taken_in_nanos",
];

/// Every figure of `snapshot`, as an object with the members [`MEMBERS`].
#[must_use]
pub fn to_value(snapshot: &Snapshot) -> Value {
    json!({
        "heap": heap(&snapshot.heap),
        "instances": snapshot.instances.iter().map(heap).collect::<Vec<_>>(),
        "instance_count": snapshot.instances.len(),
        "process": process(&snapshot.process),
        "domains": snapshot.domains.iter().map(domain).collect::<Vec<_>>(),
        "scavenger": snapshot.scavenger.as_ref().map(scavenger),
        "admin": snapshot.admin.as_ref().map(admin),
        "taken_in_nanos": nanos(snapshot.taken_in),
    })
}

fn heap(heap: &HeapSnapshot) -> Value {
    let (bytes, remote) = (&heap.bytes, &heap.remote);
    let (segments, tiers) = (&heap.segments, &heap.tiers);
    let total = |read: fn(&ShardSnapshot) -> u64| heap.shards.iter().map(read).sum::<u64>();
    let by_state = ShardState::ALL.map(|s| (s.as_str().to_owned(), json!(heap.shards_in(s))));
    json!({
        "heap": heap.heap,
        "bytes": {
            "live": bytes.live,
            "cached": bytes.cached,
            "fragmentation": bytes.fragmentation,
            "retired": bytes.retired,
            "metadata": bytes.metadata,
            "mapped": bytes.mapped,
            "retained": bytes.retained,
            "active": bytes.active,
            "resident": bytes.resident,
            "residual": bytes.residual(),
        },
        "classes": heap.classes.iter().map(class).collect::<Vec<_>>(),
        "shards": heap.shards.iter().map(shard).collect::<Vec<_>>(),
        "shards_by_state": Value::Object(by_state.into_iter().collect()),
        "shards_total": {
            "leases": total(|s| s.leases),
            "parks": total(|s| s.parks),
            "claims": total(|s| s.claims),
        },
        "locks": heap.locks.iter().map(|l| lock(l, heap)).collect::<Vec<_>>(),
        "fallback": fallback(&heap.fallback),
        "remote": {
            "posted_blocks": remote.posted_blocks,
            "posted_batches": remote.posted_batches,
            "drained_blocks": remote.drained_blocks,
            "drained_batches": remote.drained_batches,
            "forwarded_batches": remote.forwarded_batches,
            "outbox_bytes": remote.outbox_bytes,
            "pending_inboxes": remote.pending_inboxes,
            "oldest_inbox_nanos": remote.oldest_inbox_nanos,
            "pending_blocks": heap.deferred_blocks(),
        },
        "segments": {
            "segments": segments.segments,
            "segment_bytes": segments.segment_bytes,
            "mapped_total": segments.mapped_total,
            "unmapped_total": segments.unmapped_total,
            "free_dirty_bytes": segments.free_dirty_bytes,
            "free_clean_bytes": segments.free_clean_bytes,
            "purged_bytes_total": segments.purged_bytes_total,
            "purges_total": segments.purges_total,
            "refused_purges_total": segments.refused_purges_total,
            "slabs_returned_total": segments.slabs_returned_total,
            "in_use": {
                "segments_by_use": by_share(&segments.in_use),
                "used_slices": segments.in_use.used_slices,
                "populated_free_slices": segments.in_use.populated_free_slices,
            },
        },
        "tiers": {
            "shard_hits": tiers.shard_hits,
            "shard_misses": tiers.shard_misses,
            "bucket_hits": tiers.bucket_hits,
            "bucket_misses": tiers.bucket_misses,
            "fallback_hits": tiers.fallback_hits,
            "lease_refusals": tiers.lease_refusals,
            "failures": tiers.failures,
        },
    })
}

/// What a purge gave back and what it could not reach, in the style of [`to_value`].
pub fn purge(report: &PurgeReport) -> Value {
    let returned = &report.returned;
    json!({
        "returned": {
            "slabs": returned.slabs,
            "parts": returned.parts,
            "large": returned.large,
            "segments": returned.segments,
            "total": returned.total(),
        },
        "slabs_returned": report.scavenged.slabs_returned,
        "segments_unmapped": report.scavenged.segments_unmapped,
        "blocks_drained": report.scavenged.blocks_drained,
        "unreachable": {
            "leased_shards": report.unreachable_shards,
            "contested_shards": report.contested_shards,
            "outbox_bytes": report.outbox_bytes,
            "pending_inboxes": report.pending_inboxes,
            "oldest_inbox_nanos": report.oldest_inbox_nanos,
            "refused_bytes": report.refused_bytes,
            "pinned_free_bytes": report.pinned_free_bytes,
        },
    })
}

fn by_share(in_use: &SegmentUse) -> Value {
    let named = SegmentUse::NAMES.into_iter().zip(in_use.segments_by_use);
    Value::Object(named.map(|(name, n)| (name.to_owned(), json!(n))).collect())
}

/// The histogram lists its counts one by one, as that of the fallback; bounds are in nanoseconds.
fn domain(domain: &flagstone_epoch::Snapshot) -> Value {
    let tally = |tally: Tally| json!({ "blocks": tally.blocks, "bytes": tally.bytes });
    let grace = &domain.grace;
    let counts = grace.histogram.iter().enumerate();
    let histogram: Vec<_> = counts
        .map(|(i, n)| json!({ "up_to_nanos": GraceSnapshot::bound(i).map(nanos), "count": n }))
        .collect();
    let guard = domain.oldest_guard.as_ref();
    json!({
        "domain": domain.domain,
        "participants": domain.participants,
        "pinned": domain.pinned,
        "pins": domain.pins,
        "retired": tally(domain.retired),
        "reclaimed": tally(domain.reclaimed),
        "pending": tally(domain.pending),
        "open": tally(domain.open),
        "batches": domain.batches,
        "in_flight_batches": domain.in_flight_batches,
        "reserved_bytes": domain.reserved_bytes,
        "watermark_bytes": domain.watermark_bytes,
        "hard_limit_bytes": domain.hard_limit_bytes,
        "helps": domain.helps,
        "refusals": domain.refusals,
        "reclaim_panics": domain.reclaim_panics,
        "grace": {
            "started": grace.started,
            "completed": grace.completed,
            "histogram": histogram,
            "sum_nanos": nanos(grace.sum),
            "max_nanos": nanos(grace.max),
        },
        "oldest_epoch": domain.oldest_epoch,
        "stalls": domain.stalls,
        "oldest_guard": {
            "age_nanos": guard.map_or(0, |guard| nanos(guard.age)),
            "participant": guard.map(|guard| guard.participant),
            "thread": guard.map(|guard| guard.thread.to_string()),
            "place": guard.map(|guard| guard.place.to_string()),
        },
    })
}

fn class(class: &ClassSnapshot) -> Value {
    json!({
        "block_bytes": class.block_bytes,
        "allocs": class.allocs,
        "frees": class.frees,
        "in_use": class.in_use,
        "in_use_bytes": in_use_bytes(class),
        "high_water": class.high_water,
        "window_high_water": class.window_high_water,
        "slabs": class.slabs,
        "free_blocks": class.free_blocks,
        "slab_bytes": class.slab_bytes,
        "refills": class.refills,
        "remote_frees": class.remote_frees,
        "bucket_allocs": class.bucket_allocs,
        "bucket_frees": class.bucket_frees,
    })
}

fn shard(shard: &ShardSnapshot) -> Value {
    json!({
        "state": shard.state.as_str(),
        "leases": shard.leases,
        "parks": shard.parks,
        "claims": shard.claims,
        "allocs": shard.allocs,
        "frees": shard.frees,
        "misses": shard.misses,
        "slabs": shard.slabs,
        "live_bytes": shard.live_bytes,
        "remote_posted_blocks": shard.remote_posted_blocks,
        "remote_posted_batches": shard.remote_posted_batches,
        "remote_drained_blocks": shard.remote_drained_blocks,
        "remote_drained_batches": shard.remote_drained_batches,
        "forwarded_batches": shard.forwarded_batches,
        "outbox_bytes": shard.outbox_bytes,
        "inbox_nanos": shard.inbox_nanos,
    })
}

/// A bucket's lock names its class by block size, as the label `class` does.
fn lock(lock: &LockSnapshot, heap: &HeapSnapshot) -> Value {
    let class = match lock.site {
        LockSite::Bucket(n) => heap.classes.get(usize::from(n)).map(|c| c.block_bytes),
        _ => None,
    };
    json!({
        "site": lock.site.as_str(),
        "class": class,
        "acquisitions": lock.acquisitions,
        "contended": lock.contended,
        "wait_nanos": lock.wait_nanos,
        "max_wait_nanos": lock.max_wait_nanos,
        "hold_nanos": lock.hold_nanos,
    })
}

/// The histogram lists its counts one by one, not cumulated: `up_to` is the largest size that a
/// count holds, `null` for the overflow.
fn fallback(fallback: &FallbackSnapshot) -> Value {
    let counts = fallback.histogram.iter().enumerate();
    let histogram: Vec<_> =
        counts.map(|(i, n)| json!({ "up_to": FallbackSnapshot::bound(i), "count": n })).collect();
    json!({
        "allocs": fallback.allocs,
        "frees": fallback.frees,
        "resizes": fallback.resizes,
        "remaps": fallback.remaps,
        "failures": fallback.failures,
        "live_bytes": fallback.live_bytes,
        "mapped_bytes": fallback.mapped_bytes,
        "cached_bytes": fallback.cached_bytes,
        "retained_bytes": fallback.retained_bytes,
        "purged_bytes": fallback.purged_bytes,
        "histogram": histogram,
    })
}

fn process(process: &ProcessSnapshot) -> Value {
    json!({
        "version": process.version,
        "profile": process.profile,
        "pid": process.pid,
        "started_unix_nanos": process.started.map(unix_nanos),
        "uptime_nanos": process.uptime.map(nanos),
        "threads": process.threads,
    })
}

fn scavenger(scavenger: &ScavengerSnapshot) -> Value {
    json!({
        "passes": scavenger.passes,
        "idle_passes": scavenger.idle_passes,
        "busy_nanos": nanos(scavenger.busy),
        "interval_nanos": nanos(scavenger.interval),
        "shards_claimed": scavenger.shards_claimed,
        "blocks_drained": scavenger.blocks_drained,
        "slabs_returned": scavenger.slabs_returned,
        "bytes_purged": scavenger.bytes_purged,
        "segments_unmapped": scavenger.segments_unmapped,
    })
}

fn admin(admin: &AdminSnapshot) -> Value {
    json!({
        "open_connections": admin.open_connections,
        "connections": admin.connections,
        "requests": admin.requests,
        "accept_errors": admin.accept_errors,
        "timeouts": admin.timeouts,
        "memory_refusals": admin.memory_refusals,
    })
}
