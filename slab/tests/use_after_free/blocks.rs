//! Blocks of heaps, wherever they are on their way back.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::thread;

use flagstone_slab::{Heap, OwnedHeap, untyped};

use crate::{reported, touch};

pub fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).unwrap()
}

fn heap() -> OwnedHeap {
    Heap::builder().name("asan").build().unwrap()
}

fn free(heap: &Heap, block: NonNull<u8>, bytes: usize) {
    // SAFETY: in use, of this heap, and freed once.
    unsafe { heap.dealloc(block, layout(bytes)) };
}

#[test]
fn blocks_in_use_may_be_touched_to_their_ends() {
    assert!(!reported("blocks::blocks_in_use_may_be_touched_to_their_ends", || {
        let heap = heap();
        for bytes in [16, 24, 100, 5_000, 70_000, 600_000, 5 << 20] {
            for round in 0..3 {
                let block = heap.alloc(layout(bytes));
                let usable = heap.usable_size(block.as_ptr()).unwrap();
                (0..usable).step_by(1 + round).for_each(|at| touch(block, at));
                // SAFETY: in use, and given up here.
                let block = unsafe { heap.realloc(block, layout(bytes), layout(2 * bytes)) };
                (0..2 * bytes).for_each(|at| touch(block, at));
                // SAFETY: as above.
                let block = unsafe { heap.realloc(block, layout(2 * bytes), layout(bytes / 2)) };
                (0..bytes / 2).for_each(|at| touch(block, at));
                free(&heap, block, bytes / 2);
            }
        }
    }));
}

#[test]
fn a_small_block_that_went_back_to_its_slab() {
    assert!(reported("blocks::a_small_block_that_went_back_to_its_slab", || {
        let heap = heap();
        let block = heap.alloc(layout(48));
        free(&heap, block, 48);
        touch(block, 0);
    }));
}

#[test]
fn the_last_byte_of_a_block_among_others() {
    assert!(reported("blocks::the_last_byte_of_a_block_among_others", || {
        let heap = heap();
        let blocks: Vec<_> = (0..100).map(|_| heap.alloc(layout(200))).collect();
        free(&heap, blocks[50], 200);
        [49, 51].into_iter().for_each(|at| touch(blocks[at], 199));
        touch(blocks[50], 199);
    }));
}

#[test]
fn a_block_of_the_malloc_interface() {
    assert!(reported("blocks::a_block_of_the_malloc_interface", || {
        let block = NonNull::new(untyped::alloc(1000)).unwrap();
        touch(block, 999);
        // SAFETY: in use, and freed once.
        unsafe { untyped::free(block.as_ptr()) };
        touch(block, 500);
    }));
}

#[test]
fn a_block_that_another_thread_freed_and_has_not_posted() {
    assert!(reported("blocks::a_block_that_another_thread_freed_and_has_not_posted", || {
        let heap = heap();
        let block = heap.alloc(layout(64));
        let (heap, sent) = (&heap, block.as_ptr().expose_provenance());
        thread::scope(|scope| {
            let freer = scope.spawn(move || {
                let block = NonNull::new(std::ptr::with_exposed_provenance_mut(sent)).unwrap();
                // The thread's shard, without which there is no outbox.
                let own = heap.alloc(layout(64));
                free(heap, block, 64);
                assert!(heap.snapshot().remote.outbox_bytes > 0, "still on its way");
                touch(block, 8);
                free(heap, own, 64);
            });
            freer.join().unwrap();
        });
    }));
}

#[test]
fn a_block_of_the_bucket_tier() {
    assert!(reported("blocks::a_block_of_the_bucket_tier", || {
        let heap = Heap::builder().shards(0).build().unwrap();
        let block = heap.alloc(layout(300));
        touch(block, 299);
        free(&heap, block, 300);
        touch(block, 299);
    }));
}

#[test]
fn a_large_block() {
    assert!(reported("blocks::a_large_block", || {
        let heap = heap();
        let block = heap.alloc(layout(4 << 20));
        touch(block, (4 << 20) - 1);
        free(&heap, block, 4 << 20);
        touch(block, 1 << 20);
    }));
}

#[test]
fn the_part_that_a_large_block_gave_up() {
    assert!(reported("blocks::the_part_that_a_large_block_gave_up", || {
        let heap = heap();
        let block = heap.alloc(layout(4 << 20));
        // SAFETY: in use, and given up here.
        let shrunk = unsafe { heap.realloc(block, layout(4 << 20), layout(1 << 20)) };
        assert_eq!(shrunk, block);
        touch(block, (1 << 20) - 1);
        touch(block, 2 << 20);
    }));
}

#[test]
fn a_retired_block_not_before_its_grace_period_is_over() {
    assert!(!reported("blocks::a_retired_block_not_before_its_grace_period_is_over", || {
        let heap = heap();
        let block = heap.alloc(layout(80));
        heap.enter();
        // SAFETY: in use, and given up here.
        unsafe { heap.retire_here(block) };
        for _ in 0..10 {
            heap.advance();
            heap.collect();
        }
        touch(block, 40);
        heap.leave().unwrap();
    }));
}

#[test]
fn a_retired_block_after_its_grace_period() {
    assert!(reported("blocks::a_retired_block_after_its_grace_period", || {
        let heap = heap();
        let block = heap.alloc(layout(80));
        heap.enter();
        // SAFETY: in use, and given up here.
        unsafe { heap.retire_here(block) };
        heap.leave().unwrap();
        let freed = (0..1_000).any(|_| {
            heap.advance();
            heap.collect().blocks > 0
        });
        assert!(freed);
        touch(block, 40);
    }));
}

#[test]
fn blocks_that_were_never_handed_out() {
    assert!(reported("blocks::blocks_that_were_never_handed_out", || {
        let heap = heap();
        let block = heap.alloc(layout(1024));
        // The slab's blocks from here to its end.
        touch(block, 40_000);
    }));
}
