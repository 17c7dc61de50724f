//! Allocation beyond the fast path: where a shard, or a thread without one, finds its next block.
//!
//! Owns the order of the search (requirement D2: a shard miss collects, then tries the shard again,
//! before it goes to the bucket): more of the current slab; the inbox, and then a partly used slab or the
//! reserve; the bucket; a fresh slab. Everything here is cold; none of it allocates
//! through the heap, panics, or waits but for the short locks of bucket and pool.

use std::alloc::Layout;
use std::ptr;

use super::Heap;
use super::fallback::DECAY_ROUNDS;
use crate::large::Place;
use crate::layout::{Block, GUARDED, Owner, SMALLEST, Slab};
use crate::os;
use crate::shard::Shard;

/// Shards that a heap has before they borrow.
const FEW_SHARDS: usize = 4;

impl Heap {
    /// A block of a class when the thread's current slab has none; null when there is no memory.
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_slow(&self, class: usize) -> Block {
        // SAFETY: the thread's shard or the sentinel, whose ready list was found empty.
        let block = unsafe { self.thread_shard().take_freed(class) };
        if !block.is_null() {
            return block;
        }
        match self.acquire() {
            // SAFETY: the thread has the lease.
            Some(shard) => unsafe { self.alloc_from(shard, class, &mut false) },
            None => self.alloc_from_bucket(class),
        }
    }

    /// A zeroed block of a class; null when there is no memory. `bytes` were asked for.
    ///
    /// A block that has a slab of its own and pages that nobody has written to is not written to
    /// here either: filling it would cost a fault per page, and memory that may never be needed.
    pub(crate) fn alloc_class_zeroed(&self, class: usize, bytes: usize) -> Block {
        if self.table.info(class).capacity > 1 {
            return fill(self.alloc_class(class), bytes);
        }
        // SAFETY: the thread's shard or the sentinel; the class is one of the table's.
        let block = unsafe { self.thread_shard().alloc_fast(class) };
        if !block.is_null() {
            return fill(block, bytes);
        }
        let mut clean = false;
        let block = match self.acquire() {
            // SAFETY: the thread has the lease.
            Some(shard) => unsafe { self.alloc_from(shard, class, &mut clean) },
            None => self.alloc_from_bucket(class),
        };
        // The free list's link was in its first words.
        fill(block, if clean { bytes.min(SMALLEST) } else { bytes })
    }

    /// A block above the largest class or with stricter alignment than slabs give; null when there
    /// is no memory.
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_fallback(&self, layout: Layout, place: Place) -> Block {
        super::fork::arm();
        self.counted(self.fallback.alloc(layout, place, &self.means()))
    }

    /// The same, zeroed.
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_fallback_zeroed(&self, layout: Layout) -> Block {
        super::fork::arm();
        self.counted(self.fallback.alloc_zeroed(layout, &self.means()))
    }

    fn counted(&self, block: Block) -> Block {
        if block.is_null() {
            self.failures.add(1);
        }
        self.tell_growth();
        block
    }

    /// A block of a class. `clean` is set if it is the first of a fresh slab that reads as zeros,
    /// but for the words of its link.
    ///
    /// # Safety
    /// The caller has the shard.
    unsafe fn alloc_from(&self, shard: &'static Shard, class: usize, clean: &mut bool) -> Block {
        // SAFETY: the caller has the shard, for all calls below.
        unsafe {
            // Taken back from a parked shard, the current slab may well have blocks.
            let block = shard.alloc_fast(class);
            if !block.is_null() {
                return block;
            }
            let block = shard.take_lent(class);
            if !block.is_null() {
                return block;
            }
            if shard.extend_ready(class, &self.purged_in_slabs) {
                return shard.alloc_fast(class);
            }
            shard.refills[class].count(1);
            self.note_in_use(class, Some(shard));
            let now = os::coarse_millis();
            if shard.outbox.is_old(now) {
                self.post_outbox(shard);
            }
            self.decay_on_the_way(now);
            self.trim_on_the_way(shard, class, now);
            // First, so that what others freed, of any class, waits for one slow path at most.
            self.drain(shard);
            if shard.next_current(class, &self.purged_in_slabs) {
                return shard.alloc_fast(class);
            }
            let block = self.borrow(shard, class);
            if !block.is_null() {
                self.tell_growth();
                return block;
            }
            if self.adopt_slab(shard, class, clean) {
                let block = shard.alloc_fast(class);
                // More slabs than before: the block just taken may be a peak by itself.
                self.note_in_use(class, Some(shard));
                self.tell_growth();
                return block;
            }
        }
        self.failures.add(1);
        ptr::null_mut()
    }

    /// A block of the class's common slab, and a few more for later, if the shard uses so little of
    /// the class that a slab of its own would waste most of a page; else null. With few shards, common
    /// slabs would cost about as many pages as they save.
    ///
    /// # Safety
    /// The caller has the shard, whose class has no slab and no lent block.
    unsafe fn borrow(&self, shard: &'static Shard, class: usize) -> Block {
        if self.shards.len() <= FEW_SHARDS {
            return ptr::null_mut();
        }
        let wanted = shard.blocks_to_borrow(class, self.table.info(class), os::page_size());
        let Some((most, grade)) = wanted else { return ptr::null_mut() };
        let bucket = &self.buckets[class];
        loop {
            if let Some(list) =
                bucket.lend(most, grade, self.key(), &self.purged_in_slabs, &self.threshold)
            {
                // SAFETY: by contract; the blocks are ours.
                unsafe {
                    shard.keep_lent(class, list);
                    return shard.take_lent(class);
                }
            }
            let Some((slab, _)) = self.take_fresh(class, Owner::COMMON.full()) else {
                return ptr::null_mut();
            };
            // SAFETY: as in `alloc_from_bucket`.
            unsafe { bucket.put_common(slab, &self.threshold) };
        }
    }

    /// Brings a slab from the bucket or the pool and makes it current.
    ///
    /// # Safety
    /// The caller has the shard, whose class has no current slab.
    unsafe fn adopt_slab(&self, shard: &'static Shard, class: usize, clean: &mut bool) -> bool {
        let owner = shard.owner();
        let slab = match self.buckets[class].take(owner, &self.threshold) {
            // SAFETY: what the bucket hands out under its lock is ours from then on (rule B1).
            Some(slab) => unsafe { &*slab },
            None => {
                let Some((fresh, zeros)) = self.take_fresh(class, owner) else { return false };
                *clean = zeros;
                fresh
            }
        };
        // SAFETY: by contract, and the slab names this shard.
        unsafe { shard.adopt(class, slab, &self.purged_in_slabs) };
        true
    }

    /// A fresh slab, and whether it reads as zeros. Address space may be short because of large
    /// blocks that are kept for reuse: these go before the answer is no.
    fn take_fresh(&self, class: usize, owner: Owner) -> Option<(&'static Slab, bool)> {
        let (info, means) = (self.table.info(class), self.means());
        let mut fresh = self.pool.take(class, info, owner, &means);
        if fresh.is_none() && self.fallback.decay(0, DECAY_ROUNDS, &means).bytes > 0 {
            fresh = self.pool.take(class, info, owner, &means);
        }
        if GUARDED && let Some((slab, _)) = fresh {
            // SAFETY: the slab is ours, and fresh.
            unsafe { self.guard_slab(slab) };
        }
        fresh
    }

    /// A block for a thread without a shard.
    fn alloc_from_bucket(&self, class: usize) -> Block {
        let bucket = &self.buckets[class];
        loop {
            let from_bucket = bucket.alloc(self.key(), &self.purged_in_slabs, &self.threshold);
            if from_bucket.filled {
                // Slabs that came from shards are filled without a miss.
                self.note_in_use(class, None);
            }
            if !from_bucket.block.is_null() {
                return from_bucket.block;
            }
            bucket.misses.add(1);
            self.note_in_use(class, None);
            let owner = Owner::BUCKET.full();
            let Some((slab, _)) = self.take_fresh(class, owner) else {
                self.failures.add(1);
                return ptr::null_mut();
            };
            // SAFETY: the fresh slab is ours; nobody else knows of it. Another thread may empty it
            // before we come back to the lock: then the loop brings one more.
            unsafe { bucket.put(slab, &self.threshold) };
        }
    }
}

/// Fills the first bytes of a block, if it is one, with zeros.
fn fill(block: Block, bytes: usize) -> Block {
    if !block.is_null() {
        // SAFETY: the callers have the block, and it holds as many bytes.
        unsafe { ptr::write_bytes(block, 0, bytes) };
    }
    block
}
