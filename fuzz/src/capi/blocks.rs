//! The blocks of one heap, as a C program would keep them: address, size and alignment of each.
//!
//! Owns what is known of live blocks, and checks their contents whenever one is touched.

use std::ffi::c_void;
use std::ptr;

use flagstone_capi_calls as c;

/// Live blocks at most.
const MOST: usize = 64;

#[derive(Default)]
pub(super) struct Blocks(Vec<Block>);

struct Block {
    start: *mut c_void,
    size: usize,
    align: usize,
    seed: u8,
}

impl Blocks {
    /// Bytes of all blocks, as asked for.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|block| block.size).sum()
    }

    pub(super) fn alloc(&mut self, heap: *mut c::CHeap, size: usize, align: usize) {
        if self.0.len() == MOST {
            self.free(heap, 0);
        }
        // SAFETY: null or in use, here and below.
        let start = unsafe { c::flagstone_heap_alloc(heap, size, align) };
        if size > isize::MAX as usize || !(align == 0 || align.is_power_of_two()) {
            assert!(start.is_null(), "{size} bytes at {align}");
        }
        if !start.is_null() {
            self.put(start, size, align);
        }
    }

    pub(super) fn realloc(&mut self, heap: *mut c::CHeap, which: u8, size: usize) {
        let Some(block) = self.take(which) else {
            // SAFETY: without a block it is an allocation.
            let start = unsafe { c::flagstone_heap_realloc(heap, ptr::null_mut(), 9, size, 8) };
            if !start.is_null() {
                self.put(start, size, 8);
            }
            return;
        };
        // SAFETY: the block is of this heap and this layout; where it moved, the old place is not used.
        let moved =
            unsafe { c::flagstone_heap_realloc(heap, block.start, block.size, size, block.align) };
        if moved.is_null() {
            block.check(block.size);
            self.0.push(block);
            return;
        }
        Block { start: moved, ..block }.check(block.size.min(size));
        self.put(moved, size, block.align);
    }

    pub(super) fn free(&mut self, heap: *mut c::CHeap, which: u8) {
        let Some(Block { start, size, align, .. }) = self.take(which) else { return };
        // SAFETY: the block is of this heap and this layout, and given up.
        let status = unsafe { c::flagstone_heap_dealloc(heap, start, size, align) };
        assert_eq!(status, c::FLAGSTONE_OK);
    }

    /// A layout that cannot be: refused, and the block stays.
    pub(super) fn free_with_no_layout(&mut self, heap: *mut c::CHeap, which: u8, align: usize) {
        let Some(block) = self.take(which) else { return };
        let align = if align.is_power_of_two() { align + 2 + align % 2 } else { align.max(3) };
        if !align.is_power_of_two() {
            // SAFETY: a layout that cannot be is refused before the block is looked at.
            let status = unsafe { c::flagstone_heap_dealloc(heap, block.start, block.size, align) };
            assert_eq!(status, c::FLAGSTONE_INVALID);
            // SAFETY: as above.
            let moved =
                unsafe { c::flagstone_heap_realloc(heap, block.start, block.size, 1, align) };
            assert!(moved.is_null());
        }
        block.check(block.size);
        self.0.push(block);
    }

    pub(super) fn retire(&mut self, heap: *mut c::CHeap, which: u8) {
        let start = self.take(which).map_or(ptr::null_mut(), |block| block.start);
        // SAFETY: null, or a block of this heap that is given up.
        assert_eq!(unsafe { c::flagstone_retire(heap, start) }, c::FLAGSTONE_OK);
    }

    pub(super) fn free_all(&mut self, heap: *mut c::CHeap) {
        while !self.0.is_empty() {
            self.free(heap, 0);
        }
    }

    fn put(&mut self, start: *mut c_void, size: usize, align: usize) {
        let wanted = if align == 0 { 2 * size_of::<usize>() } else { align };
        assert!(start.addr().is_multiple_of(wanted), "{start:p} for {size} bytes at {align}");
        let (from, to) = (start.addr(), start.addr() + size);
        let overlaps =
            |other: &Block| from < other.start.addr() + other.size && other.start.addr() < to;
        assert!(!self.0.iter().any(overlaps), "{start:p} overlaps a live block");
        let block = Block { start, size, align, seed: (from >> 4) as u8 ^ size as u8 };
        block.fill();
        self.0.push(block);
    }

    fn take(&mut self, which: u8) -> Option<Block> {
        if self.0.is_empty() {
            return None;
        }
        let block = self.0.swap_remove(usize::from(which) % self.0.len());
        block.check(block.size);
        Some(block)
    }
}

impl Block {
    fn fill(&self) {
        for at in offsets(self.size) {
            // SAFETY: within the block, which is live.
            unsafe { self.start.cast::<u8>().add(at).write(self.seed.wrapping_add(at as u8)) };
        }
    }

    /// Checks the first `bytes` bytes.
    fn check(&self, bytes: usize) {
        for at in offsets(self.size).take_while(|&at| at < bytes) {
            // SAFETY: as above.
            let found = unsafe { self.start.cast::<u8>().add(at).read() };
            assert_eq!(found, self.seed.wrapping_add(at as u8), "byte {at} of {}", self.size);
        }
    }
}

/// Offsets that are written and checked, ascending: both ends, and one for each page between.
fn offsets(bytes: usize) -> impl Iterator<Item = usize> {
    let tail = bytes.saturating_sub(32).max(32);
    (0..bytes.min(32)).chain((32..tail).step_by(4096)).chain(tail..bytes)
}
