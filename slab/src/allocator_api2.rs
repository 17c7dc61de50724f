//! The ports for blocks as `Allocator`s of allocator-api2, so that collections take them.
//!
//! Owns no state. Versions 0.2 and 0.4 of that crate have traits of their own, and both are in use:
//! hashbrown and what is built on it take the first, the second is current. A port is implemented once, as
//! [`BlockPort`]; here each gets both traits, behind a feature for each version.
//!
//! Grow and shrink go through the port's resize: in place within a size class, by moving pages for
//! large blocks, by copying else, also where the alignment changes.

#[cfg(not(flagstone_loom))]
use crate::embedded::EmbeddedHeap;
use crate::port::BlockPort;
#[cfg(feature = "std")]
use crate::{
    heap::{Flagstone, Heap, OwnedHeap, SharedHeap},
    port::{Backing, FailAfter, PassThrough, Tracing},
};

/// Implements an `Allocator` trait for a type that is a port.
macro_rules! allocator {
    ($api:ident, [$($generics:tt)*] $type:ty) => {
        // SAFETY: a port's blocks live until they are given back, wherever the port is moved or
        // copied to, and a port's clones take each other's blocks back: the port's contract.
        unsafe impl<$($generics)*> $api::alloc::Allocator for $type {
            #[inline]
            #[track_caller]
            fn allocate(
                &self,
                layout: Layout,
            ) -> Result<NonNull<[u8]>, $api::alloc::AllocError> {
                match BlockPort::try_alloc(self, layout) {
                    Ok(block) => Ok(NonNull::slice_from_raw_parts(block, layout.size())),
                    Err(_) => Err($api::alloc::AllocError),
                }
            }

            #[inline]
            #[track_caller]
            fn allocate_zeroed(
                &self,
                layout: Layout,
            ) -> Result<NonNull<[u8]>, $api::alloc::AllocError> {
                match BlockPort::try_alloc_zeroed(self, layout) {
                    Ok(block) => Ok(NonNull::slice_from_raw_parts(block, layout.size())),
                    Err(_) => Err($api::alloc::AllocError),
                }
            }

            #[inline]
            #[track_caller]
            unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
                // SAFETY: the caller's contract.
                unsafe { BlockPort::dealloc(self, block, layout) }
            }

            #[inline]
            #[track_caller]
            unsafe fn grow(
                &self,
                block: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, $api::alloc::AllocError> {
                // SAFETY: the caller's contract.
                match unsafe { BlockPort::try_realloc(self, block, old, new) } {
                    Ok(block) => Ok(NonNull::slice_from_raw_parts(block, new.size())),
                    Err(_) => Err($api::alloc::AllocError),
                }
            }

            #[inline]
            #[track_caller]
            unsafe fn grow_zeroed(
                &self,
                block: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, $api::alloc::AllocError> {
                // SAFETY: the caller's contract; what is new lies within the new block.
                unsafe {
                    let grown = self.grow(block, old, new)?;
                    let tail = grown.cast::<u8>().add(old.size());
                    tail.write_bytes(0, new.size() - old.size());
                    Ok(grown)
                }
            }

            #[inline]
            #[track_caller]
            unsafe fn shrink(
                &self,
                block: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, $api::alloc::AllocError> {
                // SAFETY: the caller's contract, which is the same as for growing but for the sizes.
                unsafe { self.grow(block, old, new) }
            }
        }
    };
}

macro_rules! version {
    ($module:ident, $feature:literal, $api:ident) => {
        #[cfg(feature = $feature)]
        mod $module {
            #[cfg(feature = "std")]
            use core::alloc::GlobalAlloc;
            use core::alloc::Layout;
            use core::ptr::NonNull;

            use super::*;

            #[cfg(not(flagstone_loom))]
            allocator!($api, [] EmbeddedHeap);
            #[cfg(feature = "std")]
            allocator!($api, [] Heap);
            #[cfg(feature = "std")]
            allocator!($api, [B: Backing + 'static] OwnedHeap<B>);
            #[cfg(feature = "std")]
            allocator!($api, [B: Backing + 'static] SharedHeap<B>);
            #[cfg(feature = "std")]
            allocator!($api, [] Flagstone);
            #[cfg(feature = "std")]
            allocator!($api, [G: GlobalAlloc] PassThrough<G>);
            #[cfg(feature = "std")]
            allocator!($api, [P: BlockPort] FailAfter<P>);
            #[cfg(feature = "std")]
            allocator!($api, [P: BlockPort] Tracing<P>);
        }
    };
}

version!(v02, "allocator-api2-02", allocator_api2_02);
version!(v04, "allocator-api2-04", allocator_api2_04);
