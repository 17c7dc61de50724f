//! A heap in a buffer of the caller's: no operating system, no `std`, no thread (requirement W1).
//!
//! Owns [`EmbeddedHeap`]: a lock around everything. Slabs, size classes and encoded links are those of
//! the big heap with smaller constants (ADR 16): a slab is one slice of 4 KiB, its metadata stands in a
//! table of 64 bytes per slice in the buffer itself, and what no class serves is a range of 512-byte
//! grains. Slices are cut from the buffer's high end and ranges from the low one, where they grow
//! in place.
//!
//! * `classes`: which class serves a request; `core`: slabs and ranges; `resize`; `stats`.
//!
//! When a request cannot be served the heap gives empty slabs back to the buffer, then looks into larger
//! classes and small ranges, and then says no; nothing is changed by a refusal.

mod classes;
mod core;
mod resize;
mod stats;

use ::core::alloc::{GlobalAlloc, Layout};
use ::core::error::Error;
use ::core::fmt;
use ::core::ptr::{self, NonNull};

pub use self::stats::EmbeddedStats;

use self::core::Core;
use crate::port::{AllocError, BlockPort, FixedRegion, no_bytes};
use crate::sync::PlainLock;

/// A heap over one [`FixedRegion`], usable as a global allocator, as an `Allocator` of allocator-api2, or
/// by layout through [`BlockPort`].
///
/// It serves nothing until it is given its region. It takes no memory beyond that; when the region is
/// full, requests are refused, and served again when blocks have come back.
///
/// Threads share it by a lock: without `std` one that spins. So an interrupt handler must not
/// allocate or free: it may have interrupted the very code that holds the lock. Nor does it see to
/// forks: whoever forks sees to it that no other thread is in the heap.
///
/// A block that is freed twice, or freed and not a block of the heap, ends the program with a message
/// that names the address: through `abort` with `std`, through the panic handler without.
///
/// ```
/// use flagstone_slab::embedded::EmbeddedHeap;
/// use flagstone_slab::port::FixedRegion;
/// use std::alloc::Layout;
/// use std::mem::MaybeUninit;
///
/// static HEAP: EmbeddedHeap = EmbeddedHeap::new();
///
/// let layout = Layout::new::<[u64; 100]>();
/// assert!(HEAP.try_alloc(layout).is_err(), "there is no region yet");
/// let buffer: &'static mut [MaybeUninit<u8>] = Box::leak(Box::new_uninit_slice(64 << 10));
/// HEAP.give(FixedRegion::new(buffer))?;
/// let block = HEAP.try_alloc(layout)?;
/// assert_eq!(HEAP.stats().live, 816);
/// // SAFETY: allocated above with this layout.
/// unsafe { HEAP.dealloc(block, layout) };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EmbeddedHeap {
    core: PlainLock<Core>,
}

/// Why a region was not taken. It comes back.
#[non_exhaustive]
pub enum GiveError {
    /// There is no room for the heap's table and one slab.
    TooSmall(FixedRegion),
    /// The heap has a region already.
    Given(FixedRegion),
}

impl EmbeddedHeap {
    /// A heap without memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { core: PlainLock::new(Core::new()) }
    }

    /// Gives the heap its region, once.
    ///
    /// # Errors
    /// [`GiveError`]; it carries the region.
    pub fn give(&self, region: FixedRegion) -> Result<(), GiveError> {
        self.core.lock().give(region)
    }

    /// A block, or why there is none. Of no bytes is asked for no memory.
    ///
    /// # Errors
    /// The region is full, or there is none yet.
    pub fn try_alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        if layout.size() == 0 {
            return Ok(no_bytes(layout));
        }
        let block = self.core.lock().alloc(layout);
        block.map(|(block, _)| block).ok_or(AllocError::OutOfMemory { layout })
    }

    /// A block of zeros, or why there is none.
    ///
    /// # Errors
    /// As [`try_alloc`](Self::try_alloc).
    pub fn try_alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        if layout.size() == 0 {
            return Ok(no_bytes(layout));
        }
        let block = self.core.lock().alloc(layout);
        let (block, zeros) = block.ok_or(AllocError::OutOfMemory { layout })?;
        if !zeros {
            // SAFETY: the block is ours and has so many bytes.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        Ok(block)
    }

    /// Takes a block back, from any thread.
    ///
    /// # Safety
    /// The block came from this heap, `layout` is what it was last asked for with, and it is given
    /// up.
    pub unsafe fn dealloc(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() != 0 {
            // SAFETY: the caller's contract.
            unsafe { self.core.lock().free(block, layout) }
        }
    }

    /// Changes a block's size, alignment, or both, in place where that can be. The contents stay, up
    /// to the smaller size. To a smaller size with no stricter alignment it always succeeds.
    ///
    /// # Errors
    /// As [`try_alloc`](Self::try_alloc); the block is then as it was.
    ///
    /// # Safety
    /// The block came from this heap and `old` is what it was last asked for with. If this succeeds,
    /// the block at the old address is given up.
    pub unsafe fn try_realloc(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocError> {
        if old.size() == 0 {
            return self.try_alloc(new);
        }
        if new.size() == 0 {
            // SAFETY: the caller's contract.
            unsafe { self.dealloc(block, old) };
            return Ok(no_bytes(new));
        }
        // SAFETY: the caller's contract.
        let block = unsafe { self.core.lock().realloc(block, old, new) };
        block.ok_or(AllocError::OutOfMemory { layout: new })
    }

    /// The heap's figures at this moment. Walks the classes under the lock.
    #[must_use]
    pub fn stats(&self) -> EmbeddedStats {
        self.core.lock().stats()
    }

    /// Checks every free list and the sums; panics where something does not hold. For tests: it exists
    /// in debug builds only.
    #[cfg(debug_assertions)]
    pub fn debug_validate(&self) {
        self.core.lock().debug_validate();
    }
}

impl Default for EmbeddedHeap {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for EmbeddedHeap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedHeap").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

// SAFETY: blocks are exclusive until freed: the lock's holder alone takes them off their lists and
// cuts ranges. They are at least as large and aligned as asked: `class_of` finds such a class, and
// ranges are cut at the alignment. A resize that fails changes nothing.
unsafe impl BlockPort for EmbeddedHeap {
    fn try_alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.try_alloc(layout)
    }

    fn try_alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.try_alloc_zeroed(layout)
    }

    unsafe fn dealloc(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { self.dealloc(block, layout) }
    }

    unsafe fn try_realloc(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocError> {
        // SAFETY: the caller's contract.
        unsafe { self.try_realloc(block, old, new) }
    }
}

// SAFETY: as above. Nothing here unwinds: misuse ends the program.
unsafe impl GlobalAlloc for EmbeddedHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.try_alloc(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.try_alloc_zeroed(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller's contract.
            unsafe { self.dealloc(block, layout) }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, old: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size is valid with the alignment.
        let new = unsafe { Layout::from_size_align_unchecked(bytes, old.align()) };
        let Some(block) = NonNull::new(block) else { return ptr::null_mut() };
        // SAFETY: the caller's contract.
        let moved = unsafe { self.try_realloc(block, old, new) };
        moved.map_or(ptr::null_mut(), NonNull::as_ptr)
    }
}

impl fmt::Debug for GiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall(region) => f.debug_tuple("TooSmall").field(region).finish(),
            Self::Given(region) => f.debug_tuple("Given").field(region).finish(),
        }
    }
}

impl fmt::Display for GiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall(region) => {
                write!(f, "a region with {} free bytes has no room for a heap", region.free_bytes())
            }
            Self::Given(_) => f.write_str("the heap has its region already"),
        }
    }
}

impl Error for GiveError {}
