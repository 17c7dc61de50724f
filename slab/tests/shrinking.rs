//! What a resize leaves in place: small changes stay, but no sequence of them keeps a large block.

use std::alloc::{GlobalAlloc, Layout};

use flagstone_slab::{Flagstone, Heap};

#[global_allocator]
static ALLOCATOR: Flagstone = Flagstone::new();

#[test]
fn shrinking_step_by_step_gives_the_large_block_up() {
    for (from, keep) in [(1_000usize, 2), (4_096, 2), (60_000, 3), (500_000, 2)] {
        let mut layout = Layout::from_size_align(from, 8).unwrap();
        // SAFETY: the layouts are not empty; the block is resized and freed with the one it has.
        unsafe {
            let mut block = ALLOCATOR.alloc(layout);
            assert!(!block.is_null());
            while layout.size() > 32 {
                let bytes = layout.size() * (keep - 1) / keep;
                block = ALLOCATOR.realloc(block, layout, bytes);
                assert!(!block.is_null());
                layout = Layout::from_size_align(bytes, 8).unwrap();
                let usable = Heap::global().usable_size(block).unwrap();
                // Twice, and a class step of rounding.
                let most = bytes * 2 + bytes / 4 + 16;
                assert!(usable <= most, "{usable} bytes kept for {bytes}, from {from}");
            }
            ALLOCATOR.dealloc(block, layout);
        }
    }
}

#[test]
fn growing_into_what_the_block_holds_stays_in_place() {
    // SAFETY: as above.
    unsafe {
        let large = Layout::from_size_align(1_000, 8).unwrap();
        let small = Layout::from_size_align(600, 8).unwrap();
        let block = ALLOCATOR.alloc(large);
        assert_eq!(ALLOCATOR.realloc(block, large, 600), block);
        assert_eq!(ALLOCATOR.realloc(block, small, 1_000), block);
        ALLOCATOR.dealloc(block, large);
    }
}
