//! The outbox: where a thread gathers blocks it frees for other owners.
//!
//! Owns two small direct-mapped tables (after snmalloc's BatchIt). In the first, keyed by slab, blocks
//! of one slab freed close together become one chain, which its owner later splices into the slab's
//! free list with one touch of its metadata. A chain leaves it when another slab takes its place or
//! when it is [`MAX_CHAIN`] long, and joins the second, keyed by destination: chains for one shard,
//! posted all together with one exchange. Used by the shard's leaseholder only.
//!
//! Nothing here reads a slab's metadata, which its owner is writing: that would be a cache miss for
//! each free.

use std::ptr;

use super::imp::Shard;
use crate::counter::Counter;
use crate::layout::{Block, ChainWord, LinkKey, MAX_CHAIN, Slab, SlabPtr, slab_of};
use crate::os::poison;
use crate::sync::Cell;

/// Bytes gathered before everything is posted.
pub(crate) const OUTBOX_BYTES: u64 = 64 * 1024;
/// Age in milliseconds at which everything gathered is posted by the next slow path.
pub(crate) const OUTBOX_MILLIS: u32 = 5;

const CHAINS: usize = 32;
const DESTINATIONS: usize = 8;

/// Freed blocks of one slab, linked with the heap's key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub(crate) slab: SlabPtr,
    pub(crate) head: Block,
    pub(crate) tail: Block,
    pub(crate) count: u32,
    /// Bytes of one block; zero in a chain that was not in an outbox.
    pub(crate) block_bytes: u32,
}

impl Chain {
    const NONE: Chain = Chain {
        slab: ptr::null(),
        head: ptr::null_mut(),
        tail: ptr::null_mut(),
        count: 0,
        block_bytes: 0,
    };

    /// A chain of one block, whose link is written here.
    ///
    /// # Safety
    /// The caller owns `block`, a freed block of `slab`.
    pub(crate) unsafe fn single(slab: &Slab, block: Block, key: LinkKey) -> Self {
        // SAFETY: the caller owns the block.
        unsafe { key.set_next(block, ptr::null_mut()) };
        slab.close(block);
        Self { slab, head: block, tail: block, count: 1, block_bytes: 0 }
    }

    /// A posted chain, by its first block and its word.
    ///
    /// # Safety
    /// The caller took it from an inbox, or posted it and holds it still.
    pub(crate) unsafe fn posted(head: Block, word: ChainWord) -> Self {
        // SAFETY: a posted block keeps its slab in use.
        let slab = unsafe { slab_of(head) };
        Self { slab, head, tail: word.tail(head), count: word.count(), block_bytes: 0 }
    }

    /// The word that describes the chain to its owner.
    pub(crate) fn word(&self) -> ChainWord {
        ChainWord::new(ptr::null_mut(), self.tail, self.count)
    }

    fn bytes(&self) -> u64 {
        u64::from(self.count) * u64::from(self.block_bytes)
    }
}

/// Chains for one shard, linked from the one added last to the one added first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    pub(crate) to: *const Shard,
    /// First block of the chain added last.
    pub(crate) head: Block,
    /// First block of the chain added first.
    pub(crate) last: Block,
    bytes: u64,
}

impl Pending {
    const NONE: Pending =
        Pending { to: ptr::null(), head: ptr::null_mut(), last: ptr::null_mut(), bytes: 0 };
}

/// The outbox of one shard.
pub(crate) struct Outbox {
    chains: [Cell<Chain>; CHAINS],
    pending: [Cell<Pending>; DESTINATIONS],
    /// Bytes of all gathered blocks; also a gauge.
    bytes: Counter,
    /// When the oldest gathered block came, in coarse milliseconds.
    since: Cell<u32>,
}

impl Outbox {
    pub(crate) const fn new() -> Self {
        Self {
            chains: [const { Cell::new(Chain::NONE) }; CHAINS],
            pending: [const { Cell::new(Pending::NONE) }; DESTINATIONS],
            bytes: Counter::new(),
            since: Cell::new(0),
        }
    }

    /// Bytes gathered and not yet taken.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether the oldest block has waited long enough to be posted by whoever passes by.
    pub(crate) fn is_old(&self, now: u32) -> bool {
        self.bytes.get() > 0 && now.wrapping_sub(self.since.get()) >= OUTBOX_MILLIS
    }

    /// Adds a block; returns a chain that had to make room, to be added to those of its
    /// destination. `chained` says whether the slab lies in one slice, so that a chain's word can say
    /// where its tail is; a block of any other is a chain by itself.
    ///
    /// # Safety
    /// The caller has the shard's lease and owns `block`, a freed block of `slab`, `block_bytes` large.
    #[inline]
    #[must_use]
    pub(crate) unsafe fn gather(
        &self,
        slab: SlabPtr,
        block: Block,
        block_bytes: u32,
        chained: bool,
        key: LinkKey,
    ) -> Option<Chain> {
        if self.bytes.get() == 0 {
            self.since.set(crate::os::coarse_millis());
        }
        self.bytes.add(u64::from(block_bytes));
        if cfg!(flagstone_asan) {
            poison::close(block, block_bytes as usize);
        }
        let entry = &self.chains[Self::index(slab)];
        let chain = entry.get();
        if ptr::eq(chain.slab, slab) && chain.count < MAX_CHAIN {
            // SAFETY: the caller owns the block.
            unsafe { key.set_next(block, chain.head) };
            entry.set(Chain { head: block, count: chain.count + 1, ..chain });
            return None;
        }
        // SAFETY: the caller owns the block.
        unsafe { key.set_next(block, ptr::null_mut()) };
        let single = Chain { slab, head: block, tail: block, count: 1, block_bytes };
        if !chained {
            return Some(single);
        }
        entry.set(single);
        (chain.count > 0).then_some(chain)
    }

    /// Adds a chain to those of its destination; returns what another destination had to give up.
    ///
    /// # Safety
    /// The caller has the shard's lease and owns the chain, which came from [`gather`](Self::gather)
    /// or [`for_each_chain`](Self::for_each_chain).
    #[must_use]
    pub(crate) unsafe fn hold(&self, to: *const Shard, chain: &Chain) -> Option<Pending> {
        let entry = &self.pending[Self::destination(to)];
        let mut pending = entry.get();
        let mut out = None;
        if ptr::eq(pending.to, to) {
            // SAFETY: the chain is ours.
            unsafe { chain.word().with_next(pending.head).write(chain.head) };
            pending.head = chain.head;
            pending.bytes += chain.bytes();
        } else {
            if !pending.to.is_null() {
                self.bytes.sub(pending.bytes);
                out = Some(pending);
            }
            // SAFETY: as above.
            unsafe { chain.word().write(chain.head) };
            pending = Pending { to, head: chain.head, last: chain.head, bytes: chain.bytes() };
        }
        entry.set(pending);
        out
    }

    /// A chain that left without joining those of a destination.
    pub(crate) fn forget(&self, chain: &Chain) {
        self.bytes.sub(chain.bytes());
    }

    /// Takes the chains out of the first table, one by one, for [`hold`](Self::hold).
    pub(crate) fn for_each_chain(&self, mut each: impl FnMut(Chain)) {
        if self.bytes.get() == 0 {
            return;
        }
        for entry in &self.chains {
            if entry.get().count > 0 {
                each(entry.replace(Chain::NONE));
            }
        }
    }

    /// Takes out what is held, a destination at a time.
    pub(crate) fn for_each_pending(&self, mut each: impl FnMut(&Pending)) {
        if self.bytes.get() == 0 {
            return;
        }
        for entry in &self.pending {
            let pending = entry.get();
            if !pending.to.is_null() {
                entry.set(Pending::NONE);
                self.bytes.sub(pending.bytes);
                each(&pending);
            }
        }
    }

    #[inline(always)]
    fn index(slab: SlabPtr) -> usize {
        // Metadata entries are 64 bytes apart within a head and heads 4 MiB apart: the product
        // spreads both over the upper bits.
        let mixed = (slab.addr() >> 6).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed >> (usize::BITS - CHAINS.ilog2())
    }

    fn destination(to: *const Shard) -> usize {
        let mixed = (to.addr() >> 7).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed >> (usize::BITS - DESTINATIONS.ilog2())
    }
}
