//! The outbox: where a thread gathers blocks it frees for other owners.
//!
//! Owns two small direct-mapped tables (after snmalloc's BatchIt). In the first, keyed by slab, blocks
//! of one slab freed close together become one chain, which its owner later takes back with one touch
//! of its metadata. A chain leaves it when another slab takes its place or when its head has room for no
//! more, and joins the second, keyed by destination: chains for one shard, posted all together with
//! one exchange. Used by the shard's leaseholder only.
//!
//! Nothing here reads a slab's metadata, which its owner is writing, or a freed block other than a
//! chain's head: each would be a cache miss for each free. Marked blocks of a slab and others make
//! different chains, see `layout/chain.rs`: who marks a block has it in its cache.

use std::ptr;

use super::imp::Shard;
use crate::counter::Counter;
use crate::layout::{
    Block, ChainWord, Head, LinkKey, MAX_CHAIN, Offset, Slab, SlabPtr, block_at, chain_room,
    offset_of, slab_of, write_others,
};
use crate::os::poison;
use crate::sync::Cell;

/// Bytes gathered before everything is posted.
pub(crate) const OUTBOX_BYTES: u64 = 64 * 1024;
/// Age in milliseconds at which everything gathered is posted by the next slow path.
pub(crate) const OUTBOX_MILLIS: u32 = 5;

const CHAINS: usize = 32;
const DESTINATIONS: usize = 8;

/// Freed blocks of one slab.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub(crate) slab: SlabPtr,
    /// The block that says which others there are; see `layout/chain.rs`.
    pub(crate) head: Head,
    pub(crate) count: u32,
    /// Bytes of one block; zero in a chain that was not in an outbox.
    block_bytes: u32,
}

impl Chain {
    /// A chain of one block.
    pub(crate) fn single(slab: &Slab, block: Block) -> Self {
        slab.close(block);
        Self { slab, head: Head::new(block, false), count: 1, block_bytes: 0 }
    }

    /// The same of a block that is known to be free from now on.
    ///
    /// # Safety
    /// The caller owns `block`, a freed block of `slab`.
    pub(crate) unsafe fn marked(slab: &Slab, key: LinkKey, block: Block) -> Self {
        // SAFETY: by contract.
        unsafe { key.mark(block) };
        slab.close(block);
        Self { slab, head: Head::new(block, true), count: 1, block_bytes: 0 }
    }

    /// A posted chain, by its head and its word.
    ///
    /// # Safety
    /// The caller took it from an inbox, or posted it and holds it still.
    pub(crate) unsafe fn posted(head: Head, word: ChainWord) -> Self {
        // SAFETY: a posted block keeps its slab in use.
        let slab = unsafe { slab_of(head.block()) };
        Self { slab, head, count: word.count(), block_bytes: 0 }
    }

    /// The word that describes the chain to its owner.
    pub(crate) fn word(&self) -> ChainWord {
        ChainWord::new(Head::NONE, self.count)
    }

    fn bytes(&self) -> u64 {
        u64::from(self.count) * u64::from(self.block_bytes)
    }
}

/// A chain that is being gathered, in one cache line: by their offsets, so that no block is touched.
#[repr(align(64))]
struct Gathered {
    /// The slab, with the lowest bit set if the blocks are marked.
    slab: Cell<SlabPtr>,
    block_bytes: Cell<u32>,
    count: Cell<u8>,
    /// Most blocks of which a chain of this slab can consist.
    room: Cell<u8>,
    offsets: [Cell<Offset>; MAX_CHAIN],
}

const _: () = assert!(size_of::<Gathered>() == 64);

impl Gathered {
    const fn none() -> Self {
        Self {
            slab: Cell::new(ptr::null()),
            block_bytes: Cell::new(0),
            count: Cell::new(0),
            room: Cell::new(0),
            offsets: [const { Cell::new(0) }; MAX_CHAIN],
        }
    }

    /// Adds a block of a slab if the chain is the slab's, of blocks marked or not as this one, and has
    /// room.
    #[inline(always)]
    fn add<const MARKED: bool>(&self, slab: SlabPtr, block: Block) -> bool {
        let count = self.count.get();
        if !ptr::eq(self.slab.get(), tagged::<MARKED>(slab)) || count >= self.room.get() {
            return false;
        }
        // `room` is at most the array's length.
        if let Some(place) = self.offsets.get(count as usize) {
            place.set(offset_of(block));
        }
        self.count.set(count + 1);
        true
    }

    /// Begins anew with a block of a slab.
    fn start<const MARKED: bool>(&self, slab: SlabPtr, block: Block, block_bytes: u32) {
        self.slab.set(tagged::<MARKED>(slab));
        self.block_bytes.set(block_bytes);
        self.room.set(chain_room(block_bytes, MARKED) as u8);
        self.offsets[0].set(offset_of(block));
        self.count.set(1);
    }

    /// Takes the chain out, if there is one. The block freed last, which is the likeliest to be in this
    /// core's cache, becomes its head.
    fn take(&self) -> Option<Chain> {
        let others = (self.count.replace(0) as usize).checked_sub(1)?;
        // Another slab may be where this one is by the time that the next block comes.
        let tagged = self.slab.replace(ptr::null());
        let slab = tagged.map_addr(|a| a & !1);
        // SAFETY: the chain's blocks keep their slab in use. Only its address is used.
        let start = unsafe { (*slab).base() };
        let marked = tagged.addr() & 1 != 0;
        let head = Head::new(block_at(start, self.offsets[others].get()), marked);
        // SAFETY: the blocks are the outbox's, and no more than the head has room for.
        unsafe { write_others(head, self.offsets[..others].iter().map(Cell::get)) };
        Some(Chain { slab, head, count: others as u32 + 1, block_bytes: self.block_bytes.get() })
    }
}

/// A slab as [`Gathered`] has it.
#[inline(always)]
fn tagged<const MARKED: bool>(slab: SlabPtr) -> SlabPtr {
    slab.map_addr(|a| a | usize::from(MARKED))
}

/// Chains for one shard, linked from the one added last to the one added first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    pub(crate) to: *const Shard,
    /// Head of the chain added last.
    pub(crate) head: Head,
    /// Head of the chain added first.
    pub(crate) last: Head,
    bytes: u64,
}

impl Pending {
    const NONE: Pending = Pending { to: ptr::null(), head: Head::NONE, last: Head::NONE, bytes: 0 };
}

/// The outbox of one shard.
pub(crate) struct Outbox {
    chains: [Gathered; CHAINS],
    pending: [Cell<Pending>; DESTINATIONS],
    /// Bytes of all gathered blocks; also a gauge.
    bytes: Counter,
    /// When the oldest gathered block came, in coarse milliseconds.
    since: Cell<u32>,
}

impl Outbox {
    pub(crate) const fn new() -> Self {
        Self {
            chains: [const { Gathered::none() }; CHAINS],
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

    /// Adds a block, marked or not; returns a chain that had to make room, to be added to those of its
    /// destination. `chained` says whether the slab is small enough for an offset to say
    /// which block it is; a block of any other is a chain by itself.
    ///
    /// # Safety
    /// The caller has the shard's lease and owns `block`, a freed block of `slab`, `block_bytes` large.
    #[inline]
    #[must_use]
    pub(crate) unsafe fn gather<const MARKED: bool>(
        &self,
        slab: SlabPtr,
        block: Block,
        block_bytes: u32,
        chained: bool,
    ) -> Option<Chain> {
        if self.bytes.get() == 0 {
            self.since.set(crate::os::coarse_millis());
        }
        self.bytes.add(u64::from(block_bytes));
        if cfg!(flagstone_asan) {
            poison::close(block, block_bytes as usize);
        }
        if !chained {
            return Some(Chain { slab, head: Head::new(block, MARKED), count: 1, block_bytes });
        }
        let entry = &self.chains[Self::index(slab)];
        if entry.add::<MARKED>(slab, block) {
            return None;
        }
        let chain = entry.take();
        entry.start::<MARKED>(slab, block, block_bytes);
        chain
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
        for chain in self.chains.iter().filter_map(Gathered::take) {
            each(chain);
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
