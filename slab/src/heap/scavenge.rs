//! Scavenging: memory comes back from shards whose threads sleep or are gone.
//!
//! Owns the pass over parked and idle shards. Protocol: a shard is claimed (its thread, should it
//! wake, uses the bucket tier meanwhile), drained, and let go. One that has rested for the decay time
//! is also *relieved*: of its empty slabs and of the pages of partly used ones that hold free blocks
//! only; if it is idle, its partly used slabs go to the buckets, where active shards take them
//! before fresh ones. A shard relieved once in a rest is left alone until somebody frees into it.
//! Then the pool decays, and the large space.

use std::ptr::NonNull;

use super::Heap;
use super::fallback::DECAY_ROUNDS;
use super::pool::DecayLimit;
use crate::layout::{Block, Slab};
use crate::os::{self, debug_check};
use crate::shard::Shard;
use crate::shard::lease::{LeaseWord, Take};
use crate::stats::ScavengeReport;

/// How many ranges of partly used slabs may be purged, and what came of it.
#[derive(Debug)]
pub(crate) struct RangeBudget {
    left: usize,
    /// Whether a range was left alone for want of budget.
    pub(crate) spent: bool,
    /// Bytes that the backing refused to purge.
    pub(crate) refused_bytes: u64,
}

impl RangeBudget {
    pub(crate) fn of(ranges: usize) -> Self {
        Self { left: ranges, spent: false, refused_bytes: 0 }
    }

    /// Runs a purge if the budget has one left; returns whether the range was purged.
    fn run(&mut self, bytes: usize, purge: impl FnOnce() -> bool) -> bool {
        if self.left == 0 {
            self.spent = true;
            return false;
        }
        self.left -= 1;
        let done = purge();
        if !done {
            self.refused_bytes += bytes as u64;
        }
        done
    }
}

/// What a pass gave back and met, beyond what its report says.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    pub(crate) report: ScavengeReport,
    /// Bytes of free slices.
    pub(crate) slab_bytes: u64,
    /// Bytes within partly used slabs.
    pub(crate) part_bytes: u64,
    /// Bytes of free ranges of the large space.
    pub(crate) large_bytes: u64,
    /// Populated bytes of segments that were unmapped.
    pub(crate) segment_bytes: u64,
    /// Bytes that the backing refused to purge.
    pub(crate) refused_bytes: u64,
    /// Shards that another scavenger had.
    pub(crate) shards_contested: usize,
}

impl Heap {
    /// Claims parked and idle shards, drains their inboxes, returns their empty slabs, and gives
    /// free pages older than the decay back to the operating system, but for the
    /// [retain budget](Self::set_retain).
    ///
    /// Never blocks but for short locks and the system calls that give pages back; by itself it
    /// allocates nothing.
    /// Several threads may scavenge at once.
    ///
    /// If the heap has a [domain](Self::domain) it is maintained first: stalled guards are reported, and
    /// retired blocks that no guard keeps are freed. That may allocate, inside crossbeam-epoch.
    pub fn scavenge(&self) -> ScavengeReport {
        if let Some(domain) = self.domain_if_any() {
            domain.maintain();
        }
        self.scavenge_with(self.unbounded_decay()).report
    }

    pub(crate) fn scavenge_with(&self, limit: DecayLimit) -> Pass {
        let mut pass = Pass::default();
        let mut budget = RangeBudget::of(usize::MAX);
        let mut buckets_purged = false;
        for shard in self.shards.iter() {
            if shard.lease.try_claim() != Take::Taken {
                match shard.lease.word() {
                    LeaseWord::CLAIMED | LeaseWord::CLAIMED_HOMED => pass.shards_contested += 1,
                    _ => pass.report.shards_leased += 1,
                }
                continue;
            }
            shard.counters.claims.add(1);
            pass.report.shards_claimed += 1;
            // SAFETY: claimed.
            unsafe {
                if !std::mem::replace(&mut buckets_purged, true) {
                    let age = limit.age_millis;
                    pass.part_bytes += self.purge_rested_buckets(shard, age, &mut budget);
                }
                self.post_outbox(shard);
                let drained = self.drain(shard);
                pass.report.blocks_drained += drained;
                if drained > 0 {
                    shard.forget_purge();
                }
                if shard.resting_millis() >= limit.age_millis {
                    self.relieve(shard, &mut budget, &mut pass);
                }
            }
            shard.lease.unclaim();
        }
        // A bucket keeps one empty slab per class against the next request; not for long.
        for class in 0..self.table.len() {
            if let Some(slab) = self.buckets[class].take_empty(&self.threshold) {
                // SAFETY: the bucket gave the slab up.
                unsafe { self.give_slab(slab) };
                pass.report.slabs_returned += 1;
            }
        }
        let decayed = self.pool.decay(limit, self.backing, &self.threshold);
        let large = self.fallback.decay(limit.age_millis, DECAY_ROUNDS, &self.means());
        pass.slab_bytes = decayed.slab_bytes;
        pass.large_bytes = large.bytes;
        pass.segment_bytes = decayed.segment_bytes;
        pass.refused_bytes = decayed.refused_bytes + large.refused_bytes + budget.refused_bytes;
        pass.report.bytes_purged =
            pass.slab_bytes + pass.part_bytes + pass.segment_bytes + pass.large_bytes;
        pass.report.segments_unmapped = decayed.segments;
        pass
    }

    /// Relieves one shard that has rested for an age and was not relieved since, if there is one, as
    /// far as the budget goes. Returns whether there is more to do.
    pub(crate) fn relieve_one(&self, age_millis: u32, budget: &mut RangeBudget) -> bool {
        let waits = |shard: &&Shard| {
            let sleeps = matches!(shard.lease.word(), LeaseWord::IDLE | LeaseWord::PARKED);
            sleeps && !shard.purged_in_this_rest() && shard.resting_millis() >= age_millis
        };
        let mut waiting = self.shards.iter().filter(waits);
        let Some(shard) = waiting.find(|shard| shard.lease.try_claim() == Take::Taken) else {
            return false;
        };
        shard.counters.claims.add(1);
        // SAFETY: claimed.
        unsafe {
            self.post_outbox(shard);
            self.drain(shard);
            self.relieve(shard, budget, &mut Pass::default());
        }
        shard.lease.unclaim();
        budget.spent || waiting.next().is_some()
    }

    /// Takes from a resting shard what it does not need: empty slabs, the pages of free blocks, and
    /// if no thread waits for it, partly used slabs.
    ///
    /// # Safety
    /// The caller has claimed the shard.
    unsafe fn relieve(&self, shard: &Shard, budget: &mut RangeBudget, pass: &mut Pass) {
        let since = shard.resting_since.get();
        // SAFETY: by contract, for all calls below.
        unsafe {
            self.return_lent(shard);
            pass.report.slabs_returned += self.return_empty_slabs(shard, since);
            if !shard.purged_in_this_rest() {
                self.tell_all(shard);
                pass.part_bytes += self.purge_partial_slabs(shard, budget);
                if budget.spent {
                    return;
                }
                shard.note_purge();
            }
            if shard.lease.word() == LeaseWord::CLAIMED {
                self.share_partial_slabs(shard);
            }
        }
    }

    /// Gives the shard's slabs without blocks in use to the pool, unused since a moment in coarse
    /// milliseconds; returns how many.
    ///
    /// # Safety
    /// The caller has the shard.
    pub(crate) unsafe fn return_empty_slabs(&self, shard: &Shard, since: u32) -> u64 {
        let mut returned = 0;
        for class in 0..self.table.len() {
            // SAFETY: by contract; the shard gives the slab up.
            unsafe {
                while let Some(slab) = shard.take_empty(class) {
                    self.give_slab_unused_since(slab, since);
                    returned += 1;
                }
            }
        }
        returned
    }

    /// Gives back the pages of the shard's partly used slabs that hold free blocks only; returns the
    /// bytes.
    ///
    /// # Safety
    /// The caller has the shard.
    pub(crate) unsafe fn purge_partial_slabs(
        &self,
        shard: &Shard,
        budget: &mut RangeBudget,
    ) -> u64 {
        let mut bytes = 0;
        for class in 0..self.table.len() {
            // SAFETY: by contract.
            unsafe {
                shard.for_each_partial(class, |slab| {
                    bytes += self.purge_parts(slab, budget);
                });
            }
        }
        bytes
    }

    /// Gives back the pages of buckets' slabs that hold free blocks only, where nobody has taken or
    /// given a block for an age; returns the bytes. The slabs are the shard's meanwhile, because no
    /// lock is held over a system call.
    ///
    /// # Safety
    /// The caller has the shard, and drains its inbox afterwards.
    pub(crate) unsafe fn purge_rested_buckets(
        &self,
        shard: &Shard,
        age_millis: u32,
        budget: &mut RangeBudget,
    ) -> u64 {
        let now = os::coarse_millis();
        let mut bytes = 0;
        for (class, bucket) in self.buckets[..self.table.len()].iter().enumerate() {
            let rested = bucket.take_rested(shard.owner(), now, age_millis, &self.threshold);
            // SAFETY: by contract; the bucket's lock made the slabs the shard's, and in our list.
            unsafe {
                while let Some(slab) = rested.first().as_ref() {
                    debug_check!(slab.class.get() as usize == class, "a slab of another class");
                    rested.remove(slab);
                    bytes += self.purge_parts(slab, budget);
                    bucket.put_common(slab, &self.threshold);
                }
            }
        }
        bytes
    }

    /// # Safety
    /// The caller owns the slab.
    unsafe fn purge_parts(&self, slab: &Slab, budget: &mut RangeBudget) -> u64 {
        let purge = |start: Block, bytes: usize| {
            budget.run(bytes, || {
                // SAFETY: the range is a whole number of pages of a slab of ours, and holds free
                // blocks only.
                NonNull::new(start).is_some_and(|start| unsafe { self.backing.purge(start, bytes) })
            })
        };
        // SAFETY: by contract.
        unsafe { slab.purge_parts(self.key(), &self.purged_in_slabs, purge) }
    }

    /// Hands the shard's partly used slabs to the buckets.
    ///
    /// # Safety
    /// The caller has the shard.
    unsafe fn share_partial_slabs(&self, shard: &Shard) {
        for class in 0..self.table.len() {
            // SAFETY: by contract; the shard gives the slab up.
            unsafe {
                while let Some(slab) = shard.take_partial(class) {
                    self.buckets[class].put(&*slab, &self.threshold);
                }
            }
        }
    }
}
