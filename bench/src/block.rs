//! Raw blocks from the process's allocator, marked at both ends and checked when freed.
//!
//! The one place of this crate that calls the allocator by hand, as `clippy.toml` asks. A [`Block`]
//! writes a tag to its first and last bytes, which is what a program would do at least, and looks
//! at both before it frees: a block handed out twice, or written over by a neighbour, ends the run
//! with a message instead of a fast result.

use std::alloc::{Layout, handle_alloc_error};
use std::hint::black_box;
use std::ptr::NonNull;

/// Alignment of every block: that of the widest plain field, as most Rust values have it.
pub const ALIGN: usize = 8;

/// Largest block in bytes: the size is kept in 32 bits.
const MAX_SIZE: usize = u32::MAX as usize;

/// One allocation of a given size that knows the tag written to it. 16 bytes itself.
///
/// Two fields and not three: a pair of words travels in registers. A larger structure is built on the
/// stack piece by piece and moved as a whole, and that load cannot be forwarded from several stores:
/// it took most of the time of some workloads, more or less of it with each allocator.
#[derive(Debug)]
pub struct Block {
    start: NonNull<u8>,
    /// Size in the upper half, tag in the lower.
    word: u64,
}

// SAFETY: a block owns its memory alone, and memory may be freed by any thread.
unsafe impl Send for Block {}

impl Block {
    /// Allocates `size` bytes and writes `tag` to both ends.
    ///
    /// # Panics
    /// Panics when `size` is zero or does not fit 32 bits. Ends the process, as the standard
    /// collections do, when the allocator refuses.
    #[inline]
    pub fn new(size: usize, tag: u32) -> Block {
        let start = allocate(size);
        let block = Block { start, word: (size as u64) << 32 | u64::from(tag) };
        block.mark();
        block
    }

    /// Bytes asked for.
    #[inline]
    pub fn size(&self) -> usize {
        (self.word >> 32) as usize
    }

    /// The tag it was made with.
    #[inline]
    pub fn tag(&self) -> u32 {
        self.word as u32
    }

    /// Writes one byte in every `stride` bytes, as a program that fills the block would touch its
    /// cache lines or pages. Leaves the tags in place.
    pub fn touch(&mut self, stride: usize) {
        let mut at = stride;
        while at + 4 < self.size() {
            // SAFETY: `at` is within the block, which this value owns.
            unsafe { self.start.as_ptr().add(at).write_volatile(at as u8) };
            at += stride;
        }
    }

    /// Reads both ends and compares them with the tag.
    #[inline]
    pub fn is_intact(&self) -> bool {
        let size = self.size();
        // SAFETY: both ends were written by `mark` and lie within the block; reads of the first
        // word happen only where the block has four bytes.
        unsafe {
            let first = if size >= 8 {
                self.start.cast::<u32>().read_volatile() == self.tag()
            } else {
                true
            };
            first && self.start.as_ptr().add(size - 1).read_volatile() == self.last_byte()
        }
    }

    #[inline]
    fn mark(&self) {
        let size = self.size();
        // SAFETY: the block is ours, `size` bytes long and aligned to eight.
        unsafe {
            if size >= 8 {
                self.start.cast::<u32>().write_volatile(self.tag());
            }
            self.start.as_ptr().add(size - 1).write_volatile(self.last_byte());
        }
    }

    #[inline]
    fn last_byte(&self) -> u8 {
        (self.word >> 32 ^ self.word) as u8
    }
}

impl Drop for Block {
    #[inline]
    fn drop(&mut self) {
        if !self.is_intact() {
            corrupted(self);
        }
        // SAFETY: made by `allocate` with this size, freed once because this is the drop.
        unsafe { release(self.start, self.size()) };
    }
}

/// Allocates `size` bytes with a layout that the compiler cannot see through.
///
/// Never inlined, nor is [`release`]: an allocator in Rust would be compiled into the workload's
/// loop, and how the loop comes out then (a value built on the stack in two stores and loaded in
/// one, say, which no processor forwards) would be measured as the allocator's.
///
/// # Panics
/// Panics when `size` is zero or above 4 GiB.
#[inline(never)]
pub fn allocate(size: usize) -> NonNull<u8> {
    let layout = opaque_layout(size);
    #[allow(clippy::disallowed_methods)] // reason: the benchmark is about this very call
    // SAFETY: the layout's size is not zero, as `opaque_layout` has checked.
    let start = unsafe { std::alloc::alloc(layout) };
    match NonNull::new(start) {
        Some(start) => start,
        None => handle_alloc_error(layout),
    }
}

/// Frees what [`allocate`] gave for the same `size`.
///
/// # Safety
/// `start` came from `allocate(size)` and has not been released since.
#[inline(never)]
pub unsafe fn release(start: NonNull<u8>, size: usize) {
    let layout = opaque_layout(size);
    #[allow(clippy::disallowed_methods)] // reason: as above
    // SAFETY: by this function's contract.
    unsafe {
        std::alloc::dealloc(start.as_ptr(), layout);
    }
}

/// The size goes through `black_box`, so that an allocator cannot have its size class computed at
/// compile time: in programs the size is mostly known only at run time. The alignment is a constant,
/// as it is for a type or a vector of it.
///
/// # Panics
/// Panics when `size` is zero or does not fit 32 bits.
#[inline]
pub fn opaque_layout(size: usize) -> Layout {
    let size = black_box(size);
    assert!((1..=MAX_SIZE).contains(&size), "blocks are of 1 byte to 4 GiB");
    // SAFETY: the alignment is a power of two, and the size far below `isize::MAX`.
    unsafe { Layout::from_size_align_unchecked(size, ALIGN) }
}

#[cold]
#[inline(never)]
fn corrupted(block: &Block) -> ! {
    panic!(
        "corrupted block at {:p}: {} bytes, tag {:#010x} is no longer at both ends",
        block.start,
        block.size(),
        block.tag()
    );
}

#[cfg(test)]
mod tests {
    use super::Block;

    #[test]
    fn a_block_of_every_small_size_is_intact() {
        for size in 1..200 {
            let mut block = Block::new(size, size as u32 * 7919);
            block.touch(16);
            assert!(block.is_intact(), "{size}");
            assert_eq!(block.size(), size);
        }
    }

    #[test]
    fn touching_pages_keeps_the_tags() {
        let mut block = Block::new(3 * 4096 + 1, 0xdead_beef);
        block.touch(4096);
        assert!(block.is_intact());
    }

    #[test]
    fn a_write_over_either_end_is_found() {
        for at in [0, 3, 99] {
            let block = Block::new(100, 0x0102_0304);
            // SAFETY: inside the block.
            let byte = unsafe { block.start.add(at) };
            // SAFETY: inside the block, written by `mark`.
            let before = unsafe { byte.read() };
            // SAFETY: inside the block.
            unsafe { byte.write(!before) };
            assert!(!block.is_intact(), "offset {at}");
            // SAFETY: inside the block; puts it right again so that the drop passes.
            unsafe { byte.write(before) };
        }
    }

    #[test]
    #[should_panic(expected = "corrupted block")]
    fn freeing_a_corrupted_block_fails_loudly() {
        let block = Block::new(64, 1);
        // SAFETY: inside the block.
        unsafe { block.start.write(9) };
        drop(block);
    }
}
