//! The port for blocks: what a component allocates from when it is given its allocator.
//!
//! Owns the contract (requirement G1: an allocator is injected, never assumed) and its error. A heap
//! by reference, the global heap as `Flagstone`, any `GlobalAlloc` behind `PassThrough`, the embedded
//! heap, and the wrappers for tests are such ports; each is also an `Allocator` of `allocator-api2`, in
//! both of its versions in use.

use core::alloc::Layout;
use core::error::Error;
use core::fmt;
use core::num::NonZeroUsize;
use core::ptr::NonNull;

/// A source of blocks.
///
/// # Safety
/// A block handed out is exclusive, as large and aligned as its layout asks, and stays so until it is
/// given back; clones of a port, and copies of a reference to it, take each other's blocks back. A
/// resize that fails leaves the block as it was.
pub unsafe trait BlockPort {
    /// A block. Of no bytes is asked for no memory: the block is then an aligned address.
    ///
    /// # Errors
    /// [`AllocError`] says why there is none.
    fn try_alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError>;

    /// A block of zeros.
    ///
    /// # Errors
    /// As [`try_alloc`](Self::try_alloc).
    fn try_alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError>;

    /// Takes a block back.
    ///
    /// # Safety
    /// The block came from this port, `layout` is what it was last asked for with, and it is given
    /// up.
    unsafe fn dealloc(&self, block: NonNull<u8>, layout: Layout);

    /// Changes a block's size, alignment, or both. The contents stay, up to the smaller size; what
    /// is new has no defined contents.
    ///
    /// # Errors
    /// As [`try_alloc`](Self::try_alloc); the block is then as it was, and still the caller's.
    ///
    /// # Safety
    /// The block came from this port and `old` is what it was last asked for with. If this succeeds,
    /// the block at the old address is given up.
    unsafe fn try_realloc(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocError>;
}

/// Why there is no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllocError {
    /// The backing has no memory for it.
    OutOfMemory {
        /// What was asked for.
        layout: Layout,
    },
    /// The heap's cap does not allow for it.
    CapReached {
        /// What was asked for.
        layout: Layout,
        /// The heap's cap in bytes.
        cap: usize,
    },
    /// A `FailAfter` was told to refuse it.
    Injected {
        /// What was asked for.
        layout: Layout,
        /// Number of the request, from 1.
        request: u64,
    },
}

impl AllocError {
    /// What was asked for.
    pub fn layout(&self) -> Layout {
        match *self {
            Self::OutOfMemory { layout }
            | Self::CapReached { layout, .. }
            | Self::Injected { layout, .. } => layout,
        }
    }
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layout = self.layout();
        write!(f, "no block of {} bytes aligned to {}: ", layout.size(), layout.align())?;
        match self {
            Self::OutOfMemory { .. } => f.write_str("out of memory"),
            Self::CapReached { cap, .. } => write!(f, "the heap's cap of {cap} bytes is reached"),
            Self::Injected { request, .. } => write!(f, "request {request} was told to fail"),
        }
    }
}

impl Error for AllocError {}

/// The address that stands for a block of no bytes.
#[inline]
pub(crate) fn no_bytes(layout: Layout) -> NonNull<u8> {
    NonNull::without_provenance(layout_align(layout))
}

#[inline]
fn layout_align(layout: Layout) -> NonZeroUsize {
    NonZeroUsize::new(layout.align()).unwrap_or(NonZeroUsize::MIN)
}

// SAFETY: all calls go to the port behind the reference.
unsafe impl<P: BlockPort + ?Sized> BlockPort for &P {
    #[inline]
    fn try_alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        (**self).try_alloc(layout)
    }

    #[inline]
    fn try_alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        (**self).try_alloc_zeroed(layout)
    }

    #[inline]
    unsafe fn dealloc(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { (**self).dealloc(block, layout) }
    }

    #[inline]
    unsafe fn try_realloc(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocError> {
        // SAFETY: the caller's contract.
        unsafe { (**self).try_realloc(block, old, new) }
    }
}
