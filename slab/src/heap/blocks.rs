//! Blocks by layout from any heap: what instances offer, and the global heap as well.
//!
//! Owns the way in for heaps that are values. It is the way of the global allocator with the class
//! looked up in the heap's own table and the shard in the thread's table of leases; beyond the fast
//! path both run the same code.

use std::alloc::{GlobalAlloc, Layout, handle_alloc_error};
use std::ptr::NonNull;

use super::{Flagstone, Heap, leases, local};
use crate::large::Place;
use crate::layout::{Block, HeapId, SEGMENT_BYTES};
use crate::port::{AllocError, BlockPort, no_bytes};
use crate::shard::Shard;
use crate::sync::weakened;

impl Heap {
    /// A block. Of no bytes is asked for no memory.
    ///
    /// When there is no memory this ends as `std::alloc::handle_alloc_error` does;
    /// [`try_alloc`](Self::try_alloc) returns instead.
    #[inline]
    pub fn alloc(&self, layout: Layout) -> NonNull<u8> {
        self.try_alloc(layout).unwrap_or_else(|_| handle_alloc_error(layout))
    }

    /// A block, or why there is none.
    ///
    /// # Errors
    /// Out of memory, or the heap's cap is reached.
    #[inline]
    pub fn try_alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let block = match self.table.class_of_layout(layout.size(), layout.align()) {
            _ if layout.size() == 0 => return Ok(no_bytes(layout)),
            Some(class) => self.alloc_class(class),
            None => self.alloc_fallback(layout, Place::Best),
        };
        NonNull::new(block).ok_or_else(|| self.refusal(layout))
    }

    /// A block of zeros, or why there is none.
    ///
    /// # Errors
    /// As [`try_alloc`](Self::try_alloc).
    #[inline]
    pub fn try_alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let block = match self.table.class_of_layout(layout.size(), layout.align()) {
            _ if layout.size() == 0 => return Ok(no_bytes(layout)),
            Some(class) => self.alloc_class_zeroed(class, layout.size()),
            None => self.alloc_fallback_zeroed(layout),
        };
        NonNull::new(block).ok_or_else(|| self.refusal(layout))
    }

    /// Takes a block back, from any thread.
    ///
    /// Ends the process with a message that names the address, its size class, heap and shard if
    /// the block is another heap's (requirement G9) or no heap's.
    ///
    /// # Safety
    /// The block came from this heap, `layout` is what it was last asked for with, and it is given
    /// up.
    #[inline]
    pub unsafe fn dealloc(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() == 0 {
            return;
        }
        // SAFETY: the caller's contract.
        unsafe {
            if self.retires && !weakened("heap_frees_at_once") {
                return self.retire_here(block);
            }
            self.free_any(block.as_ptr())
        }
    }

    /// Changes a block's size, alignment, or both; as [`try_realloc`](Self::try_realloc), but ends as
    /// [`alloc`](Self::alloc) does when there is no memory.
    ///
    /// # Safety
    /// As [`try_realloc`](Self::try_realloc).
    #[inline]
    pub unsafe fn realloc(&self, block: NonNull<u8>, old: Layout, new: Layout) -> NonNull<u8> {
        // SAFETY: the caller's contract.
        unsafe { self.try_realloc(block, old, new) }.unwrap_or_else(|_| handle_alloc_error(new))
    }

    /// Changes a block's size, alignment, or both, in place where that can be. The contents stay, up
    /// to the smaller size.
    ///
    /// # Errors
    /// Out of memory, or the heap's cap is reached; the block is then as it was.
    ///
    /// # Safety
    /// The block came from this heap and `old` is what it was last asked for with. If this succeeds,
    /// the block at the old address is given up.
    #[inline]
    pub unsafe fn try_realloc(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocError> {
        let class = self.table.class_of_layout(new.size(), new.align());
        if class.is_some()
            && new.align() <= old.align()
            && old.size() != 0
            && new.size() != 0
            && class == self.table.class_of_layout(old.size(), old.align())
        {
            return Ok(block);
        }
        // SAFETY: the caller's contract.
        unsafe { self.try_realloc_slow(block, old, new) }
    }

    #[inline]
    pub(crate) fn is_global(&self) -> bool {
        self.id == HeapId::GLOBAL
    }

    /// The calling thread's shard of this heap, or the sentinel.
    #[inline]
    pub(crate) fn thread_shard(&self) -> &'static Shard {
        if self.is_global() { local::shard() } else { leases::shard(self) }
    }

    /// The same after all that can be done to have one.
    pub(crate) fn acquire(&self) -> Option<&'static Shard> {
        if self.is_global() { local::acquire() } else { leases::acquire(self) }
    }

    #[inline]
    pub(crate) fn alloc_class(&self, class: usize) -> Block {
        // SAFETY: the thread's shard or the sentinel; the class is one of the table's.
        let block = unsafe { self.thread_shard().alloc_fast(class) };
        if block.is_null() { self.alloc_slow(class) } else { block }
    }

    #[cold]
    unsafe fn try_realloc_slow(
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
        let block = unsafe { self.realloc_slow(block.as_ptr(), old, new) };
        NonNull::new(block).ok_or_else(|| self.refusal(new))
    }

    /// Why a request was refused, as far as can be told afterwards.
    #[cold]
    fn refusal(&self, layout: Layout) -> AllocError {
        let needed = match self.table.class_of_layout(layout.size(), layout.align()) {
            Some(_) => SEGMENT_BYTES,
            None => layout.size(),
        };
        match self.holdings {
            Some(holdings) if holdings.held().saturating_add(needed) > holdings.cap() => {
                AllocError::CapReached { layout, cap: holdings.cap() }
            }
            _ => AllocError::OutOfMemory { layout },
        }
    }
}

// SAFETY: blocks are exclusive until freed (rules S1, H1), at least as large and aligned as asked
// because the class table finds such a class and fallback blocks are mapped for the layout.
unsafe impl BlockPort for Heap {
    #[inline]
    fn try_alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.try_alloc(layout)
    }

    #[inline]
    fn try_alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.try_alloc_zeroed(layout)
    }

    #[inline]
    unsafe fn dealloc(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { self.dealloc(block, layout) }
    }

    #[inline]
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

// SAFETY: the global heap's blocks; all values of the type stand for it.
unsafe impl BlockPort for Flagstone {
    #[inline]
    fn try_alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        if layout.size() == 0 {
            return Ok(no_bytes(layout));
        }
        // SAFETY: the layout is not empty.
        let block = unsafe { GlobalAlloc::alloc(self, layout) };
        NonNull::new(block).ok_or(AllocError::OutOfMemory { layout })
    }

    #[inline]
    fn try_alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        if layout.size() == 0 {
            return Ok(no_bytes(layout));
        }
        // SAFETY: the layout is not empty.
        let block = unsafe { GlobalAlloc::alloc_zeroed(self, layout) };
        NonNull::new(block).ok_or(AllocError::OutOfMemory { layout })
    }

    #[inline]
    unsafe fn dealloc(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() != 0 {
            // SAFETY: the caller's contract.
            unsafe { GlobalAlloc::dealloc(self, block.as_ptr(), layout) }
        }
    }

    #[inline]
    unsafe fn try_realloc(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocError> {
        // SAFETY: the caller's contract.
        unsafe { Heap::global().try_realloc(block, old, new) }
    }
}
