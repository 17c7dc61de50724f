//! Blocks of the global heap without a layout: what callers in C can say about their memory.
//!
//! Owns no state. Where [`Flagstone`] is told size and alignment on every call, a C caller frees
//! with an address alone and expects every block of 16 bytes or more at a multiple of 16. Both
//! interfaces share one heap; a block of either may be freed by either.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;

use super::{Flagstone, Heap, local};
use crate::layout::{Block, LARGEST};
use crate::os::{fatal, keep_errno};
use crate::shard::{Freed, Shard};

/// The alignment that C expects of any block: that of `max_align_t`.
pub const MALLOC_ALIGN: usize = 16;

/// Sizes up to here find their class in one table load.
const COMMON_MAX: usize = 1024;

/// `bytes` as a layout whose class is aligned to [`MALLOC_ALIGN`]: any class that holds a multiple
/// of 16 is itself one.
#[inline(always)]
fn layout(bytes: usize) -> Option<Layout> {
    let rounded = bytes.max(1).wrapping_add(MALLOC_ALIGN - 1) & !(MALLOC_ALIGN - 1);
    if bytes > isize::MAX as usize - MALLOC_ALIGN {
        return None;
    }
    // The smaller alignment leads to the shorter path; the size alone sees to 16.
    let align = if rounded <= COMMON_MAX { 8 } else { MALLOC_ALIGN };
    // SAFETY: the alignment is a power of two, and the size was checked above.
    Some(unsafe { Layout::from_size_align_unchecked(rounded, align) })
}

/// A block of at least `bytes` bytes at a multiple of [`MALLOC_ALIGN`]; null when there is no memory
/// or `bytes` comes near `isize::MAX`. Zero bytes give a block of their own.
#[inline]
pub fn alloc(bytes: usize) -> *mut u8 {
    let Some(layout) = layout(bytes) else { return ptr::null_mut() };
    // SAFETY: the layout's size is not zero.
    unsafe { Flagstone.alloc(layout) }
}

/// The same, filled with zeros.
#[inline]
pub fn alloc_zeroed(bytes: usize) -> *mut u8 {
    let Some(layout) = layout(bytes) else { return ptr::null_mut() };
    // SAFETY: the layout's size is not zero.
    unsafe { Flagstone.alloc_zeroed(layout) }
}

/// A block of at least `bytes` bytes at a multiple of `align`, a power of two; null when there is no
/// memory or no such layout.
pub fn alloc_aligned(bytes: usize, align: usize) -> *mut u8 {
    if align <= MALLOC_ALIGN {
        return alloc(bytes);
    }
    match Layout::from_size_align(bytes.max(1), align) {
        // SAFETY: the layout's size is not zero.
        Ok(layout) => unsafe { Flagstone.alloc(layout) },
        Err(_) => ptr::null_mut(),
    }
}

/// Frees a block. `errno` stays as it is. Aborts on an address that no heap handed out.
///
/// # Safety
/// `block` came from the global heap, by this interface or by [`Flagstone`], and is given up.
#[inline]
pub unsafe fn free(block: *mut u8) {
    let shard = local::shard();
    // SAFETY: the thread's shard or the sentinel; the caller gives the block up.
    unsafe {
        match shard.free_fast::<true>(block) {
            Freed::Done => {}
            other => free_beyond(shard, block, other),
        }
    }
}

/// # Safety
/// As [`free`]; `freed` is what the fast path found.
#[cold]
#[inline(never)]
unsafe fn free_beyond(shard: &'static Shard, block: Block, freed: Freed) {
    keep_errno(|| {
        // SAFETY: by contract.
        unsafe {
            match freed {
                Freed::Done => {}
                Freed::Look(slab) => Heap::global().look_at(shard, slab),
                Freed::Elsewhere => Heap::global().free_elsewhere::<true>(shard, block),
            }
        }
    });
}

/// Bytes that a block really holds, or `None` if no block of the global heap lies there.
///
/// # Safety
/// If `block` lies in the global heap, it is a block in use, which nobody frees meanwhile. Of any address
/// [`Heap::usable_size`] may be asked.
#[inline]
pub unsafe fn usable_size(block: *const u8) -> Option<usize> {
    // SAFETY: by contract.
    unsafe { Heap::global().usable_size_in_use(block) }
}

/// Changes a block's size to at least `bytes`, in place or by moving it; the contents stay up to the
/// smaller size. Null when there is no memory: the block is then as before. The result is aligned
/// to [`MALLOC_ALIGN`], whatever the block's alignment was.
///
/// # Safety
/// `block` is a block in use of the global heap, given up if the result is not null.
pub unsafe fn resize(block: *mut u8, bytes: usize) -> *mut u8 {
    let Some(layout) = layout(bytes) else { return ptr::null_mut() };
    // SAFETY: by contract.
    let Some(held) = (unsafe { usable_size(block) }) else {
        fatal(format_args!("realloc of {block:p}, which no Flagstone heap handed out"))
    };
    let new = layout.size();
    // Shrinking by less than half stays: the copy would cost more than the rest is worth. A block that
    // was asked for by a layout may lie worse than what this promises.
    let stays = held <= LARGEST && new <= held && new >= held / 2;
    if stays && block.addr().is_multiple_of(MALLOC_ALIGN) {
        return block;
    }
    if held > LARGEST {
        // Above the largest class pages move instead of bytes.
        // SAFETY: the block holds `held` bytes; both sizes are valid layouts.
        return unsafe {
            let old = Layout::from_size_align_unchecked(held, MALLOC_ALIGN);
            Flagstone.realloc(block, old, new)
        };
    }
    // SAFETY: both blocks hold the smaller size and are distinct; the caller gives the old one up.
    unsafe {
        let moved = Flagstone.alloc(layout);
        if !moved.is_null() {
            ptr::copy_nonoverlapping(block, moved, held.min(bytes));
            free(block);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_aligned_and_holds_what_was_asked() {
        for bytes in (0..2100).chain([4096, 65_537, LARGEST, LARGEST + 1, 9 << 20]) {
            let block = alloc(bytes);
            assert!(!block.is_null());
            assert!(block.addr().is_multiple_of(MALLOC_ALIGN), "{bytes}");
            assert!(Heap::global().usable_size(block).expect("ours") >= bytes);
            // SAFETY: the block holds `bytes` and is freed once.
            unsafe {
                block.write_bytes(0xA5, bytes);
                free(block);
            }
            let zeroed = alloc_zeroed(bytes);
            // SAFETY: as above.
            unsafe {
                assert!((0..bytes).all(|i| zeroed.add(i).read() == 0), "{bytes}");
                free(zeroed);
            }
        }
        assert!(alloc(usize::MAX).is_null());
        assert!(alloc(isize::MAX as usize).is_null());
        assert!(alloc_aligned(usize::MAX, 64).is_null());
    }

    #[test]
    fn what_a_layout_gave_is_aligned_once_it_is_resized() {
        for (bytes, new) in [(24, 16), (40, 32), (56, 48), (120, 112)] {
            let layout = Layout::from_size_align(bytes, 8).expect("a layout");
            // SAFETY: the blocks hold as many bytes; each is resized and freed once.
            let blocks: Vec<_> = (0..8).map(|_| unsafe { Flagstone.alloc(layout) }).collect();
            for block in blocks {
                // SAFETY: as above.
                unsafe {
                    block.write_bytes(0x5A, bytes);
                    let block = resize(block, new);
                    assert!(block.addr().is_multiple_of(MALLOC_ALIGN), "{bytes} to {new}");
                    assert!((0..new).all(|i| block.add(i).read() == 0x5A));
                    free(block);
                }
            }
        }
    }

    #[test]
    fn strict_alignments_hold_and_survive_being_resized() {
        for align in (0..24).map(|shift| 1usize << shift) {
            for bytes in [0, 1, 100, 5000, 1 << 20] {
                let block = alloc_aligned(bytes, align);
                assert!(block.addr().is_multiple_of(align), "{bytes} at {align}");
                let filled = bytes.max(1);
                // SAFETY: the blocks hold what was asked; `resize` gives the old one up.
                unsafe {
                    block.write_bytes(0x5A, filled);
                    let other = resize(block, 3 * bytes + 40);
                    assert!(other.addr().is_multiple_of(MALLOC_ALIGN));
                    assert!((0..filled).all(|i| other.add(i).read() == 0x5A));
                    let small = resize(other, filled / 2 + 1);
                    assert!((0..filled / 2).all(|i| small.add(i).read() == 0x5A));
                    free(small);
                }
            }
        }
    }

    #[test]
    fn a_refused_resize_leaves_the_block() {
        let block = alloc(100);
        // SAFETY: the block is in use throughout.
        unsafe {
            block.write_bytes(1, 100);
            assert!(resize(block, usize::MAX - 4).is_null());
            assert!(resize(block, isize::MAX as usize - 4096).is_null());
            assert!((0..100).all(|i| block.add(i).read() == 1));
            free(block);
        }
    }
}
