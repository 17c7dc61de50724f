//! Buckets: per class, a lock and a list of slabs.
//!
//! Owns the lock-protected tier. It serves threads that have no shard (every shard leased, thread
//! ending, own shard claimed by the scavenger) and carries partly used slabs from long-idle shards to
//! active ones. And it lends: a shard that uses less than a page of a class gets runs of a few blocks
//! of a *common* slab instead of a slab, and with it a page, of its own. So the first blocks of many
//! threads lie together: what lives long in a thread that allocates little pins a few bytes and not a
//! page per class. Protocol (rule B1): a slab whose owner word says *bucket* belongs to the holder of its
//! class's bucket lock; whoever meets such a word asks the bucket, which looks at the word again
//! under its lock. Lock order: a bucket's lock is never held while another lock is taken.

use std::ptr;

use crate::counter::{Counter, SharedCounter, came_and_went};
use crate::layout::{
    Block, LinkKey, List, Owner, OwnerKind, SMALLEST, Slab, SlabList, SlabPtr, open_block, slab_of,
};
use crate::lock::{ContentionThreshold, CountedLock, Held};
use crate::os::debug_check;
use crate::shard::{Chain, LEND_BYTES, owner_word};
use crate::stats::{LockSite, LockSnapshot};
use crate::sync::{Cell, const_off_loom, each, weakened};

/// The bucket of one class.
pub(crate) struct Bucket {
    slabs: CountedLock<BucketSlabs>,
    /// Blocks allocated here. Written under the lock.
    allocs: Counter,
    /// Blocks freed here. Written under the lock.
    frees: Counter,
    /// Times that a fresh slab was needed.
    pub(crate) misses: SharedCounter,
    /// Blocks lent to shards, which count them as theirs. Written under the lock.
    lent: Counter,
    /// Slabs in the list, so that shards in search of one need no lock to see that there is none.
    listed: Counter,
    /// Slabs that are open.
    opened: Counter,
}

pub(crate) struct BucketSlabs {
    /// The slabs that serve, or null: they have free blocks and are in no list, so that no shard takes
    /// them over. One for each [`Grade`].
    open: [Cell<SlabPtr>; GRADES],
    /// Other slabs with free blocks. Full ones are in no list and marked in their owner word.
    partial: SlabList,
    /// Whether anything happened lately.
    rest: Rest,
}

/// Which of its blocks a shard borrows, 0 for the very first: those of one grade lie together,
/// whichever shard has them, because the fewer a shard has had, the longer they tend to live.
pub(crate) type Grade = usize;

/// Most blocks lent at a time.
const MOST_LENT: usize = LEND_BYTES / SMALLEST;

/// Grades of lent blocks. Threads without a shard take theirs from the first.
pub(crate) const GRADES: Grade = 3;

/// When the bucket came to rest: nothing has been taken or given since.
struct Rest {
    /// Blocks that had moved until then.
    moves: Cell<u64>,
    /// In coarse milliseconds.
    since: Cell<u32>,
    /// Whether its slabs were purged in this rest.
    purged: Cell<bool>,
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
    const_off_loom! {
        pub(crate) fn new() -> Self {
            Self {
                slabs: CountedLock::new(BucketSlabs {
                    open: each![Cell::new(ptr::null()); GRADES],
                    partial: SlabList::new(),
                    rest: Rest { moves: Cell::new(0), since: Cell::new(0), purged: Cell::new(false) },
                }),
                allocs: Counter::new(),
                frees: Counter::new(),
                misses: SharedCounter::new(),
                lent: Counter::new(),
                listed: Counter::new(),
                opened: Counter::new(),
            }
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
        // SAFETY: the lock makes the bucket's slabs ours (rule B1).
        unsafe {
            let Some(slab) = self.open_slab(&slabs, 0) else {
                return BucketAlloc { block: ptr::null_mut(), filled: false };
            };
            let block = match slab.pop(key) {
                Some(block) => block,
                None => {
                    slab.link_free(key, purged_bytes);
                    slab.pop(key).unwrap_or(ptr::null_mut())
                }
            };
            debug_check!(!block.is_null(), "a bucket listed a slab without free blocks");
            open_block(block);
            self.allocs.count_after(1);
            BucketAlloc { block, filled: self.close_if_full(&slabs, 0, slab) }
        }
    }

    /// Lends up to `most` blocks of one slab; `None` when no slab of the bucket has one. They count
    /// as out of their slab, and for the borrower's statistics as free.
    pub(crate) fn lend(
        &self,
        most: u32,
        grade: Grade,
        key: LinkKey,
        purged_bytes: &SharedCounter,
        threshold: &ContentionThreshold,
    ) -> Option<List> {
        let slabs = self.slabs.lock(threshold);
        // SAFETY: the lock makes the bucket's slabs ours (rule B1).
        unsafe {
            let slab = self.open_slab(&slabs, grade)?;
            owner_word(slab).set(Owner::COMMON);
            if slab.free().is_empty() {
                slab.link_free(key, purged_bytes);
            }
            let mut blocks = [ptr::null_mut(); MOST_LENT];
            let mut count = 0;
            while count < MOST_LENT.min(most as usize)
                && let Some(block) = slab.pop(key)
            {
                blocks[count] = block;
                count += 1;
            }
            // From the last to the first, so that they are used in the order of their addresses.
            let mut list = List::EMPTY;
            for &block in blocks[..count].iter().rev() {
                key.set_rest(block, list);
                list = list.behind(block);
            }
            self.lent.add(count as u64);
            self.close_if_full(&slabs, grade, slab);
            Some(list)
        }
    }

    /// Takes lent blocks back that nobody used.
    ///
    /// # Safety
    /// The caller owns the blocks, lent by this bucket, and gives them up if they are taken.
    pub(crate) unsafe fn unlend(
        &self,
        list: List,
        key: LinkKey,
        threshold: &ContentionThreshold,
    ) -> BucketFree {
        // SAFETY: by contract; lent blocks are out of their slab, which is therefore in use.
        unsafe {
            let slab = slab_of(list.first());
            self.put_back(slab, threshold, || {
                slab.push_list(key, list);
                self.lent.sub(u64::from(list.len()));
            })
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
        // SAFETY: by contract; the blocks keep their slab in use.
        unsafe {
            let slab = &*chain.slab;
            self.put_back(slab, threshold, || {
                let _ = slab.push_chain(key, chain.head, chain.count);
                self.frees.count(u64::from(chain.count));
            })
        }
    }

    /// # Safety
    /// The caller has blocks of the slab, which `push` puts back.
    unsafe fn put_back(
        &self,
        slab: &'static Slab,
        threshold: &ContentionThreshold,
        push: impl FnOnce(),
    ) -> BucketFree {
        let slabs = self.slabs.lock(threshold);
        // SAFETY: by contract the slab is in use; once the word says bucket under the lock it is ours
        // (rule B1).
        unsafe {
            let word = owner_word(slab);
            let ours = word.get().kind() == OwnerKind::Bucket;
            if !ours && !weakened("bucket_not_asked") {
                return BucketFree::Moved;
            }
            push();
            if slabs.open.iter().any(|open| ptr::eq(open.get(), slab)) {
                return BucketFree::Done;
            }
            if word.get().is_full() {
                word.set(word.get().not_full());
                slabs.partial.push(slab);
                self.listed.add(1);
            }
            // The last slab stays, so that one block that comes and goes does not move a slab each
            // time.
            if slab.out() == 0 && self.listed.get() + self.opened.get() > 1 {
                slabs.partial.remove(slab);
                self.listed.sub(1);
                return BucketFree::Emptied(slab);
            }
        }
        BucketFree::Done
    }

    /// The slab that serves a grade: the open one, or else a listed one, which is opened.
    ///
    /// # Safety
    /// The caller holds the lock of `slabs`.
    unsafe fn open_slab(&self, slabs: &BucketSlabs, grade: Grade) -> Option<&'static Slab> {
        let open = &slabs.open[grade];
        // SAFETY: by contract; the slabs of a bucket are in use (rule B1).
        unsafe {
            if open.get().is_null() {
                let listed = slabs.partial.first();
                if listed.is_null() {
                    return None;
                }
                slabs.partial.remove(listed);
                self.listed.sub(1);
                open.set(listed);
                self.opened.add(1);
            }
            open.get().as_ref()
        }
    }

    /// Closes the open slab of a grade if its last block is out; returns whether it was.
    fn close_if_full(&self, slabs: &BucketSlabs, grade: Grade, slab: &Slab) -> bool {
        let filled = slab.is_full();
        if filled {
            slabs.open[grade].set(ptr::null());
            self.opened.sub(1);
            let word = owner_word(slab);
            word.set(word.get().full());
        }
        filled
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
        // SAFETY: by contract.
        unsafe { self.put_as(Owner::BUCKET, slab, threshold) }
    }

    /// The same for a slab whose blocks may have been lent.
    ///
    /// # Safety
    /// As [`put`](Self::put).
    pub(crate) unsafe fn put_common(&self, slab: &Slab, threshold: &ContentionThreshold) {
        // SAFETY: by contract.
        unsafe { self.put_as(Owner::COMMON, slab, threshold) }
    }

    /// # Safety
    /// As [`put`](Self::put).
    unsafe fn put_as(&self, word: Owner, slab: &Slab, threshold: &ContentionThreshold) {
        let slabs = self.slabs.lock(threshold);
        owner_word(slab).set(word);
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
        if self.is_bare() {
            return None;
        }
        let slabs = self.slabs.lock(threshold);
        // SAFETY: the lock makes the bucket's slabs ours (rule B1).
        unsafe {
            for open in &slabs.open {
                if let Some(slab) = open.get().as_ref()
                    && slab.out() == 0
                {
                    self.opened.sub(1);
                    return Some(open.replace(ptr::null()));
                }
            }
            let mut slab = slabs.partial.first();
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

    /// Whether the bucket has no slab with free blocks; advice.
    fn is_bare(&self) -> bool {
        self.listed.get() == 0 && self.opened.get() == 0
    }

    /// Takes out every slab of a bucket that has rested for an age and was not purged since, for the
    /// holder of a shard, whose word they get. They come
    /// back by [`put_common`](Self::put_common).
    ///
    /// A purge cannot hold the lock (rule L1). Blocks freed meanwhile go to that shard, which passes
    /// them on.
    pub(crate) fn take_rested(
        &self,
        owner: Owner,
        now: u32,
        age_millis: u32,
        threshold: &ContentionThreshold,
    ) -> SlabList {
        let taken = SlabList::new();
        if self.is_bare() {
            return taken;
        }
        let slabs = self.slabs.lock(threshold);
        let rest = &slabs.rest;
        let (allocs, frees) = (self.allocs.get(), self.frees.get());
        let moves = allocs.wrapping_add(frees).wrapping_add(self.lent.get());
        if moves != rest.moves.get() {
            rest.moves.set(moves);
            rest.since.set(now);
            rest.purged.set(false);
        }
        if rest.purged.get() || now.wrapping_sub(rest.since.get()) < age_millis {
            return taken;
        }
        rest.purged.set(true);
        // SAFETY: the lock makes the bucket's slabs ours (rule B1); from here on they are the
        // shard's, by their word.
        unsafe {
            for open in slabs.open.iter().map(|open| open.replace(ptr::null())) {
                if !open.is_null() {
                    self.opened.sub(1);
                    owner_word(&*open).set(owner);
                    taken.push(open);
                }
            }
            loop {
                let slab = slabs.partial.first();
                if slab.is_null() {
                    break;
                }
                slabs.partial.remove(slab);
                self.listed.sub(1);
                owner_word(&*slab).set(owner);
                taken.push(slab);
            }
        }
        taken
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
