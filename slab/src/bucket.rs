//! Buckets: per class, a lock and a list of slabs.
//!
//! Owns the lock-protected tier. It serves threads that have no shard (every shard leased, thread
//! ending, own shard claimed by the scavenger) and carries partly used slabs from long-idle shards to
//! active ones. Protocol (rule B1): a slab whose owner word says *bucket* belongs to the holder of its
//! class's bucket lock; whoever meets such a word asks the bucket, which looks at the word again
//! under its lock. Lock order: a bucket's lock is never held while another lock is taken.

use crate::counter::{Counter, SharedCounter, came_and_went};
use crate::layout::{Block, LinkKey, Owner, OwnerKind, Slab, SlabList, SlabPtr};
use crate::lock::{ContentionThreshold, CountedLock, Held};
use crate::os::debug_check;
use crate::shard::{Chain, owner_word};
use crate::stats::{LockSite, LockSnapshot};

/// The bucket of one class.
pub(crate) struct Bucket {
    slabs: CountedLock<BucketSlabs>,
    /// Blocks allocated here. Written under the lock.
    allocs: Counter,
    /// Blocks freed here. Written under the lock.
    frees: Counter,
    /// Times that a fresh slab was needed.
    pub(crate) misses: SharedCounter,
    /// Slabs in the list, so that shards in search of one need no lock to see that there is none.
    listed: Counter,
}

pub(crate) struct BucketSlabs {
    /// Slabs with free blocks. Full ones are in no list and marked in their owner word.
    partial: SlabList,
}

// SAFETY: the raw pointers name slabs that the lock's holder owns (rule B1).
unsafe impl Send for BucketSlabs {}

/// The bucket's lock, held.
pub(crate) type BucketLock<'a> = Held<'a, BucketSlabs>;

/// What a bucket gave.
pub(crate) struct BucketAlloc {
    /// The block; null when no slab of the bucket has one.
    pub(crate) block: Block,
    /// Whether it was the last one of its slab: a moment to look for a peak.
    pub(crate) filled: bool,
}

/// What a bucket said to a free.
#[must_use]
pub(crate) enum BucketFree {
    /// Taken back.
    Done,
    /// Taken back; the slab became empty and leaves the bucket.
    Emptied(SlabPtr),
    /// The slab belongs to somebody else by now.
    Moved,
}

impl Bucket {
    pub(crate) const fn new() -> Self {
        Self {
            slabs: CountedLock::new(BucketSlabs { partial: SlabList::new() }),
            allocs: Counter::new(),
            frees: Counter::new(),
            misses: SharedCounter::new(),
            listed: Counter::new(),
        }
    }

    /// Allocates a block.
    pub(crate) fn alloc(
        &self,
        key: LinkKey,
        purged_bytes: &SharedCounter,
        threshold: &ContentionThreshold,
    ) -> BucketAlloc {
        let slabs = self.slabs.lock(threshold);
        // SAFETY: the lock makes the listed slabs ours (rule B1).
        unsafe {
            let Some(slab) = slabs.partial.first().as_ref() else {
                return BucketAlloc { block: std::ptr::null_mut(), filled: false };
            };
            let block = match slab.pop(key) {
                Some(block) => block,
                None => {
                    slab.link_more(key, purged_bytes);
                    slab.pop(key).unwrap_or(std::ptr::null_mut())
                }
            };
            debug_check!(!block.is_null(), "a bucket listed a slab without free blocks");
            let filled = slab.is_full();
            if filled {
                slabs.partial.remove(slab);
                self.listed.sub(1);
                owner_word(slab).set(Owner::BUCKET.full());
            }
            self.allocs.add(1);
            BucketAlloc { block, filled }
        }
    }

    /// Takes back a chain of blocks of a slab whose owner word said *bucket*.
    ///
    /// # Safety
    /// The caller owns the chain's blocks, of a slab of this bucket's class, and gives them up if
    /// they are taken.
    pub(crate) unsafe fn free(
        &self,
        chain: &Chain,
        key: LinkKey,
        threshold: &ContentionThreshold,
    ) -> BucketFree {
        let slabs = self.slabs.lock(threshold);
        // SAFETY: the blocks keep their slab in use; once the word says bucket under the lock the
        // slab is ours (rule B1).
        unsafe {
            let slab = &*chain.slab;
            let word = owner_word(slab);
            if word.get().kind() != OwnerKind::Bucket {
                return BucketFree::Moved;
            }
            let empty = slab.push_chain(key, chain.head, chain.tail, chain.count);
            self.frees.add(u64::from(chain.count));
            if word.get().is_full() {
                word.set(Owner::BUCKET);
                slabs.partial.push(slab);
                self.listed.add(1);
            }
            // The last listed slab stays, so that one block that comes and goes does not move a
            // slab each time.
            if empty && self.listed.get() > 1 {
                slabs.partial.remove(slab);
                self.listed.sub(1);
                return BucketFree::Emptied(slab);
            }
        }
        BucketFree::Done
    }

    /// Holds the lock without timing the hold: over a fork.
    pub(crate) fn hold(&self, threshold: &ContentionThreshold) -> BucketLock<'_> {
        self.slabs.lock(threshold).untimed()
    }

    /// Makes the bucket the owner of a slab whose shard was orphaned, if it still is the shard's:
    /// every block counts as out, and those that come back serve again (rule K1).
    ///
    /// # Safety
    /// A block of the slab is out; `owner` is the word of an orphaned shard, whose holder is gone.
    pub(crate) unsafe fn adopt_orphan(
        &self,
        slab: &Slab,
        owner: Owner,
        purged_bytes: &SharedCounter,
        threshold: &ContentionThreshold,
    ) {
        let _held = self.slabs.lock(threshold);
        let word = owner_word(slab);
        if word.get() != owner {
            return;
        }
        let purged = slab.forget_free_blocks();
        purged_bytes.sub(purged);
        word.set(Owner::BUCKET.full());
    }

    /// Puts a slab with free blocks into the bucket.
    ///
    /// # Safety
    /// The caller owns the slab, which is in no list, and gives it up.
    pub(crate) unsafe fn put(&self, slab: &Slab, threshold: &ContentionThreshold) {
        let slabs = self.slabs.lock(threshold);
        owner_word(slab).set(Owner::BUCKET);
        // SAFETY: by contract.
        unsafe { slabs.partial.push(slab) };
        self.listed.add(1);
    }

    /// Takes a slab with free blocks out for a shard, whose word it gets under the lock.
    pub(crate) fn take(&self, owner: Owner, threshold: &ContentionThreshold) -> Option<SlabPtr> {
        if self.listed.get() == 0 {
            return None;
        }
        let slabs = self.slabs.lock(threshold);
        // SAFETY: the lock makes the listed slabs ours (rule B1).
        unsafe {
            let slab = slabs.partial.first().as_ref()?;
            slabs.partial.remove(slab);
            self.listed.sub(1);
            owner_word(slab).set(owner);
            Some(slab)
        }
    }

    /// Takes out a slab without blocks in use, for a purge.
    pub(crate) fn take_empty(&self, threshold: &ContentionThreshold) -> Option<SlabPtr> {
        if self.listed.get() == 0 {
            return None;
        }
        let slabs = self.slabs.lock(threshold);
        let mut slab = slabs.partial.first();
        // SAFETY: the lock makes the listed slabs ours (rule B1).
        unsafe {
            while let Some(listed) = slab.as_ref() {
                if listed.out() == 0 {
                    slabs.partial.remove(listed);
                    self.listed.sub(1);
                    return Some(listed);
                }
                slab = slabs.partial.after(listed);
            }
        }
        None
    }

    /// Blocks allocated and taken back here so far. Any thread.
    pub(crate) fn counts(&self) -> (u64, u64) {
        came_and_went(&self.allocs, &self.frees)
    }

    /// Counters of the bucket's lock.
    pub(crate) fn lock_snapshot(&self, class: u16) -> LockSnapshot {
        self.slabs.snapshot(LockSite::Bucket(class))
    }
}
