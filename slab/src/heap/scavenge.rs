//! Scavenging: memory comes back from shards whose threads sleep or are gone.
//!
//! Owns the pass over parked and idle shards. Protocol: a shard is claimed (its thread, should it
//! wake, uses the bucket tier meanwhile), drained, relieved of its empty slabs, and let go. Shards
//! idle for longer than the decay also hand their partly used slabs to the buckets, where active
//! shards take them before fresh ones. Then the pool decays.

use super::{Heap, local};
use crate::layout::CLASSES;
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
            slabs_returned += unsafe { self.return_empty_slabs(own) };
        }
        for class in 0..CLASSES {
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
                report.blocks_drained += self.drain(shard);
                if shard.resting_millis() >= age_millis {
                    report.slabs_returned += self.return_empty_slabs(shard);
                    if shard.lease.word() == LeaseWord::CLAIMED {
                        self.share_partial_slabs(shard);
                    }
                }
            }
            shard.lease.unclaim();
        }
        let decayed = self.pool.decay(age_millis, self.backing, &self.threshold);
        report.bytes_purged = decayed.bytes;
        report.segments_unmapped = decayed.segments;
        self.scavenges.add(1);
        report
    }

    /// Gives the shard's slabs without blocks in use to the pool; returns how many.
    ///
    /// # Safety
    /// The caller has the shard.
    pub(crate) unsafe fn return_empty_slabs(&self, shard: &Shard) -> u64 {
        let mut returned = 0;
        for class in 0..CLASSES {
            // SAFETY: by contract; the shard gives the slab up.
            unsafe {
                while let Some(slab) = shard.take_empty(class) {
                    self.give_slab(slab);
                    returned += 1;
                }
            }
        }
        returned
    }

    /// Hands the shard's partly used slabs to the buckets.
    ///
    /// # Safety
    /// The caller has the shard.
    unsafe fn share_partial_slabs(&self, shard: &Shard) {
        for class in 0..CLASSES {
            // SAFETY: by contract; the shard gives the slab up.
            unsafe {
                while let Some(slab) = shard.take_partial(class) {
                    self.buckets[class].put(&*slab, &self.threshold);
                }
            }
        }
    }
}
