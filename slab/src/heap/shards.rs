//! The list of a heap's shards: append-only, so that readers walk it without a lock.
//!
//! Owns the shards' memory, which comes from the backing and is kept as long as the heap.
//! Protocol: a new shard is linked before the head and then published by the head's release store,
//! under the list's lock; walkers load the head with acquire. Shards never leave the list.

use std::ptr::{self, NonNull};

use crate::counter::{Counter, SharedCounter};
use crate::layout::{LinkKey, MAX_CLASSES};
use crate::lock::{ContentionThreshold, CountedLock, Held};
use crate::os;
use crate::port::Backing;
use crate::shard::Shard;
use crate::shard::lease::{LeaseWord, Take};
use crate::stats::{LockSite, LockSnapshot};
use crate::sync::{AtomicPtr, Ordering, const_off_loom};

/// A heap's shards.
pub(crate) struct ShardList {
    head: AtomicPtr<Shard>,
    growth: CountedLock<()>,
    /// Shards made. Written under the lock.
    count: Counter,
    /// Bytes taken from the backing for shards. Written under the lock.
    bytes: Counter,
    limit: u32,
    /// Shards to be there from the start, which threads lease in turn; zero where they are made on
    /// demand.
    fixed: u32,
    /// Leases asked for so far, where they go in turn.
    turn: SharedCounter,
    /// Times that a thread was refused a shard.
    pub(crate) refusals: SharedCounter,
}

/// The list's lock, held.
pub(crate) type ShardsLock<'a> = Held<'a, ()>;

const _: () = assert!(align_of::<Shard>() <= 4096 && MAX_CLASSES < 256);

impl ShardList {
    const_off_loom! {
        pub(crate) fn new(limit: u32) -> Self {
            Self {
                head: AtomicPtr::new(ptr::null_mut()),
                growth: CountedLock::new(()),
                count: Counter::new(),
                bytes: Counter::new(),
                limit,
                fixed: 0,
                turn: SharedCounter::new(),
                refusals: SharedCounter::new(),
            }
        }
    }

    const_off_loom! {
        /// A list of a fixed number of shards, to be [filled](Self::fill).
        pub(crate) fn fixed(count: u32) -> Self {
            let mut list = Self::new(count);
            list.fixed = count;
            list
        }
    }

    /// Makes the fixed number of shards, or as many as there is memory for. They are idle.
    pub(crate) fn fill(
        &self,
        key: LinkKey,
        backing: &dyn Backing,
        threshold: &ContentionThreshold,
    ) {
        while let Some(shard) = self.grow(key, backing, threshold) {
            shard.lease.give_back();
        }
    }

    /// Shards of the fixed number that could not be made.
    pub(crate) fn missing(&self) -> usize {
        (self.fixed as usize).saturating_sub(self.len())
    }

    /// Gives all shards back.
    ///
    /// # Safety
    /// Nobody uses the heap any more.
    pub(crate) unsafe fn give_back(&self, backing: &dyn Backing) {
        let mut next = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        while let Some(shard) = NonNull::new(next) {
            // SAFETY: a shard is there until it is unmapped here, alone in its mapping.
            unsafe {
                next = shard.as_ref().next();
                backing.unmap(shard.cast(), Self::shard_bytes());
            }
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
        // In turn: the search starts at another shard each time.
        let skipped = match self.fixed {
            0 => 0,
            fixed => (self.turn.add_wrapping(1) % u64::from(fixed)) as usize,
        };
        let mut in_turn = self.iter().skip(skipped).chain(self.iter().take(skipped));
        let shard = match in_turn.find(take) {
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
            // SAFETY: shards live as long as their heap, which the caller borrows.
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

    /// The number of the shard that an owner word of this heap names.
    pub(crate) fn index_of(&self, address: usize) -> usize {
        let shard: *const Shard = ptr::with_exposed_provenance(address);
        // SAFETY: owner words name shards of their heap, which are never freed before it.
        unsafe { (*shard).index as usize }
    }

    pub(crate) fn lock_snapshot(&self) -> LockSnapshot {
        self.growth.snapshot(LockSite::Shards)
    }

    fn shard_bytes() -> usize {
        size_of::<Shard>().next_multiple_of(os::page_size())
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
        let bytes = Self::shard_bytes();
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
