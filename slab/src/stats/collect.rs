//! Filling the snapshot: a walk over counters, without a lock.
//!
//! Owns nothing. The vectors are made before the first counter is read, so that the snapshot's own
//! allocations do not fall between two counters. The identity of [`ByteTotals`] closes by
//! construction as soon as nothing moves: `mapped` is counted where memory is taken from the
//! backing, the parts where blocks and slabs change hands.

use super::{
    ByteTotals, ClassSnapshot, HeapSnapshot, RemoteSnapshot, ShardSnapshot, ShardState,
    TierSnapshot,
};
use crate::heap::{Heap, leases};
use crate::layout::{ClassTable, MAX_CLASSES, Owner, OwnerKind, Slab};
use crate::os;
use crate::shard::Shard;
use crate::shard::lease::LeaseWord;
use crate::sync::{Ordering, fence};

impl Heap {
    /// Everything the heap knows about itself, read without a lock while its threads go on.
    ///
    /// Allocates the report's vectors and nothing else. Costs a few loads per shard and class, and a
    /// cache line per segment. Segments that would be unmapped meanwhile are unmapped at its end.
    pub fn snapshot(&self) -> HeapSnapshot {
        let mut snapshot = HeapSnapshot {
            heap: self.name().to_owned(),
            classes: Vec::with_capacity(self.table.len()),
            shards: Vec::with_capacity(self.shards.len() + 1),
            locks: Vec::with_capacity(self.table.len() + 3),
            ..HeapSnapshot::default()
        };
        // The list is newest first. A shard made since the vector was sized is shown next time.
        let room = snapshot.shards.capacity();
        for shard in self.shards.iter().filter(|shard| (shard.index as usize) < room) {
            snapshot.shards.push(shard_snapshot(shard, self.table));
        }
        snapshot.shards.reverse();
        self.count_blocks(&mut snapshot);
        for bucket in &self.buckets[..self.table.len()] {
            let class = snapshot.locks.len() as u16;
            snapshot.locks.push(bucket.lock_snapshot(class));
        }
        snapshot.locks.push(self.pool.lock_snapshot());
        snapshot.locks.push(self.shards.lock_snapshot());
        snapshot.locks.push(self.fallback.lock_snapshot());
        snapshot.fallback = self.fallback.snapshot();
        snapshot.remote = self.remote_snapshot(&snapshot.shards);
        snapshot.tiers = self.tier_snapshot(&snapshot);
        snapshot.bytes = self.byte_totals(&snapshot);
        snapshot
    }

    /// Bytes of free blocks in slabs in use.
    pub(crate) fn free_block_bytes(&self) -> u64 {
        let in_use = self.blocks_in_use();
        let free = |class| {
            let info = self.table.info(class);
            let blocks = self.pool.class_slabs(class) * u64::from(info.capacity);
            blocks.saturating_sub(in_use[class]) * u64::from(info.block_bytes)
        };
        (0..self.table.len()).map(free).sum()
    }

    /// Fills in what the slabs say: blocks per class and shard, and the use of segments.
    ///
    /// Every block that was taken out of a slab is out of it or came back: frees are what was taken
    /// before the walk less what is out in it and what went back unused until after it. So a free may
    /// be missing that happened meanwhile, and none counts that did not happen.
    fn count_blocks(&self, snapshot: &mut HeapSnapshot) {
        let mut taken = [0u64; MAX_CLASSES];
        for (class, taken) in taken[..self.table.len()].iter_mut().enumerate() {
            let shards = self.shards.iter().map(|shard| shard.class_taken(class)).sum::<u64>();
            *taken = self.buckets[class].counts().0 + shards;
        }
        let mut out = [0u64; MAX_CLASSES];
        let shards = &mut snapshot.shards;
        let table = self.table;
        snapshot.segments = self.pool.snapshot();
        let each = |class: usize, owner: Owner, slab: &Slab| {
            let blocks = u64::from(slab.glance_out());
            out[class] += blocks;
            if let OwnerKind::Shard(address) = owner.kind()
                && let Some(shard) = shards.get_mut(self.shards.index_of(address))
            {
                shard.live_bytes += blocks * u64::from(table.info(class).block_bytes);
                shard.frees += u64::from(slab.glance_uncounted());
            }
        };
        snapshot.segments.in_use = self.pool.segment_use(each, self.backing, &self.threshold);
        // What was returned is read behind all that is out.
        fence(Ordering::Acquire);
        for class in 0..self.table.len() {
            let left = taken[class].saturating_sub(out[class]);
            snapshot.classes.push(self.class_snapshot(class, left));
        }
        for shard in self.shards.iter() {
            let Some(seen) = snapshot.shards.get_mut(shard.index as usize) else { continue };
            let ready = |class| shard.class_ready(class) * u64::from(table.info(class).block_bytes);
            let ready: u64 = (0..table.len()).map(ready).sum();
            seen.live_bytes = seen.live_bytes.saturating_sub(ready);
            (seen.allocs, seen.frees) = shard.show(seen.allocs, seen.frees);
        }
    }

    /// One class, of whose blocks `back` are not out any more.
    fn class_snapshot(&self, class: usize, back: u64) -> ClassSnapshot {
        let info = self.table.info(class);
        let bucket = &self.buckets[class];
        let (bucket_allocs, bucket_frees) = bucket.counts();
        let mut counts = ClassSnapshot {
            block_bytes: u64::from(info.block_bytes),
            allocs: bucket_allocs,
            bucket_allocs,
            bucket_frees,
            refills: bucket.misses.get(),
            ..ClassSnapshot::default()
        };
        let mut returned = 0;
        for shard in self.shards.iter() {
            counts.allocs += shard.class_allocs(class);
            returned += shard.class_returned(class);
            counts.refills += shard.refills[class].get();
            counts.remote_frees += shard.remote_frees[class].get();
        }
        self.shown_frees[class].raise_to(back.saturating_sub(returned));
        self.shown_allocs[class].raise_to(counts.allocs);
        counts.frees = self.shown_frees[class].get();
        counts.allocs = self.shown_allocs[class].get().max(counts.frees);
        // So the totals and what is in use agree in every report, though threads go on meanwhile.
        counts.in_use = counts.allocs - counts.frees;
        // Behind the allocations: a slab is counted before its blocks are.
        counts.slabs = self.pool.class_slabs(class);
        counts.slab_bytes = counts.slabs * info.slab_bytes() as u64;
        let capacity = counts.slabs * u64::from(info.capacity);
        counts.free_blocks = capacity.saturating_sub(counts.in_use);
        // What is in use now is a witness too.
        (counts.high_water, counts.window_high_water) = self.witness_in_use(class, counts.in_use);
        counts
    }

    fn remote_snapshot(&self, shards: &[ShardSnapshot]) -> RemoteSnapshot {
        let unsharded = self.unsharded_posts.get();
        let mut remote = RemoteSnapshot {
            posted_blocks: unsharded,
            posted_batches: unsharded,
            drained_blocks: self.direct_blocks.get(),
            drained_batches: self.direct_batches.get(),
            ..RemoteSnapshot::default()
        };
        for shard in shards {
            remote.posted_blocks += shard.remote_posted_blocks;
            remote.posted_batches += shard.remote_posted_batches;
            remote.drained_blocks += shard.remote_drained_blocks;
            remote.drained_batches += shard.remote_drained_batches;
            remote.forwarded_batches += shard.forwarded_batches;
            remote.outbox_bytes += shard.outbox_bytes;
            remote.pending_inboxes += u64::from(shard.inbox_nanos > 0);
            remote.oldest_inbox_nanos = remote.oldest_inbox_nanos.max(shard.inbox_nanos);
        }
        remote
    }

    fn tier_snapshot(&self, snapshot: &HeapSnapshot) -> TierSnapshot {
        let allocs: u64 = snapshot.shards.iter().map(|shard| shard.allocs).sum();
        let misses: u64 = snapshot.shards.iter().map(|shard| shard.misses).sum();
        TierSnapshot {
            shard_hits: allocs.saturating_sub(misses),
            shard_misses: misses,
            bucket_hits: snapshot.classes.iter().map(|class| class.bucket_allocs).sum(),
            bucket_misses: self.buckets.iter().map(|bucket| bucket.misses.get()).sum(),
            fallback_hits: snapshot.fallback.allocs,
            lease_refusals: self.shards.refusals.get(),
            failures: self.failures.get(),
        }
    }

    fn byte_totals(&self, snapshot: &HeapSnapshot) -> ByteTotals {
        let sum = |part: fn(&ClassSnapshot) -> u64| snapshot.classes.iter().map(part).sum::<u64>();
        let fallback = &snapshot.fallback;
        let purged = self.purged_in_slabs.get();
        // Threads' tables of leases belong to no instance.
        let leases = if self.is_global() { leases::bytes() } else { 0 };
        let tables =
            self.shards.bytes() + self.fallback.record_bytes() + self.estate_bytes + leases;
        let slab_bytes = sum(|class| class.slab_bytes);
        let live_blocks = sum(|class| class.in_use * class.block_bytes);
        let free_blocks = sum(|class| class.free_blocks * class.block_bytes);
        let in_use = live_blocks + fallback.live_bytes;
        let retired = self.retired_bytes().min(in_use);
        ByteTotals {
            live: in_use - retired,
            // Pages given back from within slabs hold nothing: they are retained, not cached.
            cached: (free_blocks + snapshot.segments.free_dirty_bytes).saturating_sub(purged)
                + fallback.cached_bytes,
            fragmentation: slab_bytes.saturating_sub(live_blocks + free_blocks)
                + fallback.mapped_bytes.saturating_sub(fallback.live_bytes),
            retired,
            metadata: self.pool.head_bytes() + tables,
            mapped: (self.pool.populated_bytes() + tables + fallback.mapped_bytes)
                .saturating_sub(purged)
                + fallback.cached_bytes,
            retained: self.pool.retained_bytes() + purged + fallback.retained_bytes,
            active: slab_bytes + fallback.mapped_bytes,
            resident: os::resident_bytes(),
        }
    }
}

fn shard_snapshot(shard: &Shard, table: &ClassTable) -> ShardSnapshot {
    let counters = &shard.counters;
    let mut seen = ShardSnapshot {
        state: match shard.lease.word() {
            LeaseWord::LEASED | LeaseWord::ORPHANED => ShardState::Leased,
            LeaseWord::PARKED => ShardState::Parked,
            LeaseWord::CLAIMED | LeaseWord::CLAIMED_HOMED => ShardState::Claimed,
            _ => ShardState::Idle,
        },
        leases: counters.leases.get(),
        parks: counters.parks.get(),
        claims: counters.claims.get(),
        slabs: counters.slabs.get(),
        remote_posted_blocks: counters.posted_blocks.get(),
        remote_posted_batches: counters.posted_batches.get(),
        remote_drained_blocks: counters.drained_blocks.get(),
        remote_drained_batches: counters.drained_batches.get(),
        forwarded_batches: counters.forwarded_batches.get(),
        outbox_bytes: shard.outbox.bytes(),
        inbox_nanos: shard.inbox_millis().map_or(0, |m| (u64::from(m) * 1_000_000).max(1)),
        ..ShardSnapshot::default()
    };
    for class in 0..table.len() {
        // The rest of the frees, and what is in use, the slabs say.
        seen.frees += shard.class_frees(class);
        seen.allocs += shard.class_allocs(class);
        seen.misses += shard.refills[class].get();
    }
    seen
}
