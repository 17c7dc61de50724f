//! The list of a heap's shards: append-only, so that readers walk it without a lock.
//!
//! Owns the shards' memory, which comes from the backing and is kept as long as the heap.
//! Protocol: a new shard is linked before the head and then published by the head's release store,
//! under the list's lock; walkers load the head with acquire. Shards never leave the list.

use std::ptr;

use crate::counter::{Counter, SharedCounter};
use crate::layout::{LinkKey, MAX_CLASSES};
use crate::lock::{ContentionThreshold, CountedLock, Held};
use crate::os;
use crate::port::Backing;
use crate::shard::Shard;
use crate::shard::lease::{LeaseWord, Take};
use crate::stats::{LockSite, LockSnapshot};
use crate::sync::{AtomicPtr, Ordering};

/// A heap's shards.
pub(crate) struct ShardList {
    head: AtomicPtr<Shard>,
    growth: CountedLock<()>,
    /// Shards made. Written under the lock.
    count: Counter,
    /// Bytes taken from the backing for shards. Written under the lock.
    bytes: Counter,
    limit: u32,
    /// Times that a thread was refused a shard.
    pub(crate) refusals: SharedCounter,
}

/// The list's lock, held.
pub(crate) type ShardsLock<'a> = Held<'a, ()>;

const _: () = assert!(align_of::<Shard>() <= 4096 && MAX_CLASSES < 256);

impl ShardList {
    pub(crate) const fn new(limit: u32) -> Self {
        Self {
            head: AtomicPtr::new(ptr::null_mut()),
            growth: CountedLock::new(()),
            count: Counter::new(),
            bytes: Counter::new(),
            limit,
            refusals: SharedCounter::new(),
        }
    }

    /// Leases a shard: an idle one with all its slabs, or a new one. `None` when all are taken and
    /// no more may be made, or there is no memory for one.
    pub(crate) fn lease(
        &self,
        key: LinkKey,
        backing: &dyn Backing,
        threshold: &ContentionThreshold,
    ) -> Option<&'static Shard> {
        // The look before the exchange leaves the lines of leased shards with their threads.
        let take = |shard: &&'static Shard| {
            shard.lease.word() == LeaseWord::IDLE && shard.lease.try_lease() == Take::Taken
        };
        let shard = match self.iter().find(take) {
            Some(shard) => shard,
            None => self.grow(key, backing, threshold).or_else(|| {
                self.refusals.add(1);
                None
            })?,
        };
        shard.counters.leases.add(1);
        Some(shard)
    }

    /// Holds the lock without timing the hold: over a fork.
    pub(crate) fn hold(&self, threshold: &ContentionThreshold) -> ShardsLock<'_> {
        self.growth.lock(threshold).untimed()
    }

    /// All shards, newest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'static Shard> {
        // Acquire pairs with the release in `grow`: a shard that we see is whole; one that we do
        // not see was published later.
        let mut at = self.head.load(Ordering::Acquire);
        std::iter::from_fn(move || {
            // SAFETY: shards live as long as their heap; the global heap lives for ever.
            let shard = unsafe { at.as_ref() }?;
            at = shard.next();
            Some(shard)
        })
    }

    /// Shards made so far.
    pub(crate) fn len(&self) -> usize {
        self.count.get() as usize
    }

    /// Bytes of the shards themselves.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    pub(crate) fn lock_snapshot(&self) -> LockSnapshot {
        self.growth.snapshot(LockSite::Shards)
    }

    #[cold]
    fn grow(
        &self,
        key: LinkKey,
        backing: &dyn Backing,
        threshold: &ContentionThreshold,
    ) -> Option<&'static Shard> {
        if self.count.get() >= u64::from(self.limit) {
            return None;
        }
        let page = os::page_size();
        let bytes = size_of::<Shard>().next_multiple_of(page);
        let start = backing.map(bytes, page.max(align_of::<Shard>()))?;
        let held = self.growth.lock(threshold);
        let index = self.count.get() as u32;
        if index >= self.limit {
            // No lock is held over a system call (rule L1).
            drop(held);
            // SAFETY: just mapped, nobody else knows of it.
            unsafe { backing.unmap(start, bytes) };
            return None;
        }
        let shard = start.cast::<Shard>().as_ptr();
        // SAFETY: the mapping is large and aligned enough and ours alone until published.
        let shard: &'static Shard = unsafe {
            shard.write(Shard::new(key, index));
            &*shard
        };
        shard.set_next(self.head.load(Ordering::Relaxed));
        self.head.store(ptr::from_ref(shard).cast_mut(), Ordering::Release);
        self.count.set(u64::from(index) + 1);
        self.bytes.add(bytes as u64);
        drop(held);
        Some(shard)
    }
}
