//! The outbox: where a thread gathers blocks it frees for other owners.
//!
//! Owns a small direct-mapped table of chains, keyed by slab (after snmalloc's BatchIt): blocks of
//! one slab freed close together become one chain, which its owner later splices into the slab's
//! free list with one touch of its metadata. Used by the shard's leaseholder only. A chain leaves
//! the table when another slab takes its place, when it is [`MAX_CHAIN`] long, or when everything
//! is taken because of size, age, parking or exit; the caller then posts it.

use std::cell::Cell;
use std::ptr;

use crate::counter::Counter;
use crate::layout::{Block, ChainWord, LinkKey, MAX_CHAIN, Slab, SlabPtr};
use crate::os::debug_check;

/// Bytes gathered before everything is posted.
pub(crate) const OUTBOX_BYTES: u64 = 64 * 1024;
/// Age in milliseconds at which a gathered chain is posted by the next slow path.
pub(crate) const OUTBOX_MILLIS: u32 = 5;
/// Blocks this large are posted one by one: gathering saves little and withholds much.
pub(crate) const GATHER_MAX: u32 = 4096;

const ENTRIES: usize = 32;

/// Freed blocks of one slab, linked with the heap's key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub(crate) slab: SlabPtr,
    pub(crate) head: Block,
    pub(crate) tail: Block,
    pub(crate) count: u32,
}

impl Chain {
    const NONE: Chain =
        Chain { slab: ptr::null(), head: ptr::null_mut(), tail: ptr::null_mut(), count: 0 };

    /// A chain of one block, whose link is written here.
    ///
    /// # Safety
    /// The caller owns `block`, a freed block of `slab`.
    pub(crate) unsafe fn single(slab: &Slab, block: Block, key: LinkKey) -> Self {
        // SAFETY: the caller owns the block.
        unsafe { key.set_next(block, ptr::null_mut()) };
        Self { slab, head: block, tail: block, count: 1 }
    }

    /// The word that describes the chain to its owner.
    pub(crate) fn word(&self) -> ChainWord {
        ChainWord::new(ptr::null_mut(), self.tail, self.count)
    }
}

/// The outbox of one shard.
pub(crate) struct Outbox {
    entries: [Cell<Chain>; ENTRIES],
    /// Bytes of all gathered blocks; also a gauge.
    bytes: Counter,
    /// When the oldest gathered block came, in coarse milliseconds.
    since: Cell<u32>,
}

impl Outbox {
    pub(crate) const fn new() -> Self {
        Self {
            entries: [const { Cell::new(Chain::NONE) }; ENTRIES],
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

    /// Adds a block; returns a chain that had to make room, to be posted now.
    ///
    /// # Safety
    /// The caller has the shard's lease and owns `block`, a freed block of `slab`, whose slab has
    /// one slice.
    #[must_use]
    pub(crate) unsafe fn gather(&self, slab: &Slab, block: Block, key: LinkKey) -> Option<Chain> {
        debug_check!(slab.slices.get() == 1, "a chain of a slab of several slices");
        let entry = &self.entries[Self::index(slab)];
        let mut chain = entry.get();
        let mut out = None;
        if ptr::eq(chain.slab, slab) && chain.count < MAX_CHAIN {
            // SAFETY: the caller owns the block.
            unsafe { key.set_next(block, chain.head) };
            chain.head = block;
            chain.count += 1;
        } else {
            if chain.count > 0 {
                self.forget(&chain);
                out = Some(chain);
            }
            // SAFETY: the caller owns the block.
            chain = unsafe { Chain::single(slab, block, key) };
        }
        entry.set(chain);
        if self.bytes.get() == 0 {
            self.since.set(crate::os::coarse_millis());
        }
        self.bytes.add(u64::from(slab.block_bytes.get()));
        out
    }

    /// Takes a chain out, any, until none is left.
    pub(crate) fn take_any(&self) -> Option<Chain> {
        if self.bytes.get() == 0 {
            return None;
        }
        let entry = self.entries.iter().find(|entry| entry.get().count > 0)?;
        let chain = entry.replace(Chain::NONE);
        self.forget(&chain);
        Some(chain)
    }

    fn forget(&self, chain: &Chain) {
        // SAFETY: the chain's blocks are out, so their slab is in use and its size does not change
        // (rule S2).
        let bytes = unsafe { (*chain.slab).block_bytes.get() };
        self.bytes.sub(u64::from(chain.count) * u64::from(bytes));
    }

    fn index(slab: &Slab) -> usize {
        // Metadata entries are 64 bytes apart within a head and heads 4 MiB apart: the product
        // spreads both over the upper bits.
        let mixed = (ptr::from_ref(slab).addr() >> 6).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed >> (usize::BITS - ENTRIES.ilog2())
    }
}
