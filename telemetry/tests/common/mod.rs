//! A snapshot in which every figure is set and no two are equal, so that a test can tell them
//! apart; and a small reader of Prometheus text.
#![allow(dead_code, reason = "each test binary uses a part of this module")]

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use flagstone_epoch::Domain;
use flagstone_slab::stats::{
    ClassSnapshot, HeapSnapshot, LockSite, LockSnapshot, ShardSnapshot, ShardState,
};
use flagstone_telemetry::{AdminSnapshot, ScavengerSnapshot, Snapshot};

/// Every figure of [`full`] is larger than this.
pub const BASE: u64 = 1_000;

/// Hands out numbers, each once.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 += 7;
        self.0
    }
}

/// A snapshot with every figure set, all of them different.
pub fn full() -> Snapshot {
    let mut n = Numbers(BASE);
    let mut snapshot = Snapshot::default();
    snapshot.heap = heap(&mut n);
    snapshot.process.started = Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(n.next()));
    snapshot.process.uptime = Some(Duration::from_nanos(n.next()));
    snapshot.process.threads = Some(n.next());
    snapshot.taken_in = Duration::from_nanos(n.next());
    snapshot.domains = vec![domain(&mut n, "one"), domain(&mut n, "two")];

    let mut scavenger = ScavengerSnapshot::default();
    scavenger.passes = n.next();
    scavenger.idle_passes = n.next();
    scavenger.busy = Duration::from_nanos(n.next());
    scavenger.interval = Duration::from_nanos(n.next());
    scavenger.shards_claimed = n.next();
    scavenger.blocks_drained = n.next();
    scavenger.slabs_returned = n.next();
    scavenger.bytes_purged = n.next();
    scavenger.segments_unmapped = n.next();

    let mut admin = AdminSnapshot::default();
    admin.open_connections = n.next();
    admin.connections = n.next();
    admin.requests = n.next();
    admin.accept_errors = n.next();
    admin.timeouts = n.next();
    admin.memory_refusals = n.next();
    snapshot.with_scavenger(scavenger).with_admin(admin)
}

fn domain(n: &mut Numbers, name: &str) -> flagstone_epoch::Snapshot {
    let held = Domain::new();
    let participant = held.register();
    let _guard = participant.pin();
    let mut guard = held.oldest_guard().expect("held");
    guard.age = Duration::from_nanos(n.next());

    let mut domain = flagstone_epoch::Snapshot::default();
    domain.domain = name.into();
    domain.participants = n.next();
    domain.pinned = n.next();
    domain.pins = n.next();
    for tally in [&mut domain.retired, &mut domain.reclaimed, &mut domain.pending, &mut domain.open]
    {
        tally.blocks = n.next();
        tally.bytes = n.next();
    }
    domain.batches = n.next();
    domain.in_flight_batches = n.next();
    domain.reserved_bytes = n.next();
    domain.watermark_bytes = n.next();
    domain.hard_limit_bytes = Some(n.next());
    domain.helps = n.next();
    domain.refusals = n.next();
    domain.reclaim_panics = n.next();
    domain.grace.started = n.next();
    domain.grace.completed = n.next();
    for count in &mut domain.grace.histogram {
        *count = n.next();
    }
    domain.grace.sum = Duration::from_nanos(n.next());
    domain.grace.max = Duration::from_nanos(n.next());
    domain.oldest_epoch = n.next();
    domain.stalls = n.next();
    domain.oldest_guard = Some(guard);
    domain
}

fn heap(n: &mut Numbers) -> HeapSnapshot {
    let mut heap = HeapSnapshot::default();
    heap.heap = "global".into();

    heap.bytes.live = n.next();
    heap.bytes.cached = n.next();
    heap.bytes.fragmentation = n.next();
    heap.bytes.retired = n.next();
    heap.bytes.metadata = n.next();
    heap.bytes.mapped = n.next();
    heap.bytes.retained = n.next();
    heap.bytes.active = n.next();
    heap.bytes.resident = Some(n.next());

    for block_bytes in [16, 64, 1024] {
        let mut class = ClassSnapshot::default();
        class.block_bytes = block_bytes;
        class.allocs = n.next();
        class.frees = n.next();
        class.in_use = n.next();
        class.high_water = n.next();
        class.window_high_water = n.next();
        class.slabs = n.next();
        class.free_blocks = n.next();
        class.slab_bytes = n.next();
        class.refills = n.next();
        class.remote_frees = n.next();
        class.bucket_allocs = n.next();
        class.bucket_frees = n.next();
        heap.classes.push(class);
    }

    for state in ShardState::ALL {
        let mut shard = ShardSnapshot::default();
        shard.state = state;
        shard.leases = n.next();
        shard.parks = n.next();
        shard.claims = n.next();
        shard.allocs = n.next();
        shard.frees = n.next();
        shard.misses = n.next();
        shard.slabs = n.next();
        shard.live_bytes = n.next();
        shard.remote_posted_blocks = n.next();
        shard.remote_posted_batches = n.next();
        shard.remote_drained_blocks = n.next();
        shard.remote_drained_batches = n.next();
        shard.forwarded_batches = n.next();
        shard.outbox_bytes = n.next();
        shard.inbox_nanos = n.next();
        heap.shards.push(shard);
    }

    let buckets = (0..3).map(LockSite::Bucket);
    for site in buckets.chain([LockSite::Segments, LockSite::Shards, LockSite::Fallback]) {
        let mut lock = LockSnapshot::new(site);
        lock.acquisitions = n.next();
        lock.contended = n.next();
        lock.wait_nanos = n.next();
        lock.max_wait_nanos = n.next();
        lock.hold_nanos = n.next();
        heap.locks.push(lock);
    }

    heap.fallback.allocs = n.next();
    heap.fallback.frees = n.next();
    heap.fallback.resizes = n.next();
    heap.fallback.remaps = n.next();
    heap.fallback.failures = n.next();
    heap.fallback.live_bytes = n.next();
    heap.fallback.mapped_bytes = n.next();
    for count in &mut heap.fallback.histogram {
        *count = n.next();
    }

    // Drained first: what is pending is posted less drained.
    heap.remote.drained_blocks = n.next();
    heap.remote.drained_batches = n.next();
    heap.remote.posted_blocks = n.next();
    heap.remote.posted_batches = n.next();
    heap.remote.forwarded_batches = n.next();
    heap.remote.outbox_bytes = n.next();
    heap.remote.pending_inboxes = n.next();
    heap.remote.oldest_inbox_nanos = n.next();

    heap.segments.segments = n.next();
    heap.segments.segment_bytes = n.next();
    heap.segments.mapped_total = n.next();
    heap.segments.unmapped_total = n.next();
    heap.segments.free_dirty_bytes = n.next();
    heap.segments.free_clean_bytes = n.next();
    heap.segments.purged_bytes_total = n.next();
    heap.segments.purges_total = n.next();
    heap.segments.refused_purges_total = n.next();
    heap.segments.slabs_returned_total = n.next();
    for count in &mut heap.segments.in_use.segments_by_use {
        *count = n.next();
    }
    heap.segments.in_use.used_slices = n.next();
    heap.segments.in_use.populated_free_slices = n.next();

    heap.tiers.shard_hits = n.next();
    heap.tiers.shard_misses = n.next();
    heap.tiers.bucket_hits = n.next();
    heap.tiers.bucket_misses = n.next();
    heap.tiers.fallback_hits = n.next();
    heap.tiers.lease_refusals = n.next();
    heap.tiers.failures = n.next();
    heap
}

/// One line of Prometheus text.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// The samples of Prometheus text. Label values of these tests hold neither quotes nor commas.
pub fn samples(text: &str) -> Vec<Sample> {
    let lines = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines
        .map(|line| {
            let (key, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = key.split_once('{').unwrap_or((key, "}"));
            let labels = labels.trim_end_matches('}').split(',').filter(|l| !l.is_empty());
            Sample {
                name: name.to_owned(),
                labels: labels
                    .map(|l| l.split_once('=').expect("a label"))
                    .map(|(k, v)| (k.to_owned(), v.trim_matches('"').to_owned()))
                    .collect(),
                value: value.parse().expect("a number"),
            }
        })
        .collect()
}

/// The value of the one sample of this name and these labels.
pub fn value(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let labels: BTreeMap<_, _> =
        labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let found: Vec<_> =
        samples(text).into_iter().filter(|s| s.name == name && s.labels == labels).collect();
    assert_eq!(found.len(), 1, "{name}{labels:?} in\n{text}");
    found[0].value
}
