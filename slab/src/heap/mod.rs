//! The heap: segments, shards, buckets and fallback put together.
//!
//! Owns the composition: which tier serves a request, and in which order a shard looks for blocks.
//! The order of locks is: any one of them alone; none is taken while another is held.
//!
//! * [`refill`]: allocation beyond the fast path; [`release`]: free beyond it; [`resize`].
//! * [`pool`]: segments and free slices; [`fallback`]: large blocks; [`shards`]: the list.
//! * [`local`]: the calling thread's shard of the global heap; [`global`]: `GlobalAlloc`.
//! * [`builder`], [`owned`]: instances; [`blocks`]: blocks by layout from any heap; [`leases`]: the
//!   calling thread's shards of instances; [`registry`], [`gate`](crate::gate): numbers and ends of
//!   instances; [`holdings`]: what they took from their backing.
//! * [`guard`]: pages behind slabs and large blocks that nobody may touch.
//! * [`growth`]: a word to the program when the heap has grown.
//! * [`huge`]: whether huge pages are asked for.
//! * [`untyped`]: blocks for callers who know no layout; [`fork`]: before and after a fork.
//! * [`decay`]: when slow paths give memory back; [`scavenge`]: it comes back from shards whose threads
//!   sleep or are gone; [`purge`]: all of it, with a report.

mod blocks;
mod builder;
mod decay;
mod fallback;
mod fork;
mod global;
mod growth;
mod guard;
mod high_water;
mod holdings;
mod huge;
pub(crate) mod leases;
pub(crate) mod local;
pub(crate) mod members;
mod misuse;
pub mod mode;
#[cfg(flagstone_loom)]
pub mod modelled;
mod owned;
mod pool;
mod purge;
mod refill;
mod registry;
mod release;
mod remote;
mod resize;
mod retire;
mod scavenge;
mod segments;
mod shards;
mod shared;
pub mod untyped;
mod walked;

use std::sync::OnceLock;
use std::time::Duration;

use flagstone_epoch::Domain;

pub use builder::{BuildError, BuildFailure, HeapBuilder};
pub use global::Flagstone;
pub use guard::GuardReport;
use guard::Guards;
pub use huge::{HugePages, UnknownHugePages};
pub(crate) use misuse::freed_twice;
pub use owned::OwnedHeap;
pub use shared::SharedHeap;

use crate::bucket::Bucket;
use crate::counter::SharedCounter;
use crate::layout::{ClassTable, DEFAULT_TABLE, HeapId, LinkKey, MAX_CLASSES};
use crate::lock::ContentionThreshold;
use crate::os;
use crate::port::{Backing, OsPages};
use crate::shard::Shard;
use crate::sync::{AtomicUsize, Ordering, const_off_loom, each, per_execution};
use fallback::Fallback;
use high_water::HighWater;
use holdings::Figures;
use pool::Pool;
use shards::ShardList;

/// Milliseconds that free pages stay populated, unless configured.
const DECAY_MILLIS: u64 = 1_000;
/// Bytes of free pages that decay keeps while a heap is in use, unless configured.
const RETAIN_BYTES: u64 = 16 << 20;
/// Most shards of a heap; past it threads share the bucket tier.
const MAX_SHARDS: u32 = 1_024;

/// A heap. [`Heap::global`] is the one behind [`Flagstone`]; [`Heap::builder`] makes others.
pub struct Heap {
    id: HeapId,
    /// Of all heaps that had this number, which one this is. Zero for the global heap.
    generation: usize,
    name: &'static str,
    key: AtomicUsize,
    pub(crate) backing: &'static dyn Backing,
    pub(crate) table: &'static ClassTable,
    /// What an instance took from its backing; the global heap has no cap and keeps no such sums.
    holdings: Option<&'static dyn Figures>,
    /// Bytes of an instance's own structures.
    pub(crate) estate_bytes: u64,
    pub(crate) pool: Pool,
    pub(crate) buckets: [Bucket; MAX_CLASSES],
    pub(crate) fallback: Fallback,
    pub(crate) shards: ShardList,
    pub(crate) threshold: ContentionThreshold,
    decay_millis: SharedCounter,
    retain_bytes: SharedCounter,
    huge_pages: SharedCounter,
    decay_clock: decay::DecayClock,
    high_water: [HighWater; MAX_CLASSES],
    /// Per class, the largest totals that a snapshot showed: later ones show no less.
    pub(crate) shown_allocs: [SharedCounter; MAX_CLASSES],
    pub(crate) shown_frees: [SharedCounter; MAX_CLASSES],
    /// Bytes in slabs in use whose pages were given back.
    pub(crate) purged_in_slabs: SharedCounter,
    /// Posts by threads without a shard: blocks and batches, each a batch.
    pub(crate) unsharded_posts: SharedCounter,
    /// Posts that needed no inbox, because their slab was a bucket's or the poster's own by then.
    pub(crate) direct_blocks: SharedCounter,
    pub(crate) direct_batches: SharedCounter,
    pub(crate) failures: SharedCounter,
    guards: Guards,
    /// Bytes retired and reclaimed by threads without a shard.
    retired_unsharded: SharedCounter,
    reclaimed_unsharded: SharedCounter,
    /// Whether every free of the heap is retired.
    retires: bool,
    /// Whose guards keep retired blocks; made on first use.
    domain: OnceLock<Domain>,
    over_fork: fork::OverFork,
}

per_execution! {
    static GLOBAL: Heap = Heap::new(HeapId::GLOBAL, "global", &OsPages, &DEFAULT_TABLE);
}

impl Heap {
    const_off_loom! {
        fn new(
            id: HeapId,
            name: &'static str,
            backing: &'static dyn Backing,
            table: &'static ClassTable,
        ) -> Self {
            Self {
                id,
                generation: 0,
                name,
                key: AtomicUsize::new(0),
                backing,
                table,
                holdings: None,
                estate_bytes: 0,
                pool: Pool::new(),
                buckets: each![Bucket::new(); MAX_CLASSES],
                fallback: Fallback::new(),
                shards: ShardList::new(MAX_SHARDS),
                threshold: ContentionThreshold::new(),
                decay_millis: SharedCounter::new(),
                retain_bytes: SharedCounter::new(),
                huge_pages: SharedCounter::new(),
                decay_clock: decay::DecayClock::new(),
                high_water: each![HighWater::new(); MAX_CLASSES],
                shown_allocs: [const { SharedCounter::new() }; MAX_CLASSES],
                shown_frees: [const { SharedCounter::new() }; MAX_CLASSES],
                purged_in_slabs: SharedCounter::new(),
                unsharded_posts: SharedCounter::new(),
                direct_blocks: SharedCounter::new(),
                direct_batches: SharedCounter::new(),
                failures: SharedCounter::new(),
                guards: Guards::new(),
                retired_unsharded: SharedCounter::new(),
                reclaimed_unsharded: SharedCounter::new(),
                retires: false,
                domain: OnceLock::new(),
                over_fork: fork::OverFork::new(),
            }
        }
    }

    /// The heap behind the global allocator [`Flagstone`]. It exists whether or not the program
    /// uses that; without it, its figures stay zero.
    pub fn global() -> &'static Heap {
        &GLOBAL
    }

    /// The heap's name, as metrics and reports show it.
    pub fn name(&self) -> &str {
        self.name
    }

    /// Sets how long free pages stay populated before a scavenge or a slow path gives them back.
    /// Zero gives them back at the next occasion. At most 24 days; longer means that.
    pub fn set_decay(&self, decay: Duration) {
        let millis = u64::try_from(decay.as_millis()).unwrap_or(u64::MAX).min(u64::from(MAX_DECAY));
        // Stored plus one: zero is the default, so that the heap can live in a zeroed static.
        self.decay_millis.set(millis + 1);
    }

    /// How long free pages stay populated; 1 s unless set.
    pub fn decay(&self) -> Duration {
        Duration::from_millis(u64::from(self.decay_millis()))
    }

    /// Sets the retain budget: so many bytes of free pages stay populated beyond the decay, so that
    /// bursts that are further apart than that do not fault them in anew. They stay while the heap
    /// is in use, which is as long as fresh slabs are taken at least once in a decay time; an idle
    /// heap keeps nothing, and [`purge`](Self::purge) spares nothing.
    pub fn set_retain(&self, bytes: u64) {
        // Stored plus one, as in `set_decay`.
        self.retain_bytes.set(bytes.saturating_add(1));
    }

    /// The retain budget in bytes; 16 MiB unless set.
    pub fn retain(&self) -> u64 {
        match self.retain_bytes.get() {
            0 => RETAIN_BYTES,
            stored => stored - 1,
        }
    }

    /// Sets the wait above which an acquisition of one of the heap's locks counts as contended;
    /// zero brings the default of 1,000 ns back.
    pub fn set_contention_threshold(&self, wait: Duration) {
        self.threshold.set_nanos(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Starts a new high-water window: every class's window mark becomes its blocks in use now.
    pub fn reset_window_high_water(&self) {
        // All of them first: what is in use is counted for all together.
        self.high_water.iter().for_each(HighWater::open_window);
        let in_use = self.blocks_in_use();
        for (marks, in_use) in self.high_water.iter().zip(in_use) {
            marks.witness_in_window(in_use);
        }
    }

    /// Bytes of blocks in use, at block size: over all classes and the fallback. No lock, no
    /// allocation; costs a cache line per slab and a few loads per shard and class in use.
    pub fn live_bytes(&self) -> u64 {
        let in_use = self.blocks_in_use();
        let bytes = |class| u64::from(self.table.info(class).block_bytes);
        let blocks = (0..self.table.len()).map(|class| in_use[class] * bytes(class));
        blocks.sum::<u64>() + self.fallback.snapshot().live_bytes
    }

    /// Most bytes that the heap may take from its backing, if there is a cap.
    pub fn cap(&self) -> Option<u64> {
        let cap = self.holdings?.cap();
        (cap != usize::MAX).then_some(cap as u64)
    }

    /// Bytes that an instance has taken from its backing and not given back, address space without
    /// pages included: what its cap limits. `None` for the global heap.
    pub fn held_bytes(&self) -> Option<u64> {
        Some(self.holdings?.held() as u64)
    }

    /// Largest [`held_bytes`](Self::held_bytes) so far.
    pub fn peak_held_bytes(&self) -> Option<u64> {
        Some(self.holdings?.peak())
    }

    /// Times that the cap refused the heap more memory.
    pub fn cap_refusals(&self) -> u64 {
        self.holdings.map_or(0, |holdings| holdings.refusals())
    }

    /// Whether the heap's backing would give it `bytes` more now, cap included. They are asked for and
    /// given back untouched, so that no figure of the heap moves; two system calls.
    ///
    /// For those who are about to do what allocates without asking, and can do without: what other
    /// threads take meanwhile is not there any more.
    pub fn can_grow(&self, bytes: usize) -> bool {
        let page = os::page_size();
        let Some(bytes) = bytes.max(1).checked_next_multiple_of(page) else { return false };
        let Some(start) = self.backing.map(bytes, page) else { return false };
        // SAFETY: just mapped, and nobody has looked at it.
        unsafe { self.backing.unmap(start, bytes) };
        true
    }

    /// Shards that were asked of the builder and could not be made so far.
    pub fn missing_shards(&self) -> usize {
        self.shards.missing()
    }

    /// Checks the written equations of the calling thread's shard; panics where
    /// one does not hold. For tests: it walks every free list, and exists in debug builds only.
    #[cfg(debug_assertions)]
    pub fn debug_validate(&self) {
        let shard = self.thread_shard();
        // SAFETY: the thread has the lease.
        unsafe { shard.debug_validate() };
    }

    /// Tells the shared sums of what changed in a shard that comes to rest, so that what was freed
    /// there does not make later peaks look possible.
    pub(crate) fn tell_all(&self, shard: &Shard) {
        for class in (0..self.table.len()).filter(|&class| self.pool.class_slabs(class) > 0) {
            self.high_water[class].tell(shard.tell(class));
        }
    }

    /// What the tiers work with.
    pub(crate) fn means(&self) -> Means<'_> {
        Means {
            id: self.id,
            backing: self.backing,
            threshold: &self.threshold,
            guards: &self.guards,
            decay_millis: self.decay_millis(),
            huge_pages: self.huge_pages(),
        }
    }

    pub(crate) fn decay_millis(&self) -> u32 {
        match self.decay_millis.get() {
            0 => DECAY_MILLIS as u32,
            stored => (stored - 1) as u32,
        }
    }

    /// Blocks of a class in use, over all shards and the bucket, or somewhat more: frees that no
    /// owner has counted yet, at most an eighth of each slab's blocks, are missing.
    fn class_in_use_at_most(&self, class: usize) -> u64 {
        let (mut allocs, mut frees) = self.buckets[class].counts();
        for shard in self.shards.iter() {
            // In this order, so that no free is counted without its allocation.
            frees += shard.class_frees(class);
            allocs += shard.class_allocs(class);
        }
        allocs.saturating_sub(frees)
    }

    /// Raises a class's high-water marks to its blocks in use now. Called where a current slab runs
    /// out, with the caller's shard if it has one, so that a peak is missed by at most a slab
    /// and a half's blocks per class and shard.
    ///
    /// Asking every shard each time would cost a cache miss per shard and slab. So shards tell a
    /// shared sum what changed since they last told it, once it is a quarter slab: threads that
    /// allocate and free at the same pace would otherwise pass the sum's cache line to and fro, which
    /// took a fifth of larson's time. Since it last told, a shard can have allocated one slab's blocks
    /// at most, and less than half a slab that it did not tell; so the sum is too low by no more than
    /// the bound above. It may be too high by what was freed and not told, and then the shards are asked;
    /// and by what no owner has counted, at most an eighth of each slab's blocks.
    pub(crate) fn note_in_use(&self, class: usize, shard: Option<&Shard>) {
        if cfg!(flagstone_no_counters) {
            return;
        }
        if let Some(shard) = shard {
            let quarter = i64::from(self.table.info(class).capacity / 4).max(1);
            if (shard.untold(class) as i64).abs() < quarter {
                return;
            }
        }
        let change = shard.map_or(0, |shard| shard.tell(class));
        let (allocs, frees) = self.buckets[class].counts();
        let bucket = allocs.wrapping_sub(frees);
        let in_use = || self.class_in_use_at_most(class);
        self.high_water[class].note(change, bucket, self.class_room(class), in_use);
    }

    /// Raises a class's high-water marks to a sum over shards and bucket; returns them, the lifetime's
    /// first.
    pub(crate) fn witness_in_use(&self, class: usize, in_use: u64) -> (u64, u64) {
        self.high_water[class].witness(in_use.min(self.class_room(class)))
    }

    /// Blocks that the slabs of a class hold. A sum over shards and bucket is not of one moment: what one
    /// shard freed and another took since may be in it twice. What the slabs cannot hold was never
    /// in use.
    fn class_room(&self, class: usize) -> u64 {
        self.pool.class_slabs(class) * u64::from(self.table.info(class).capacity)
    }

    /// The key of the heap's free-list links, made on first use.
    pub(crate) fn key(&self) -> LinkKey {
        // Relaxed: the value stands for itself; whoever reads zero makes one and agrees by the
        // exchange on the first that was made.
        let key = self.key.load(Ordering::Relaxed);
        if key != 0 {
            return LinkKey(key);
        }
        let made = os::entropy() | 1 << (usize::BITS - 1);
        match self.key.compare_exchange(0, made, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => LinkKey(made),
            Err(other) => LinkKey(other),
        }
    }
}

/// What a tier works with: its heap's.
pub(crate) struct Means<'a> {
    pub(crate) id: HeapId,
    pub(crate) backing: &'a dyn Backing,
    pub(crate) threshold: &'a ContentionThreshold,
    guards: &'a Guards,
    pub(crate) decay_millis: u32,
    pub(crate) huge_pages: HugePages,
}

const MAX_DECAY: u32 = i32::MAX as u32;

impl std::fmt::Debug for Heap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heap").field("name", &self.name).finish_non_exhaustive()
    }
}
