//! Scavenging: memory comes back from shards whose threads sleep or are gone.
//!
//! Owns the pass over parked and idle shards. Protocol: a shard is claimed (its thread, should it
//! wake, uses the bucket tier meanwhile), drained, and let go. One that has rested for the decay time
//! is also relieved of its empty slabs and of the pages of partly used ones that hold free blocks
//! only; if it is idle, its partly used slabs go to the buckets, where active shards take them
//! before fresh ones. Then the pool decays.

use std::ptr::NonNull;

use super::{Heap, local};
use crate::layout::Block;
use crate::os;
use crate::shard::Shard;
use crate::shard::lease::{LeaseWord, Take};
use crate::stats::{PurgeReport, ScavengeReport};

impl Heap {
    /// Claims parked and idle shards, drains their inboxes, returns their empty slabs, and gives
    /// free pages older than the decay back to the operating system.
    ///
    /// Never blocks but for short locks and the system calls that give pages back; never allocates.
    /// Several threads may scavenge at once.
    pub fn scavenge(&self) -> ScavengeReport {
        self.scavenge_with(self.decay_millis())
    }

    /// Scavenges, and gives every free page back whatever its age. The calling thread's own shard
    /// is flushed and relieved of its empty slabs first.
    ///
    /// The report tells what was given back and what could not be reached: shards that running
    /// threads hold, and free blocks in slabs that still hold live ones.
    pub fn purge(&self) -> PurgeReport {
        let mut slabs_returned = 0;
        let own = local::shard();
        if !own.is_sentinel() {
            self.settle(own);
            // SAFETY: the thread has the lease.
            slabs_returned += unsafe { self.return_empty_slabs(own, os::coarse_millis()) };
        }
        for class in 0..self.table.len() {
            while let Some(slab) = self.buckets[class].take_empty(&self.threshold) {
                // SAFETY: the bucket gave the slab up.
                unsafe { self.give_slab(slab) };
                slabs_returned += 1;
            }
        }
        let mut scavenged = self.scavenge_with(0);
        scavenged.slabs_returned += slabs_returned;
        let own_shards = usize::from(!own.is_sentinel());
        PurgeReport {
            unreachable_shards: scavenged.shards_leased.saturating_sub(own_shards),
            pinned_free_bytes: self.free_block_bytes(),
            scavenged,
        }
    }

    fn scavenge_with(&self, age_millis: u32) -> ScavengeReport {
        let mut report = ScavengeReport::default();
        for shard in self.shards.iter() {
            if shard.lease.try_claim() != Take::Taken {
                report.shards_leased += 1;
                continue;
            }
            shard.counters.claims.add(1);
            report.shards_claimed += 1;
            // SAFETY: claimed.
            unsafe {
                self.post_outbox(shard);
                let drained = self.drain(shard);
                report.blocks_drained += drained;
                if shard.resting_millis() >= age_millis {
                    let since = shard.resting_since.get();
                    report.slabs_returned += self.return_empty_slabs(shard, since);
                    if drained > 0 || !shard.purged_in_this_rest() {
                        self.tell_all(shard);
                        report.bytes_purged += self.purge_partial_slabs(shard);
                    }
                    if shard.lease.word() == LeaseWord::CLAIMED {
                        self.share_partial_slabs(shard);
                    }
                }
            }
            shard.lease.unclaim();
        }
        // A bucket keeps one empty slab per class against the next request; not for long.
        for class in 0..self.table.len() {
            if let Some(slab) = self.buckets[class].take_empty(&self.threshold) {
                // SAFETY: the bucket gave the slab up.
                unsafe { self.give_slab(slab) };
                report.slabs_returned += 1;
            }
        }
        let decayed = self.pool.decay(age_millis, self.backing, &self.threshold);
        report.bytes_purged += decayed.bytes;
        report.segments_unmapped = decayed.segments;
        report
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
    unsafe fn purge_partial_slabs(&self, shard: &Shard) -> u64 {
        let mut bytes = 0;
        let purge = |start: Block, bytes| {
            // SAFETY: the range is a whole number of pages of a slab of the shard's, and holds free
            // blocks only.
            NonNull::new(start).is_some_and(|start| unsafe { self.backing.purge(start, bytes) })
        };
        for class in 0..self.table.len() {
            // SAFETY: by contract.
            unsafe {
                shard.for_each_partial(class, |slab| {
                    bytes += slab.purge_parts(shard.key(), &self.purged_in_slabs, purge);
                });
            }
        }
        shard.note_purge();
        bytes
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
