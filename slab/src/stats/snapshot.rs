//! The snapshot model: plain values that a reader of a heap gets, and the sums over them.
//!
//! Owns no memory of the heap and no protocol: [`Heap::snapshot`](crate::Heap::snapshot) fills these
//! structs by walking shards, buckets and segment heads without a lock. Every exporter (Prometheus,
//! JSON, the command line) reads this model and nothing else, so the three show the same numbers
//! (requirement D10). Names of totals follow jemalloc; the identity that they obey is stated at
//! [`ByteTotals`].

/// Everything a heap knows about itself at one moment.
///
/// Counters are read one by one while their writers go on, so two counters of one snapshot may be
/// a few operations apart. Every counter by itself is exact and never runs backwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeapSnapshot {
    /// Name of the heap; the global one is `global`.
    pub heap: String,
    /// Bytes by what they are used for, and the totals over them.
    pub bytes: ByteTotals,
    /// One entry per size class, in ascending block size. Index = class number.
    pub classes: Vec<ClassSnapshot>,
    /// One entry per shard that exists. Index = shard number.
    pub shards: Vec<ShardSnapshot>,
    /// Every lock of the heap: one per bucket, one for the segment pool, one for the shard list.
    pub locks: Vec<LockSnapshot>,
    /// The tier for requests above the largest class or with stricter alignment.
    pub fallback: FallbackSnapshot,
    /// Traffic of blocks freed by another thread than their shard's.
    pub remote: RemoteSnapshot,
    /// Segments, and memory given back to the operating system.
    pub segments: SegmentSnapshot,
    /// How requests spread over the three tiers, and how often leases were refused.
    pub tiers: TierSnapshot,
}

/// Bytes of a heap by use. All figures are bytes.
///
/// Identity, up to [`residual`](Self::residual):
/// `live + cached + fragmentation + retired + metadata = mapped`.
/// Where the page size divides every part, `mapped + retained` is what the heap holds of the
/// address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ByteTotals {
    /// Blocks handed out and not yet freed, at block size (jemalloc: allocated).
    /// Blocks freed by another thread count here until their owner has taken them back.
    pub live: u64,
    /// Free blocks inside slabs in use, free slabs whose pages are still populated, and free ranges
    /// that the fallback keeps populated.
    pub cached: u64,
    /// Space of slabs in use that no block covers, and the rounding of fallback blocks to 64 KiB.
    pub fragmentation: u64,
    /// Blocks retired and waiting for a grace period.
    pub retired: u64,
    /// Segment heads, shards and tables, the records of large blocks among them.
    pub metadata: u64,
    /// Bytes taken from the backing and not given back: counted where they are taken, not summed
    /// from the parts above.
    pub mapped: u64,
    /// Address space that is reserved but holds no pages: never touched, or purged, be it as a whole
    /// slice or as free blocks within a slab in use.
    pub retained: u64,
    /// Slabs in use and fallback blocks, whole (jemalloc: active).
    pub active: u64,
    /// Resident set of the whole process, when the platform tells; read together with the rest.
    pub resident: Option<u64>,
}

/// One size class over all shards and its bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassSnapshot {
    /// Bytes of one block.
    pub block_bytes: u64,
    /// Blocks allocated since the heap exists.
    pub allocs: u64,
    /// Blocks taken back since the heap exists.
    pub frees: u64,
    /// `allocs - frees`, saturating.
    pub in_use: u64,
    /// Largest `in_use` seen since the heap exists; bounded as `docs/stats.md` says.
    pub high_water: u64,
    /// Largest `in_use` seen since the last window reset.
    pub window_high_water: u64,
    /// Slabs of this class, whoever owns them.
    pub slabs: u64,
    /// Blocks in those slabs that are free.
    pub free_blocks: u64,
    /// Bytes of those slabs.
    pub slab_bytes: u64,
    /// Times that a shard's or the bucket's current slab of this class ran out.
    pub refills: u64,
    /// Blocks freed by another thread than their owner's and taken back since.
    pub remote_frees: u64,
    /// Blocks allocated from the bucket tier.
    pub bucket_allocs: u64,
    /// Blocks freed through the bucket tier.
    pub bucket_frees: u64,
}

/// What a shard is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShardState {
    /// No thread has it; the next that needs one takes it with all its slabs.
    #[default]
    Idle,
    /// One thread allocates from it.
    Leased,
    /// Its thread sleeps and has stepped back from it.
    Parked,
    /// The scavenger works on it.
    Claimed,
}

impl ShardState {
    /// Every state, in the order of the packed word.
    pub const ALL: [ShardState; 4] = [Self::Idle, Self::Leased, Self::Parked, Self::Claimed];

    /// The state's name as metrics and JSON spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Leased => "leased",
            Self::Parked => "parked",
            Self::Claimed => "claimed",
        }
    }
}

/// One shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardSnapshot {
    /// What the shard was doing when it was read.
    pub state: ShardState,
    /// Times that a thread took the shard's lease.
    pub leases: u64,
    /// Times that its thread parked.
    pub parks: u64,
    /// Times that the scavenger claimed it.
    pub claims: u64,
    /// Blocks allocated from this shard's slabs.
    pub allocs: u64,
    /// Blocks taken back into this shard's slabs.
    pub frees: u64,
    /// Allocations that found the current slab empty and took the slow path.
    pub misses: u64,
    /// Slabs that the shard owns.
    pub slabs: u64,
    /// Bytes of blocks in use in those slabs.
    pub live_bytes: u64,
    /// Blocks that its thread freed for other owners (posted out).
    pub remote_posted_blocks: u64,
    /// Batches that its thread posted to other owners.
    pub remote_posted_batches: u64,
    /// Blocks that others freed for it and it took back.
    pub remote_drained_blocks: u64,
    /// Batches that it took from its inbox.
    pub remote_drained_batches: u64,
    /// Batches that its drains passed on because the slab's owner had changed.
    pub forwarded_batches: u64,
    /// Bytes waiting in its outbox.
    pub outbox_bytes: u64,
    /// Nanoseconds that the oldest batch in its inbox has waited, in steps of the kernel's tick but at
    /// least one; zero if the inbox is empty.
    pub inbox_nanos: u64,
}

/// What a lock guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockSite {
    /// The bucket of a class (its number).
    Bucket(u16),
    /// The pool of segments and free slabs.
    Segments,
    /// The list of shards.
    Shards,
    /// The list of fallback blocks.
    Fallback,
}

impl LockSite {
    /// The site's name as metrics and JSON spell it; buckets carry their class in a label of its own.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bucket(_) => "bucket",
            Self::Segments => "segments",
            Self::Shards => "shards",
            Self::Fallback => "fallback",
        }
    }
}

/// Counters of one lock, after jemalloc's set (requirement D7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockSnapshot {
    /// What the lock guards.
    pub site: LockSite,
    /// Times the lock was taken.
    pub acquisitions: u64,
    /// Times that taking it waited longer than the threshold (1,000 ns unless configured).
    pub contended: u64,
    /// Nanoseconds waited, over all acquisitions that had to wait at all.
    pub wait_nanos: u64,
    /// Longest single wait in nanoseconds.
    pub max_wait_nanos: u64,
    /// Nanoseconds that the lock was held.
    pub hold_nanos: u64,
}

impl LockSnapshot {
    /// Counters of a lock that was never taken.
    pub fn new(site: LockSite) -> Self {
        Self {
            site,
            acquisitions: 0,
            contended: 0,
            wait_nanos: 0,
            max_wait_nanos: 0,
            hold_nanos: 0,
        }
    }
}

/// Number of histogram counts of [`FallbackSnapshot`], the overflow included.
pub const FALLBACK_BOUNDS: usize = 27;

/// The fallback tier (requirement D8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FallbackSnapshot {
    /// Blocks allocated.
    pub allocs: u64,
    /// Blocks freed.
    pub frees: u64,
    /// Resizes, in place or not.
    pub resizes: u64,
    /// Resizes that moved pages instead of copying bytes.
    pub remaps: u64,
    /// Requests that the backing refused.
    pub failures: u64,
    /// Bytes requested by blocks in use.
    pub live_bytes: u64,
    /// Bytes of the ranges of blocks in use, rounding included.
    pub mapped_bytes: u64,
    /// Free bytes that stay populated for the next blocks.
    pub cached_bytes: u64,
    /// Free bytes of address space without pages.
    pub retained_bytes: u64,
    /// Bytes given back to the operating system since the heap exists.
    pub purged_bytes: u64,
    /// Allocations by requested size: count `i` holds sizes up to `64 << i` bytes and above the
    /// bound before it; the last count holds everything larger.
    pub histogram: [u64; FALLBACK_BOUNDS],
}

impl FallbackSnapshot {
    /// Upper bound in bytes of histogram count `i`; `None` for the overflow.
    pub fn bound(i: usize) -> Option<u64> {
        (i + 1 < FALLBACK_BOUNDS).then(|| 64u64 << i)
    }
}

/// Cross-thread frees over all shards, threads without a shard included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteSnapshot {
    /// Blocks posted to their owners.
    pub posted_blocks: u64,
    /// Batches posted: one atomic operation each.
    pub posted_batches: u64,
    /// Blocks that owners took back, buckets included.
    pub drained_blocks: u64,
    /// Batches that owners took back, buckets included.
    pub drained_batches: u64,
    /// Batches passed on because the slab's owner had changed.
    pub forwarded_batches: u64,
    /// Bytes gathered in outboxes and not yet posted.
    pub outbox_bytes: u64,
    /// Inboxes that hold batches nobody has taken yet.
    pub pending_inboxes: u64,
    /// Nanoseconds that the oldest batch in an inbox has waited; zero if none waits. An owner that
    /// blocks without parking lets it grow.
    pub oldest_inbox_nanos: u64,
}

/// Segments and what was given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentSnapshot {
    /// Segments mapped now.
    pub segments: u64,
    /// Bytes of one segment.
    pub segment_bytes: u64,
    /// Segments mapped since the heap exists.
    pub mapped_total: u64,
    /// Segments unmapped since the heap exists.
    pub unmapped_total: u64,
    /// Free bytes whose pages are populated.
    pub free_dirty_bytes: u64,
    /// Free bytes without pages.
    pub free_clean_bytes: u64,
    /// Bytes of free slabs given back to the operating system since the heap exists: purged, or
    /// unmapped with their segment.
    pub purged_bytes_total: u64,
    /// Purges made since the heap exists.
    pub purges_total: u64,
    /// Purges that the system refused, in whole or in part, since the heap exists.
    pub refused_purges_total: u64,
    /// Slabs that became empty and went back whole, since the heap exists.
    pub slabs_returned_total: u64,
    /// How much of the segments is in use, segment by segment.
    pub in_use: SegmentUse,
}

/// Number of counts of [`SegmentUse::segments_by_use`].
pub const SEGMENT_USES: usize = 6;

/// How slabs lie in segments: read from the segments themselves, one after the other, while slabs and
/// segments come and go. A segment with few slices in use holds address space that cannot go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentUse {
    /// Segments by the share of their slices that slabs have: none; up to a quarter, a half, three
    /// quarters; more, but not all; all.
    pub segments_by_use: [u64; SEGMENT_USES],
    /// Slices in slabs, those included whose pages are being given back right now.
    pub used_slices: u64,
    /// Free slices that have pages.
    pub populated_free_slices: u64,
}

impl SegmentUse {
    /// Names of the counts of [`segments_by_use`](Self::segments_by_use), as metrics and JSON spell
    /// them.
    pub const NAMES: [&'static str; SEGMENT_USES] =
        ["none", "quarter", "half", "three_quarters", "most", "all"];
}

/// Requests by tier (requirement D2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TierSnapshot {
    /// Allocations that a shard served.
    pub shard_hits: u64,
    /// Allocations that found a shard's current slab empty.
    pub shard_misses: u64,
    /// Allocations that a bucket served.
    pub bucket_hits: u64,
    /// Bucket allocations that needed a fresh slab.
    pub bucket_misses: u64,
    /// Allocations that the fallback served.
    pub fallback_hits: u64,
    /// Times that a thread asked for a shard when every one was leased and no more may be made.
    pub lease_refusals: u64,
    /// Allocations that failed for want of memory.
    pub failures: u64,
}

impl ByteTotals {
    /// `mapped - (live + cached + fragmentation + retired + metadata)`: what the identity misses.
    /// Not zero only because parts are read one after another while their writers go on.
    pub fn residual(&self) -> i64 {
        let parts = self.live + self.cached + self.fragmentation + self.retired + self.metadata;
        self.mapped as i64 - parts as i64
    }
}

impl HeapSnapshot {
    /// Shards in a given state.
    pub fn shards_in(&self, state: ShardState) -> usize {
        self.shards.iter().filter(|s| s.state == state).count()
    }

    /// Blocks posted by the threads that freed them and not yet taken back. What is still gathered
    /// shows as [`outbox_bytes`](RemoteSnapshot::outbox_bytes).
    pub fn deferred_blocks(&self) -> u64 {
        self.remote.posted_blocks.saturating_sub(self.remote.drained_blocks)
    }
}

/// What one pass of the scavenger did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScavengeReport {
    /// Parked or idle shards that were claimed and worked on.
    pub shards_claimed: usize,
    /// Shards left alone because a thread has them.
    pub shards_leased: usize,
    /// Blocks taken back from inboxes.
    pub blocks_drained: u64,
    /// Slabs that went back whole.
    pub slabs_returned: u64,
    /// Bytes purged to the operating system.
    pub bytes_purged: u64,
    /// Segments unmapped.
    pub segments_unmapped: u64,
}

/// Bytes that a purge gave back, by what they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReturnedBytes {
    /// Free slabs.
    pub slabs: u64,
    /// Free blocks in partly used slabs: whole pages of them.
    pub parts: u64,
    /// Large blocks kept for reuse.
    pub large: u64,
    /// Segments that were unmapped: what was populated in them, heads included.
    pub segments: u64,
}

impl ReturnedBytes {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.slabs + self.parts + self.large + self.segments
    }
}

/// What a purge gave back, and what it could not reach and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurgeReport {
    /// The pass over parked and idle shards, and over the calling thread's own.
    pub scavenged: ScavengeReport,
    /// What went back, by kind.
    pub returned: ReturnedBytes,
    /// Shards that other running threads hold; their empty slabs stay with them.
    pub unreachable_shards: usize,
    /// Shards that another scavenger was at work on.
    pub contested_shards: usize,
    /// Bytes that other running threads have freed for other owners and not yet posted.
    pub outbox_bytes: u64,
    /// Inboxes with posted blocks whose owner runs, or blocks without having parked, and has not
    /// looked.
    pub pending_inboxes: usize,
    /// Nanoseconds that the oldest of those posts has waited.
    pub oldest_inbox_nanos: u64,
    /// Bytes whose pages the system refused to take, because they are locked into memory, say.
    pub refused_bytes: u64,
    /// Bytes of free blocks that share their slab, and at least a page of it, with live blocks or
    /// are held by running threads.
    pub pinned_free_bytes: u64,
}
