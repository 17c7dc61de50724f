//! Blocks of their own that are resized by moving pages, while other threads map where they were.

use std::alloc::{GlobalAlloc, Layout};
use std::thread;

use flagstone_slab::{Flagstone, Heap};

#[global_allocator]
static ALLOCATOR: Flagstone = Flagstone::new();

/// Moving a block's pages frees its old place, which another thread may map before the mover has
/// come back from the system call: the segment map must have forgotten the old place by then.
/// Fails by aborting: a block that the map does not know is refused by its free.
#[test]
fn a_place_that_a_resize_left_belongs_to_whoever_maps_it_next() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 4_000;
    thread::scope(|scope| {
        for me in 0..THREADS {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let mut layout = Layout::from_size_align(600 << 10, 8).unwrap();
                    // SAFETY: the layouts are not empty, and each block is resized and freed with
                    // the layout it has.
                    unsafe {
                        let mut block = ALLOCATOR.alloc(layout);
                        assert!(!block.is_null());
                        block.cast::<usize>().write(me << 32 | round);
                        for bytes in [700 << 10, 800 << 10] {
                            block = ALLOCATOR.realloc(block, layout, bytes);
                            assert!(!block.is_null());
                            layout = Layout::from_size_align(bytes, 8).unwrap();
                            assert_eq!(block.cast::<usize>().read(), me << 32 | round);
                            let usable = Heap::global().usable_size(block);
                            assert!(usable.is_some_and(|usable| usable >= bytes), "{usable:?}");
                        }
                        ALLOCATOR.dealloc(block, layout);
                    }
                }
            });
        }
    });
}
