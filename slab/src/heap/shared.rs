//! A heap instance with several owners: the last one ends it.
//!
//! Owns a reference count, nothing else. For values that hold their allocator and must be `'static`:
//! a collection in a struct beside its heap, a task that outlives the function that made the heap.

use std::alloc::Layout;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use super::{Heap, OwnedHeap};
use crate::port::{AllocError, Backing, BlockPort, OsPages};

/// An [`OwnedHeap`] that can be cloned: each clone owns the same heap. The handle is an `Allocator`
/// by itself, so that collections can own their heap.
///
/// The count is allocated with the program's global allocator.
pub struct SharedHeap<B: Backing + 'static = OsPages>(Arc<OwnedHeap<B>>);

impl<B: Backing + 'static> From<OwnedHeap<B>> for SharedHeap<B> {
    fn from(heap: OwnedHeap<B>) -> Self {
        Self(Arc::new(heap))
    }
}

impl<B: Backing + 'static> Clone for SharedHeap<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B: Backing + 'static> Deref for SharedHeap<B> {
    type Target = OwnedHeap<B>;

    fn deref(&self) -> &OwnedHeap<B> {
        &self.0
    }
}

impl<B: Backing + 'static> fmt::Debug for SharedHeap<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedHeap").field(&self.0).finish()
    }
}

macro_rules! port_by_owner {
    ($owner:ident) => {
        // SAFETY: all calls go to the heap, which stays where it is however its owner is moved, and
        // lives as long as the owner does.
        unsafe impl<B: Backing + 'static> BlockPort for $owner<B> {
            #[inline]
            fn try_alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
                Heap::try_alloc(self, layout)
            }

            #[inline]
            fn try_alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
                Heap::try_alloc_zeroed(self, layout)
            }

            #[inline]
            unsafe fn dealloc(&self, block: NonNull<u8>, layout: Layout) {
                // SAFETY: the caller's contract.
                unsafe { Heap::dealloc(self, block, layout) }
            }

            #[inline]
            unsafe fn try_realloc(
                &self,
                block: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<u8>, AllocError> {
                // SAFETY: the caller's contract.
                unsafe { Heap::try_realloc(self, block, old, new) }
            }
        }
    };
}

port_by_owner!(OwnedHeap);
port_by_owner!(SharedHeap);
