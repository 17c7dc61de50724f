//! The global allocator: `GlobalAlloc` over the global heap.
//!
//! Owns no state. Nothing here allocates through itself, panics, or waits but for the short locks of
//! the slow paths; out of memory is a null pointer.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;

use super::{Heap, local};
use crate::large::Place;
use crate::layout::{Block, SLICE_BYTES, class_of_common, class_of_layout};
use crate::shard::Freed;

/// The allocator to name in `#[global_allocator]` (requirement P1).
///
/// ```
/// use flagstone_slab::Flagstone;
///
/// #[global_allocator]
/// static ALLOCATOR: Flagstone = Flagstone::new();
///
/// let text = String::from("from a shard");
/// assert!(flagstone_slab::Heap::global().usable_size(text.as_ptr()).is_some());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Flagstone;

impl Flagstone {
    /// The allocator. It has no state of its own: the global heap is a static.
    pub const fn new() -> Self {
        Self
    }
}

// SAFETY: blocks are exclusive until freed (rules S1, H1), at least as large as asked because
// `class_of_layout` finds a class that holds the size, aligned because of the property it documents;
// fallback blocks are mapped for the layout. No method unwinds.
unsafe impl GlobalAlloc for Flagstone {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        alloc_block(layout)
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: the caller gives the block up.
        unsafe { free_block(block) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > SLICE_BYTES || layout.align() > SLICE_BYTES {
            return alloc_zeroed_apart(layout);
        }
        // SAFETY: the caller's contract.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: the block holds at least the layout's size.
            unsafe { ptr::write_bytes(block, 0, layout.size()) };
        }
        block
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let new_class = class_of_layout(new_size, layout.align());
        if new_class.is_some() && new_class == class_of_layout(layout.size(), layout.align()) {
            return block;
        }
        let Ok(new) = Layout::from_size_align(new_size, layout.align()) else {
            return ptr::null_mut();
        };
        // SAFETY: the caller's contract.
        unsafe { Heap::global().realloc_slow(block, layout, new) }
    }
}

/// The fast path of an allocation, in one place of the program.
///
/// Not inlined, nor is [`free_block`]: a program allocates in thousands of places, and thirty
/// instructions in each crowd out its own code (parsing JSON took 1.2 times as long).
#[inline(never)]
fn alloc_block(layout: Layout) -> Block {
    let Some(class) = class_of_common(layout.size(), layout.align()) else {
        return alloc_uncommon(layout);
    };
    // SAFETY: the thread's shard or the sentinel; the class is one of the table's.
    let block = unsafe { local::shard().alloc_fast(class) };
    if block.is_null() { Heap::global().alloc_slow(class) } else { block }
}

/// Zeroed blocks that have a slab or a range of their own, whose pages may be zeros already.
#[cold]
#[inline(never)]
fn alloc_zeroed_apart(layout: Layout) -> Block {
    match class_of_layout(layout.size(), layout.align()) {
        Some(class) => Heap::global().alloc_class_zeroed(class, layout.size()),
        None => Heap::global().alloc_fallback_zeroed(layout),
    }
}

/// The fast path of a free.
///
/// # Safety
/// The caller gives up `block`, which came from the global heap.
#[inline(never)]
unsafe fn free_block(block: Block) {
    const CHECK: bool = cfg!(feature = "hardened");
    let shard = local::shard();
    // SAFETY: the thread's shard or the sentinel; the caller gives the block up.
    unsafe {
        match shard.free_fast::<CHECK>(block) {
            Freed::Done => {}
            Freed::Look(slab) => Heap::global().look_at(shard, slab),
            Freed::Elsewhere => Heap::global().free_elsewhere::<CHECK>(shard, block),
        }
    }
}

/// Requests above a kibibyte or with stricter alignment than 8.
#[inline(never)]
fn alloc_uncommon(layout: Layout) -> Block {
    let Some(class) = class_of_layout(layout.size(), layout.align()) else {
        return Heap::global().alloc_fallback(layout, Place::Best);
    };
    // SAFETY: the thread's shard or the sentinel; the class is one of the table's.
    let block = unsafe { local::shard().alloc_fast(class) };
    if block.is_null() { Heap::global().alloc_slow(class) } else { block }
}
