//! Purging on request: everything that can go back goes, and the report says what could not and why.
//!
//! Owns no state. Any thread may purge; nothing is asked of the threads that run. What they hold
//! (their shards' empty slabs, their outboxes, inboxes they have not looked into) is reported as
//! out of reach.

use super::Heap;
use super::pool::DecayLimit;
use super::scavenge::RangeBudget;
use crate::os;
use crate::shard::lease::LeaseWord;
use crate::stats::{PurgeReport, ReturnedBytes};

impl Heap {
    /// Scavenges, and gives every free page back whatever its age and the retain budget. The
    /// calling thread's own shard is flushed and relieved of its empty slabs and free pages first.
    ///
    /// Retired blocks that no guard keeps are freed before anything else, which may allocate; nothing
    /// else here does.
    ///
    /// The report tells what was given back, by kind, and what could not be reached and why. Waits for
    /// short locks and the system calls only. Any thread may call it.
    pub fn purge(&self) -> PurgeReport {
        if let Some(domain) = self.domain_if_any() {
            domain.maintain();
        }
        let mut slabs_returned = 0;
        let mut own_part_bytes = 0;
        let mut budget = RangeBudget::of(usize::MAX);
        let own = self.thread_shard();
        if !own.is_sentinel() {
            // SAFETY: the thread has the lease.
            unsafe {
                self.return_lent(own);
                own_part_bytes = self.purge_rested_buckets(own, 0, &mut budget);
                self.settle(own);
                slabs_returned += self.return_empty_slabs(own, os::coarse_millis());
                own_part_bytes += self.purge_partial_slabs(own, &mut budget);
            }
        }
        for class in 0..self.table.len() {
            while let Some(slab) = self.buckets[class].take_empty(&self.threshold) {
                // SAFETY: the bucket gave the slab up.
                unsafe { self.give_slab(slab) };
                slabs_returned += 1;
            }
        }
        let pass = self.scavenge_with(DecayLimit::all(0));
        let mut report = PurgeReport {
            scavenged: pass.report,
            returned: ReturnedBytes {
                slabs: pass.slab_bytes,
                parts: pass.part_bytes + own_part_bytes,
                large: pass.large_bytes,
                segments: pass.segment_bytes,
            },
            unreachable_shards: pass.report.shards_leased - usize::from(!own.is_sentinel()),
            contested_shards: pass.shards_contested,
            pinned_free_bytes: self.free_block_bytes().saturating_sub(self.purged_in_slabs.get()),
            refused_bytes: pass.refused_bytes + budget.refused_bytes,
            ..PurgeReport::default()
        };
        report.scavenged.slabs_returned += slabs_returned;
        report.scavenged.bytes_purged += own_part_bytes;
        self.look_at_what_is_held(&mut report);
        report
    }

    /// What is on its way or gathered in shards that could not be claimed.
    fn look_at_what_is_held(&self, report: &mut PurgeReport) {
        for shard in self.shards.iter() {
            if shard.lease.word() == LeaseWord::LEASED && !std::ptr::eq(shard, self.thread_shard())
            {
                report.outbox_bytes += shard.outbox.bytes();
            }
            if let Some(millis) = shard.inbox_millis() {
                report.pending_inboxes += 1;
                let nanos = u64::from(millis) * 1_000_000;
                report.oldest_inbox_nanos = report.oldest_inbox_nanos.max(nanos.max(1));
            }
        }
    }
}
