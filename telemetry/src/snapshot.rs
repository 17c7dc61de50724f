//! The snapshot that every exporter reads: one heap, the process around it, and the parts of the
//! runtime that keep figures of their own.
//!
//! Plain values, no protocol. [`Snapshot::take`] reads the heap and the process together; whoever
//! runs a scavenger or an admin server adds its figures before handing the snapshot on.

use std::collections::BTreeSet;
use std::time::Duration;

use flagstone_epoch::Domain;
use flagstone_slab::Heap;
use flagstone_slab::stats::{HeapSnapshot, ScavengeReport};

mod process;

pub use process::ProcessSnapshot;

/// A heap, its process and its runtime at one moment.
///
/// Parts that do not run in this process are `None`, and their series are absent.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The heap; resident bytes of the process are in its `bytes.resident`.
    pub heap: HeapSnapshot,
    /// Heap instances of the process besides `heap`, in the order of their numbers. Names are distinct,
    /// as those of domains are; no name is empty, or that of the global heap or of `heap`.
    pub instances: Vec<HeapSnapshot>,
    /// The process.
    pub process: ProcessSnapshot,
    /// Every epoch domain of the process, the heap's own among them if it has one. Names are distinct:
    /// further domains of a name have a number behind it.
    pub domains: Vec<flagstone_epoch::Snapshot>,
    /// The scavenger thread, where one runs.
    pub scavenger: Option<ScavengerSnapshot>,
    /// The admin server, where one runs.
    pub admin: Option<AdminSnapshot>,
    /// How long taking the snapshot of heap and process took.
    pub taken_in: Duration,
}

/// What a scavenger has done since it was spawned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScavengerSnapshot {
    /// Passes finished.
    pub passes: u64,
    /// Passes that found nothing to take back.
    pub idle_passes: u64,
    /// Time spent in passes.
    pub busy: Duration,
    /// Time between the passes as it stands now.
    pub interval: Duration,
    /// Shards claimed, over all passes.
    pub shards_claimed: u64,
    /// Blocks drained from inboxes, over all passes.
    pub blocks_drained: u64,
    /// Slabs returned whole, over all passes.
    pub slabs_returned: u64,
    /// Bytes purged to the operating system, over all passes.
    pub bytes_purged: u64,
    /// Segments unmapped, over all passes.
    pub segments_unmapped: u64,
}

/// What an admin server has done since it was bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdminSnapshot {
    /// Connections open now.
    pub open_connections: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Requests answered, whatever the status.
    pub requests: u64,
    /// Times that accepting a connection failed, for want of file descriptors for example.
    pub accept_errors: u64,
    /// Connections closed because a limit in time ran out.
    pub timeouts: u64,
    /// Requests refused because there was no memory to spare.
    pub memory_refusals: u64,
}

impl Snapshot {
    /// Reads `heap`, the process, its epoch domains and its heap instances now.
    ///
    /// Takes no lock of the heaps; allocates only the report. Costs a walk over the heaps' slabs and
    /// a few reads under `/proc`, so call it where a blocking call of that length does no harm.
    #[must_use]
    pub fn take(heap: &Heap) -> Self {
        let start = std::time::Instant::now();
        let instances = instances(heap);
        let heap = heap.snapshot();
        let process = ProcessSnapshot::take();
        let domains = domains();
        let taken_in = start.elapsed();
        Self { heap, instances, process, domains, scavenger: None, admin: None, taken_in }
    }

    /// Adds the figures of a scavenger.
    #[must_use]
    pub fn with_scavenger(mut self, scavenger: ScavengerSnapshot) -> Self {
        self.scavenger = Some(scavenger);
        self
    }

    /// Adds the figures of an admin server.
    #[must_use]
    pub fn with_admin(mut self, admin: AdminSnapshot) -> Self {
        self.admin = Some(admin);
        self
    }
}

/// Every domain, under names that tell them apart.
fn domains() -> Vec<flagstone_epoch::Snapshot> {
    let mut domains: Vec<_> = Domain::all().iter().map(Domain::snapshot).collect();
    tell_apart(domains.iter_mut().map(|domain| &mut domain.domain), &[]);
    domains
}

/// Every instance but `shown`, under names that tell them apart.
fn instances(shown: &Heap) -> Vec<HeapSnapshot> {
    let mut instances = Vec::new();
    Heap::for_each(|heap| {
        if !std::ptr::eq(heap, Heap::global()) && !std::ptr::eq(heap, shown) {
            instances.push(heap.snapshot());
        }
    });
    // Without a name, or with that of another, its series would pass for those of the other heap.
    let names = instances.iter_mut().map(|heap| &mut heap.heap);
    tell_apart(names, &["", Heap::global().name(), shown.name()]);
    instances
}

/// Puts a number behind each name that was met before or is one of those `taken`.
fn tell_apart<'n>(names: impl Iterator<Item = &'n mut String>, taken: &[&str]) {
    let mut met: BTreeSet<String> = taken.iter().map(|name| (*name).to_owned()).collect();
    for name in names {
        if met.contains(name) {
            let free = (2..).map(|n| format!("{name}#{n}")).find(|name| !met.contains(name));
            *name = free.unwrap_or_default();
        }
        met.insert(name.clone());
    }
}

impl ScavengerSnapshot {
    /// Adds one finished pass and its report.
    pub fn record(&mut self, report: &ScavengeReport, took: Duration) {
        self.passes += 1;
        self.busy += took;
        self.shards_claimed += report.shards_claimed as u64;
        self.blocks_drained += report.blocks_drained;
        self.slabs_returned += report.slabs_returned;
        self.bytes_purged += report.bytes_purged;
        self.segments_unmapped += report.segments_unmapped;
        if !did_something(report) {
            self.idle_passes += 1;
        }
    }
}

/// Whether a pass took anything back. Claiming a shard alone does not count: parked shards are
/// claimed by every pass, with or without work in them.
#[must_use]
pub fn did_something(report: &ScavengeReport) -> bool {
    report.blocks_drained + report.slabs_returned + report.bytes_purged + report.segments_unmapped
        > 0
}
