//! Free beyond the fast path: what is suspicious, unsharded, a bucket's or the fallback's; draining
//! and forwarding. Gathering and posting for other shards are in `remote`.
//!
//! Owns the routing of freed blocks. Protocol: a block goes to the owner that its slab's word names.
//! The word may be stale by the time a chain arrives; whoever drains it looks again and passes it on
//! (rule F1). A block on its way counts as in use, so its slab cannot become empty, move to the pool
//! or lose its segment meanwhile (rule S3).

use std::ptr;

use super::{Heap, freed_twice};
use crate::bucket::BucketFree;
use crate::layout::{
    Block, ChainWord, GUARDED, Kind, OwnerKind, Segment, SegmentMap, Slab, SlabPtr, slab_of,
    slice_of,
};
use crate::os::{self, fatal};
use crate::shard::lease::{LeaseWord, Take, Unpark};
use crate::shard::{Chain, Freed, Shard, owner_word};
use crate::sync::weakened;

impl Heap {
    /// Bytes that the block at `address` really holds, or `None` if it is not in this heap.
    ///
    /// Any address may be asked about at any time (requirement D5): nothing but the heap's own metadata is
    /// read, and that stays mapped meanwhile. For an address inside a block the answer is its block's size
    /// all the same, and so it is for a free block; inside a fallback block it is what follows the
    /// address. While other threads free the memory around it, the answer is of some moment.
    ///
    /// Keeping the metadata mapped costs two atomic additions on a word of the heap.
    /// [`usable_size_of`](Self::usable_size_of) needs none of that.
    pub fn usable_size(&self, address: *const u8) -> Option<usize> {
        if SegmentMap::kind(address.addr()) == Kind::Large(self.id) {
            return self.fallback.usable_size(address.addr(), &self.threshold);
        }
        let block_bytes = |segment: &Segment| {
            let first = segment.table.first[slice_of(address.addr())].glance() as usize;
            let class = segment.table.class(first);
            (first != 0).then(|| self.table.info(class).block_bytes as usize)
        };
        self.pool.look_at(address, self.id, block_bytes, self.backing, &self.threshold).flatten()
    }

    /// Bytes that the block around a value really holds, or `None` if it is not in this heap.
    ///
    /// As [`usable_size`](Self::usable_size) at a few loads' cost: the borrow keeps the block in use. Of a
    /// value of no bytes nothing is known, for it has no place in memory.
    ///
    /// ```
    /// # #[global_allocator]
    /// # static ALLOCATOR: flagstone_slab::Flagstone = flagstone_slab::Flagstone::new();
    /// let heap = flagstone_slab::Heap::global();
    /// assert_eq!(heap.usable_size_of(&*Box::new([0u8; 33])), Some(40));
    /// assert_eq!(heap.usable_size_of("a constant"), None);
    /// assert_eq!(heap.usable_size_of(&()), None);
    /// ```
    pub fn usable_size_of<T: ?Sized>(&self, value: &T) -> Option<usize> {
        if size_of_val(value) == 0 {
            return None;
        }
        // SAFETY: a value of some bytes that is borrowed lies in a block in use, if it lies in the heap.
        unsafe { self.usable_size_in_use(ptr::from_ref(value).cast()) }
    }

    /// Bytes that a block really holds, or `None` if it is not in this heap.
    ///
    /// # Safety
    /// If the address lies in this heap, it lies in a block in use, which nobody frees meanwhile.
    pub(crate) unsafe fn usable_size_in_use(&self, address: *const u8) -> Option<usize> {
        match SegmentMap::kind(address.addr()) {
            Kind::Segment(id) if id == self.id => {
                // SAFETY: by contract. What is in no slab after all has the head's word, of nobody.
                unsafe {
                    let slab = slab_of(address.cast_mut());
                    let in_use = owner_word(slab).get().kind() != OwnerKind::None;
                    in_use.then(|| slab.block_bytes.get() as usize)
                }
            }
            Kind::Large(id) if id == self.id => {
                self.fallback.usable_size(address.addr(), &self.threshold)
            }
            _ => None,
        }
    }

    /// Bytes that a block in use counts for in the statistics, or `None` if it is not in this heap: its
    /// class's block size, or what was requested of the fallback.
    ///
    /// # Safety
    /// As [`usable_size_in_use`](Self::usable_size_in_use).
    pub(crate) unsafe fn accounted_size(&self, block: *const u8) -> Option<usize> {
        match SegmentMap::kind(block.addr()) {
            Kind::Large(id) if id == self.id => {
                self.fallback.requested_size(block.addr(), &self.threshold)
            }
            // SAFETY: by contract.
            _ => unsafe { self.usable_size_in_use(block) },
        }
    }

    /// Frees a block that the fast path turned away.
    ///
    /// # Safety
    /// The caller gives up `block`, which came from this heap's allocation functions.
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn free_slow(&self, block: Block) {
        // SAFETY: by contract, checked as far as it can be.
        unsafe {
            let Some(slab) = self.slab_of_block(block) else {
                return self.fallback.free(block, &self.means());
            };
            slab.wipe(block);
            let Some(shard) = self.acquire() else {
                let chain = Chain::marked(slab, self.key(), block);
                self.unsharded_posts.add(1);
                if let Some(owner) = self.route(None, chain) {
                    self.visit_sleeper(owner);
                }
                return;
            };
            if owner_word(slab).get() == shard.owner() {
                return self.take_back(shard, &Chain::single(slab, block));
            }
            if owner_word(slab).get().is_common() {
                return self.post_chain(shard, Chain::marked(slab, shard.key(), block));
            }
            // The checks above have looked at the block: to mark it costs no more.
            self.free_to::<true>(shard, slab, slab.class.get() as usize, block);
        }
    }

    /// A fast free brought back as many blocks of a slab as were needed.
    ///
    /// # Safety
    /// The caller has the thread's shard, whose slab it is.
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn look_at(&self, shard: &'static Shard, slab: SlabPtr) {
        // SAFETY: by contract.
        unsafe {
            if let Some(slab) = shard.look_at(slab) {
                self.give_slab(slab);
            }
        }
    }

    /// The slab of a block of this heap, or `None` for a fallback block.
    ///
    /// Aborts when the address is not one of this heap's.
    ///
    /// # Safety
    /// If `block` is this heap's, it is in use.
    unsafe fn slab_of_block(&self, block: Block) -> Option<&'static Slab> {
        match SegmentMap::kind(block.addr()) {
            Kind::Segment(id) if id == self.id => {
                if SegmentMap::recent(block.addr()).is_none() {
                    SegmentMap::note_recent(block.addr());
                }
                // SAFETY: as above, and the block is in use.
                let slab = unsafe { slab_of(block) };
                if owner_word(slab).get().kind() == OwnerKind::None {
                    fatal(format_args!("free of {block:p}, which is in no slab in use"));
                }
                // SAFETY: the slab is in use, and the block is given up.
                unsafe { self.check_free(slab, block) };
                Some(slab)
            }
            Kind::Large(id) if id == self.id => None,
            Kind::Foreign => {
                fatal(format_args!("free of {block:p}, which no Flagstone heap handed out"))
            }
            Kind::Segment(id) | Kind::Large(id) => self.fatal_foreign(block, id),
        }
    }

    /// Whether a block in use of this heap is a fallback block.
    pub(super) fn is_fallback(&self, block: Block) -> bool {
        SegmentMap::kind(block.addr()) == Kind::Large(self.id)
    }

    /// Frees a block, whatever it is.
    ///
    /// # Safety
    /// The caller gives up `block`, a block in use of this heap.
    #[inline]
    pub(super) unsafe fn free_any(&self, block: Block) {
        let shard = self.thread_shard();
        // SAFETY: by contract.
        unsafe {
            match shard.free_fast::<true>(block) {
                Freed::Done => {}
                Freed::Look(slab) => self.look_at(shard, slab),
                Freed::Elsewhere => self.free_elsewhere::<true>(shard, block),
            }
        }
    }

    /// Takes back a chain of the thread's own shard.
    ///
    /// # Safety
    /// The caller has the shard and owns the chain, of a slab of this shard.
    pub(super) unsafe fn take_back(&self, shard: &Shard, chain: &Chain) {
        // SAFETY: by contract.
        unsafe {
            if let Some(slab) = shard.take_back(chain) {
                self.give_slab(slab);
            }
        }
    }

    /// Brings a chain to the owner of its slab. `shard` is what the caller has, if anything.
    /// Returns the shard into whose inbox the chain went, if it went there.
    ///
    /// # Safety
    /// The caller owns the chain and has `shard`.
    pub(super) unsafe fn route(
        &self,
        shard: Option<&Shard>,
        chain: Chain,
    ) -> Option<&'static Shard> {
        loop {
            // SAFETY: the chain's blocks keep the slab in use.
            let slab = unsafe { &*chain.slab };
            match owner_word(slab).get().kind() {
                OwnerKind::Shard(address) => {
                    let owner: *const Shard = std::ptr::with_exposed_provenance(address);
                    // SAFETY: shards are never freed before their heap; the chain is ours to give.
                    unsafe {
                        if let Some(own) = shard
                            && std::ptr::eq(own, owner)
                        {
                            self.count_direct(&chain);
                            self.take_back(own, &chain);
                            return None;
                        }
                        if (*owner).lease.word() == LeaseWord::ORPHANED {
                            self.adopt_orphan(slab, &*owner);
                            continue;
                        }
                        (*owner).post(chain.head, chain.word());
                        return Some(&*owner);
                    }
                }
                OwnerKind::Bucket => {
                    let class = slab.class.get() as usize;
                    let bucket = &self.buckets[class];
                    // SAFETY: the chain is ours and its slab of the bucket's class.
                    match unsafe { bucket.free(&chain, self.key(), &self.threshold) } {
                        BucketFree::Done => {
                            self.count_direct(&chain);
                            return None;
                        }
                        BucketFree::Emptied(slab) => {
                            self.count_direct(&chain);
                            // SAFETY: the bucket gave the slab up.
                            unsafe { self.give_slab(slab) };
                            return None;
                        }
                        BucketFree::Moved => {}
                    }
                }
                OwnerKind::None => {
                    let block = chain.head.block();
                    fatal(format_args!("free of {block:p}, which is in no slab in use"))
                }
            }
        }
    }

    /// Moves a slab of an orphaned shard to its class's bucket (rule K1).
    ///
    /// # Safety
    /// A block of the slab is the caller's, and the shard is orphaned.
    #[cold]
    unsafe fn adopt_orphan(&self, slab: &Slab, owner: &Shard) {
        let bucket = &self.buckets[slab.class.get() as usize];
        let (owner, purged) = (owner.owner(), &self.purged_in_slabs);
        // SAFETY: by contract.
        unsafe { bucket.adopt_orphan(slab, owner, purged, &self.threshold) };
    }

    fn count_direct(&self, chain: &Chain) {
        self.direct_blocks.add(u64::from(chain.count));
        self.direct_batches.add(1);
    }

    /// Takes back what others posted to the shard; returns the number of blocks, wherever they
    /// went.
    ///
    /// # Safety
    /// The caller has the shard.
    pub(crate) unsafe fn drain(&self, shard: &Shard) -> u64 {
        // SAFETY: by contract.
        unsafe { self.drain_telling(shard, |owner| self.visit_sleeper(owner)) }
    }

    /// Drains, and tells of each shard that a chain was passed on to.
    ///
    /// # Safety
    /// As [`drain`](Self::drain).
    unsafe fn drain_telling(&self, shard: &Shard, passed_on: impl Fn(&Shard)) -> u64 {
        let mut blocks = 0;
        let mut head = shard.inbox.0.take();
        while !head.is_none() {
            let (key, block) = (shard.key(), head.block());
            // SAFETY: what the swap took is ours alone; every posted chain carries its word.
            unsafe {
                // A head has a mark or a chain's word and no link, unless it came before and was linked.
                if key.looks_free(block)
                    && !key.is_marked(block)
                    && slab_of(block).is_linked(key, block)
                {
                    freed_twice(slab_of(block), block);
                }
                let word = ChainWord::read(head);
                let next = word.next_chain();
                let chain = Chain::posted(head, word);
                let slab = &*chain.slab;
                blocks += u64::from(chain.count);
                let ours = owner_word(slab).get() == shard.owner();
                if ours || weakened("drain_not_asked") {
                    let count = u64::from(chain.count);
                    shard.counters.drained_blocks.count(count);
                    shard.counters.drained_batches.count(1);
                    shard.remote_frees[slab.class.get() as usize].count(count);
                    self.take_back(shard, &chain);
                } else {
                    shard.counters.forwarded_batches.count(1);
                    if let Some(owner) = self.route(Some(shard), chain) {
                        passed_on(owner);
                    }
                }
                head = next;
            }
        }
        blocks
    }

    /// Posts and drains: nothing of anybody's waits in the shard afterwards.
    pub(crate) fn settle(&self, shard: &Shard) {
        // SAFETY: the callers have the shard: a thread its own, the scavenger one it claimed.
        unsafe {
            self.post_outbox(shard);
            self.drain(shard);
        }
    }

    /// The same for a shard that the calling thread has parked, and which stays parked. Whoever has
    /// claimed it just now drains it as well.
    #[cold]
    pub(crate) fn settle_parked(&self, shard: &Shard) {
        if shard.lease.try_unpark() == Unpark::Taken {
            self.settle(shard);
            shard.lease.park();
        }
    }

    /// Gives the blocks back that buckets lent to the shard and it did not use.
    ///
    /// # Safety
    /// The caller has the shard.
    pub(crate) unsafe fn return_lent(&self, shard: &Shard) {
        for class in 0..self.table.len() {
            // SAFETY: by contract; what comes out of the shard is ours.
            unsafe {
                let Some(list) = shard.take_all_lent(class) else { continue };
                shard.untake_lent(class, list.len());
                match self.buckets[class].unlend(list, self.key(), &self.threshold) {
                    BucketFree::Done => {}
                    BucketFree::Emptied(slab) => self.give_slab(slab),
                    // A shard took the slab over: to it, these are blocks that somebody frees.
                    BucketFree::Moved => {
                        shard.use_lent(class, list.len());
                        self.post_list(shard, list);
                    }
                }
            }
        }
    }

    /// Gives a slab that left a shard empty to the pool.
    ///
    /// # Safety
    /// The caller owns the slab, which is empty and in no list.
    pub(crate) unsafe fn give_slab(&self, slab: SlabPtr) {
        // SAFETY: by contract.
        unsafe { self.give_slab_unused_since(slab, os::coarse_millis()) }
    }

    /// The same for a slab that nobody has touched since an earlier moment, in coarse milliseconds:
    /// its decay began then.
    ///
    /// # Safety
    /// As [`give_slab`](Self::give_slab).
    pub(crate) unsafe fn give_slab_unused_since(&self, slab: SlabPtr, since: u32) {
        // SAFETY: by contract.
        unsafe { self.put_into_pool(slab, since) };
        self.decay_on_the_way(os::coarse_millis());
    }

    /// The same, and no decay is due because of it: for whoever gives several slabs.
    ///
    /// # Safety
    /// As [`give_slab`](Self::give_slab).
    pub(crate) unsafe fn put_into_pool(&self, slab: SlabPtr, since: u32) {
        // SAFETY: by contract.
        unsafe {
            let purged = (*slab).purged_bytes();
            if purged > 0 {
                self.purged_in_slabs.sub(purged);
            }
            if GUARDED && !self.unguard_slab(&*slab) {
                // An empty slab in use, for good: rather than one that cannot be written to.
                return;
            }
            self.pool.give(&*slab, since, &self.threshold);
        }
    }

    /// Takes back what was posted to a shard that nobody will look at soon: an idle one, or one
    /// parked for longer than the decay. So frees reach their slabs without a scavenger too.
    ///
    /// A shard parked just now is left alone: its thread, waking while it is claimed, would have to
    /// use the bucket tier.
    pub(super) fn visit_sleeper(&self, shard: &Shard) {
        let sleeps = match shard.lease.word() {
            LeaseWord::IDLE => true,
            LeaseWord::PARKED => shard.resting_millis() > self.decay_millis(),
            _ => false,
        };
        if sleeps && shard.lease.try_claim() == Take::Taken {
            shard.counters.claims.add(1);
            // What is passed on from here waits for its owner: visiting on and on would take as
            // much stack as there are shards.
            // SAFETY: claimed.
            if unsafe { self.drain_telling(shard, |_| ()) } > 0 {
                shard.forget_purge();
            }
            shard.lease.unclaim();
        }
    }
}
