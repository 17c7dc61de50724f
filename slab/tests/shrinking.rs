//! What a resize leaves in place: small changes stay, but no sequence of them keeps a large block.

use std::alloc::{GlobalAlloc, Layout};

use flagstone_slab::{ClassTable, Flagstone, Heap};

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

/// A stricter alignment has a larger class. A block that lies well by chance is not of that class, and
/// what it is asked for next has no room in it.
#[test]
fn stricter_alignment_for_a_while_leaves_no_block_too_small() {
    let layout = |bytes, align| Layout::from_size_align(bytes, align).unwrap();
    // requirement: D3
    let instance = Heap::builder().class_table(ClassTable::new(&[392, 2912]).unwrap());
    let instance = instance.build().unwrap();
    let cases: [(&Heap, _, _, _); 2] = [
        (Heap::global(), layout(100, 8), layout(100, 4096), layout(4_000, 8)),
        (&instance, layout(182, 4), layout(261, 16), layout(2_715, 1)),
    ];
    for (heap, first, strict, large) in cases {
        // All of a slab's blocks and more: some lie at a multiple of the strict alignment.
        for _ in 0..1_000 {
            let block = heap.alloc(first);
            // SAFETY: resized with the layout it has each time.
            let block = unsafe { heap.realloc(block, first, strict) };
            assert!(block.addr().get().is_multiple_of(strict.align()));
            // SAFETY: as above.
            let block = unsafe { heap.realloc(block, strict, large) };
            assert!(heap.usable_size(block.as_ptr()).unwrap() >= large.size());
        }
    }
}
