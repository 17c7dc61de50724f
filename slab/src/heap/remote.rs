//! Frees for other shards: gathered, held by destination, posted.
//!
//! Owns the way from the fast path's "not mine" to the outbox, and what is posted when. It reads only
//! what any thread may (the slice table, the owner words) and the block, never the metadata of a
//! slab that another thread owns and writes.
//!
//! Where frees are checked (`CHECK`: those of the `malloc` interface and of instances, and all with the
//! feature `hardened`), the block is looked at and marked, so that a second free of it is found at once
//! (see `layout/chain.rs`). The others do not touch it.

use super::Heap;
use crate::layout::{
    Block, List, NAMED_BYTES, OwnerKind, SLICE_BYTES, Segment, SegmentMap, Slab, slab_of,
};
use crate::shard::lease::LeaseWord;
use crate::shard::{Chain, OUTBOX_BYTES, Pending, Shard, owner_word};

/// Blocks this large are posted at once: a slab each, of which nothing should wait.
const HOLD_MAX: u32 = SLICE_BYTES as u32;

impl Heap {
    /// Frees a block that the fast path turned away: mostly one of another shard. `CHECK` is the fast
    /// path's.
    ///
    /// # Safety
    /// The caller has `shard`, the thread's for this heap or the sentinel, and gives up `block`,
    /// which came from this heap's allocation functions.
    #[inline(never)]
    pub(crate) unsafe fn free_elsewhere<const CHECK: bool>(&self, shard: &Shard, block: Block) {
        if let Some((base, offset)) = SegmentMap::recent(block.addr())
            && !shard.is_sentinel()
        {
            // SAFETY:
            // 1. the table says that the segment's head may be read (rule M1);
            // 2. numbers in the table of first slices are those of slices;
            // 3. what is not sure to be a block in use of another shard of this heap goes to the
            //    slow path.
            unsafe {
                let segment = &*std::ptr::with_exposed_provenance::<Segment>(base);
                let first = segment.table.first[offset / SLICE_BYTES].get() as usize;
                let owner = segment.owners.of_first(first).get();
                if segment.table.heap() == self.id && owner.is_shard() && owner != shard.owner() {
                    let class = segment.table.class(first);
                    // Unchecked, its owner finds out whether it is free already: that would be a look at
                    // memory that nothing else here touches.
                    let info = self.table.info(class);
                    let place = (offset - first * SLICE_BYTES).wrapping_sub(info.lead());
                    let sound = info.starts_block(place);
                    if sound && !(CHECK && shard.key().looks_free(block)) {
                        let slab = &*(&raw const segment.slabs).cast::<Slab>().add(first);
                        slab.wipe(block);
                        return self.free_to::<CHECK>(shard, slab, class, block);
                    }
                }
            }
        }
        // SAFETY: by contract.
        unsafe { self.free_slow(block) }
    }

    /// Puts a block of a slab that was not this shard's a moment ago into the outbox, and posts what
    /// that makes due.
    ///
    /// # Safety
    /// The caller has the shard and owns `block`, a freed block of `slab`, of `class`.
    #[inline]
    pub(super) unsafe fn free_to<const CHECK: bool>(
        &self,
        shard: &Shard,
        slab: &Slab,
        class: usize,
        block: Block,
    ) {
        let info = self.table.info(class);
        // SAFETY: by contract.
        unsafe {
            if info.block_bytes > HOLD_MAX {
                let chain = match CHECK {
                    true => Chain::marked(slab, shard.key(), block),
                    false => Chain::single(slab, block),
                };
                return self.post_chain(shard, chain);
            }
            if CHECK {
                // Ours until its chain is posted: its owner does not know of it, so nobody links it, or
                // hands it out, while it is marked (rule F2).
                shard.key().mark(block);
            }
            let chained = info.slab_bytes() <= NAMED_BYTES;
            let bytes = info.block_bytes;
            if let Some(chain) = shard.outbox.gather::<CHECK>(slab, block, bytes, chained) {
                self.hold(shard, chain);
            }
            if shard.outbox.bytes() >= OUTBOX_BYTES {
                self.post_outbox(shard);
            }
        }
    }

    /// Posts everything the shard has gathered.
    ///
    /// # Safety
    /// The caller has the shard.
    pub(crate) unsafe fn post_outbox(&self, shard: &Shard) {
        // SAFETY: what comes out of the shard's outbox is ours.
        unsafe {
            shard.outbox.for_each_chain(|chain| self.hold(shard, chain));
            shard.outbox.for_each_pending(|pending| self.post_pending(shard, pending));
        }
    }

    /// Adds a chain to those of its destination.
    ///
    /// # Safety
    /// The caller has the shard, from whose outbox the chain came.
    #[inline(never)]
    unsafe fn hold(&self, shard: &Shard, chain: Chain) {
        // SAFETY: the chain's blocks keep their slab in use. Only its address is used.
        let owner = unsafe { owner_word(&*chain.slab).get() };
        if let OwnerKind::Shard(address) = owner.kind()
            && owner != shard.owner()
        {
            shard.counters.posted_blocks.count(u64::from(chain.count));
            shard.counters.posted_batches.count(1);
            let to: *const Shard = std::ptr::with_exposed_provenance(address);
            // SAFETY: by contract.
            unsafe {
                if let Some(out) = shard.outbox.hold(to, &chain) {
                    self.post_pending(shard, &out);
                }
            }
            return;
        }
        shard.outbox.forget(&chain);
        // SAFETY: by contract.
        unsafe { self.post_chain(shard, chain) };
    }

    /// # Safety
    /// The caller has the shard, from whose outbox the chains came, and owns them.
    unsafe fn post_pending(&self, shard: &Shard, pending: &Pending) {
        // SAFETY: shards are never freed before their heap.
        let owner = unsafe { &*pending.to };
        if owner.lease.word() == LeaseWord::ORPHANED {
            // SAFETY: by contract.
            return unsafe { self.reroute(shard, pending) };
        }
        // SAFETY: the chains are ours to give, and their words are written.
        unsafe { owner.post_chains(pending) };
        self.visit_sleeper(owner);
    }

    /// Chains for a shard that a fork left without a holder: each goes where its slab went.
    ///
    /// # Safety
    /// As [`post_pending`](Self::post_pending).
    #[cold]
    unsafe fn reroute(&self, shard: &Shard, pending: &Pending) {
        let mut head = pending.head;
        loop {
            // SAFETY: the chains are ours, and their words were written when they were held.
            unsafe {
                let word = crate::layout::ChainWord::read(head);
                // Before the chain is given away.
                let next = if head == pending.last { None } else { Some(word.next_chain()) };
                if let Some(owner) = self.route(Some(shard), Chain::posted(head, word)) {
                    self.visit_sleeper(owner);
                }
                match next {
                    Some(next) => head = next,
                    None => return,
                }
            }
        }
    }

    /// Posts every block of a list as a chain by itself.
    ///
    /// # Safety
    /// The caller has the shard and owns the blocks, which are all of one slab.
    #[cold]
    pub(super) unsafe fn post_list(&self, shard: &Shard, mut list: List) {
        while !list.is_empty() {
            let block = list.first();
            // SAFETY: by contract; the blocks keep their slab in use.
            unsafe {
                list = shard.key().rest(block);
                self.post_chain(shard, Chain::marked(slab_of(block), shard.key(), block));
            }
        }
    }

    /// # Safety
    /// The caller has the shard and owns the chain.
    pub(super) unsafe fn post_chain(&self, shard: &Shard, chain: Chain) {
        shard.counters.posted_blocks.count(u64::from(chain.count));
        shard.counters.posted_batches.count(1);
        // SAFETY: by contract.
        if let Some(owner) = unsafe { self.route(Some(shard), chain) } {
            self.visit_sleeper(owner);
        }
    }
}
