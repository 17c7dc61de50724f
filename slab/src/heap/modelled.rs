//! What `loom_tests/` reaches of the heap: its parts that stand by themselves.
//!
//! Owns no protocol: the types here put the real parts where a model can hold them, with a backing of
//! the model's own that watches what is mapped.

use std::alloc::Layout;
use std::ptr::NonNull;

use super::fallback::Fallback;
use super::guard::Guards;
pub use super::high_water::HighWater;
use super::holdings::{Figures, Holdings};
use super::pool::{DecayLimit, Pool};
use super::{HugePages, Means};
use crate::large::Place;
use crate::layout::{DEFAULT_TABLE, HeapId, Owner, SLICE_BYTES, Segment, Slab};
use crate::lock::ContentionThreshold;
use crate::port::Backing;

/// A pool of segments over a backing.
pub struct SegmentCache<B: Backing> {
    pool: Pool,
    backing: B,
    threshold: ContentionThreshold,
}

/// A slab in use, its taker's.
#[derive(Clone, Copy)]
pub struct TakenSlab(&'static Slab);

// SAFETY: the pool keeps everybody else from a slab that was taken.
unsafe impl<B: Backing> Send for SegmentCache<B> {}
// SAFETY: as above.
unsafe impl<B: Backing> Sync for SegmentCache<B> {}

impl TakenSlab {
    /// Where its bytes are.
    pub fn bytes(&self) -> std::ops::Range<usize> {
        let start = self.0.base().addr();
        start..start + usize::from(self.0.slices.get()) * SLICE_BYTES
    }
}

impl<B: Backing> SegmentCache<B> {
    /// An empty pool.
    pub fn new(backing: B) -> Self {
        Self { pool: Pool::new(), backing, threshold: ContentionThreshold::new() }
    }

    /// The backing.
    pub fn backing(&self) -> &B {
        &self.backing
    }

    /// A slab of the smallest class.
    pub fn take(&self) -> Option<TakenSlab> {
        let means = means(&self.backing, &self.threshold);
        let (slab, _) = self.pool.take(0, DEFAULT_TABLE.info(0), Owner::BUCKET, &means)?;
        Some(TakenSlab(slab))
    }

    /// Takes a slab back that has been unused for long.
    ///
    /// # Safety
    /// The caller took it, and gives it up.
    pub unsafe fn give(&self, slab: TakenSlab) {
        // SAFETY: by contract.
        unsafe { self.pool.give(slab.0, 0, &self.threshold) };
    }

    /// Gives everything back that is free; returns the segments that were taken out to be unmapped.
    pub fn decay(&self) -> u64 {
        self.pool.decay(DecayLimit::all(0), &self.backing, &self.threshold).segments
    }

    /// Calls `each` with the address of every segment's head.
    pub fn walk(&self, mut each: impl FnMut(usize)) {
        let each = |segment: &Segment| each(segment.start().addr());
        self.pool.walk(each, &self.backing, &self.threshold);
    }

    /// Calls `look` with the head of the segment that an address lies in, if it is one of the pool's;
    /// whether it was.
    pub fn look_at(&self, address: usize, look: impl FnOnce(usize)) -> bool {
        let address = std::ptr::without_provenance(address);
        let look = |segment: &Segment| look(segment.start().addr());
        let id = HeapId::GLOBAL;
        self.pool.look_at(address, id, look, &self.backing, &self.threshold).is_some()
    }

    /// Segments that are mapped by the pool's own figures, and bytes in slabs of the pool that are
    /// free with pages and without.
    pub fn figures(&self) -> (u64, u64, u64) {
        let seen = self.pool.snapshot();
        (seen.segments, seen.free_dirty_bytes, seen.free_clean_bytes)
    }
}

/// The large blocks of a heap over a backing.
pub struct LargeBlocks<B: Backing> {
    fallback: Fallback,
    backing: B,
    threshold: ContentionThreshold,
}

impl<B: Backing> LargeBlocks<B> {
    /// None so far.
    pub fn new(backing: B) -> Self {
        Self { fallback: Fallback::new(), backing, threshold: ContentionThreshold::new() }
    }

    /// The backing.
    pub fn backing(&self) -> &B {
        &self.backing
    }

    /// A block, or null.
    pub fn alloc(&self, bytes: usize) -> *mut u8 {
        match Layout::from_size_align(bytes, 1) {
            Ok(layout) => self.fallback.alloc(layout, Place::Best, &self.means()),
            Err(_) => std::ptr::null_mut(),
        }
    }

    /// Makes a block larger without copying; null if that cannot be done, and the block is as before.
    ///
    /// # Safety
    /// The caller has the block, and gives up its old place if this succeeds.
    pub unsafe fn grow(&self, block: *mut u8, bytes: usize) -> *mut u8 {
        // SAFETY: by contract.
        let grown = unsafe { self.fallback.resize(block, 1, bytes, &self.means()) };
        grown.unwrap_or_default()
    }

    /// Takes a block back; what is free goes back at once.
    ///
    /// # Safety
    /// The caller has the block, and gives it up.
    pub unsafe fn free(&self, block: *mut u8) {
        // SAFETY: by contract.
        unsafe { self.fallback.free(block, &self.means()) };
    }

    /// Bytes of a block, by its address.
    pub fn block_bytes(&self, block: *mut u8) -> Option<usize> {
        self.fallback.usable_size(block.addr(), &self.threshold)
    }

    fn means(&self) -> Means<'_> {
        means(&self.backing, &self.threshold)
    }
}

/// A backing with a cap on what is taken of it.
pub struct Capped<B: Backing>(Holdings<B>);

impl<B: Backing> Capped<B> {
    /// A cap in bytes on `backing`.
    pub fn new(backing: B, cap: usize) -> Self {
        Self(Holdings::new(backing, cap))
    }

    /// The backing.
    pub fn backing(&self) -> &B {
        self.0.backing()
    }

    /// Takes bytes.
    pub fn map(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.0.map(bytes, 4096)
    }

    /// Gives bytes back.
    ///
    /// # Safety
    /// They were taken here, and are given up.
    pub unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: by contract.
        unsafe { self.0.unmap(start, bytes) };
    }

    /// Bytes that count as taken, most of them ever, and refusals.
    pub fn figures(&self) -> (usize, u64, u64) {
        (self.0.held(), self.0.peak(), self.0.refusals())
    }
}

fn means<'a>(backing: &'a dyn Backing, threshold: &'a ContentionThreshold) -> Means<'a> {
    static NONE: Guards = Guards::new();
    let (id, huge_pages) = (HeapId::GLOBAL, HugePages::Never);
    Means { id, backing, threshold, guards: &NONE, decay_millis: 0, huge_pages }
}
