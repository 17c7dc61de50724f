//! Series of the shards: how many are in which state and what happened to their leases, and on
//! request every shard by itself (label `shard`: its number).

use flagstone_slab::stats::{ShardSnapshot, ShardState};

use super::Kind::{Counter, Gauge};
use super::Unit::{Bytes, Count, Seconds};
use super::{Kind, Number, Read, Series, Unit};
use crate::Snapshot;

pub(super) const SERIES: &[Series] = &[
    Series::new(
        Gauge,
        Count,
        "flagstone_shards",
        "heap.shards_by_state.{state}",
        "Shards by what they are doing.",
        Read::HeapBy("state", |s, emit| {
            for state in ShardState::ALL {
                emit(state.as_str(), s.heap.shards_in(state) as u64);
            }
        }),
    ),
    Series::new(
        Counter,
        Count,
        "flagstone_leases_total",
        "heap.shards_total.leases",
        "Times that a thread took the lease of a shard.",
        Read::Heap(|s| sum(s, |x| x.leases)),
    ),
    Series::new(
        Counter,
        Count,
        "flagstone_parks_total",
        "heap.shards_total.parks",
        "Times that a thread parked and stepped back from its shard.",
        Read::Heap(|s| sum(s, |x| x.parks)),
    ),
    Series::new(
        Counter,
        Count,
        "flagstone_claims_total",
        "heap.shards_total.claims",
        "Times that the scavenger claimed a shard.",
        Read::Heap(|s| sum(s, |x| x.claims)),
    ),
    shard(
        Counter,
        Count,
        "flagstone_shard_leases_total",
        "heap.shards[shard].leases",
        "Times that a thread took this shard's lease.",
        |s| s.leases,
    ),
    shard(
        Counter,
        Count,
        "flagstone_shard_parks_total",
        "heap.shards[shard].parks",
        "Times that this shard's thread parked.",
        |s| s.parks,
    ),
    shard(
        Counter,
        Count,
        "flagstone_shard_claims_total",
        "heap.shards[shard].claims",
        "Times that the scavenger claimed this shard.",
        |s| s.claims,
    ),
    shard(
        Counter,
        Count,
        "flagstone_shard_allocs_total",
        "heap.shards[shard].allocs",
        "Blocks allocated from this shard's slabs.",
        |s| s.allocs,
    ),
    shard(
        Counter,
        Count,
        "flagstone_shard_frees_total",
        "heap.shards[shard].frees",
        "Blocks taken back into this shard's slabs.",
        |s| s.frees,
    ),
    shard(
        Counter,
        Count,
        "flagstone_shard_misses_total",
        "heap.shards[shard].misses",
        "Allocations that found the shard's current slab empty.",
        |s| s.misses,
    ),
    shard(
        Gauge,
        Count,
        "flagstone_shard_slabs",
        "heap.shards[shard].slabs",
        "Slabs that the shard owns.",
        |s| s.slabs,
    ),
    shard(
        Gauge,
        Bytes,
        "flagstone_shard_live_bytes",
        "heap.shards[shard].live_bytes",
        "Bytes of blocks in use in the shard's slabs.",
        |s| s.live_bytes,
    ),
    shard(
        Counter,
        Count,
        "flagstone_shard_remote_posted_blocks_total",
        "heap.shards[shard].remote_posted_blocks",
        "Blocks that the shard's thread freed for other owners and posted.",
        |s| s.remote_posted_blocks,
    ),
    shard(
        Counter,
        Count,
        "flagstone_shard_remote_posted_batches_total",
        "heap.shards[shard].remote_posted_batches",
        "Batches that the shard's thread posted to other owners.",
        |s| s.remote_posted_batches,
    ),
    shard(
        Counter,
        Count,
        "flagstone_shard_remote_drained_blocks_total",
        "heap.shards[shard].remote_drained_blocks",
        "Blocks that others freed for the shard and it took back.",
        |s| s.remote_drained_blocks,
    ),
    shard(
        Counter,
        Count,
        "flagstone_shard_remote_drained_batches_total",
        "heap.shards[shard].remote_drained_batches",
        "Batches that the shard took from its inbox.",
        |s| s.remote_drained_batches,
    ),
    shard(
        Counter,
        Count,
        "flagstone_shard_forwarded_batches_total",
        "heap.shards[shard].forwarded_batches",
        "Batches that the shard's drains passed on to another owner.",
        |s| s.forwarded_batches,
    ),
    shard(
        Gauge,
        Bytes,
        "flagstone_shard_outbox_bytes",
        "heap.shards[shard].outbox_bytes",
        "Bytes waiting in the shard's outbox.",
        |s| s.outbox_bytes,
    ),
    shard(
        Gauge,
        Seconds,
        "flagstone_shard_inbox_seconds",
        "heap.shards[shard].inbox_nanos",
        "How long the oldest batch in the shard's inbox has waited.",
        |s| s.inbox_nanos,
    ),
];

fn sum(snapshot: &Snapshot, read: fn(&ShardSnapshot) -> u64) -> Number {
    Number::Whole(snapshot.heap.shards.iter().map(read).sum())
}

const fn shard(
    kind: Kind,
    unit: Unit,
    name: &'static str,
    json: &'static str,
    help: &'static str,
    read: fn(&ShardSnapshot) -> u64,
) -> Series {
    Series::new(kind, unit, name, json, help, Read::Shard(read))
}
