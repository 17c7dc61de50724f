//! What is free in a caller's buffer: under the embedded heap, under a heap of its own, under neither.
// requirement: W1

use std::mem::MaybeUninit;
use std::ptr::NonNull;

use flagstone_slab::Heap;
use flagstone_slab::embedded::EmbeddedHeap;
use flagstone_slab::port::FixedRegion;

use crate::blocks::layout;
use crate::{reported, touch};

/// A buffer of which nothing is in use, on the system's allocator.
fn buffer(bytes: usize) -> Vec<u64> {
    vec![0; bytes / 8]
}

/// A region over a buffer, which must outlive it.
fn region(buffer: &mut [u64]) -> FixedRegion {
    let start = NonNull::from(&mut *buffer).cast();
    // SAFETY: the tests drop the region before the buffer, and use the buffer through it only.
    unsafe { FixedRegion::from_raw_parts(start, size_of_val(buffer), true) }
}

fn embedded(buffer: &mut [u64]) -> EmbeddedHeap {
    let heap = EmbeddedHeap::new();
    heap.give(region(buffer)).expect("large enough");
    heap
}

fn alloc(heap: &EmbeddedHeap, bytes: usize) -> NonNull<u8> {
    let block = heap.try_alloc(layout(bytes)).expect("room");
    (0..bytes).for_each(|at| touch(block, at));
    block
}

fn free(heap: &EmbeddedHeap, block: NonNull<u8>, bytes: usize) {
    // SAFETY: in use, and freed once.
    unsafe { heap.dealloc(block, layout(bytes)) };
}

#[test]
fn blocks_in_use_may_be_touched_and_the_buffer_afterwards() {
    assert!(!reported("buffers::blocks_in_use_may_be_touched_and_the_buffer_afterwards", || {
        let mut memory = buffer(259 << 10);
        let heap = embedded(&mut memory);
        for round in 0..3 {
            let sizes = [16, 100, 2_048, 3_000, 40_000];
            let mut blocks: Vec<_> = sizes.map(|bytes| (alloc(&heap, bytes), bytes)).into();
            for (block, bytes) in blocks.iter_mut().skip(round) {
                // SAFETY: in use, and given up here.
                *block = unsafe { heap.try_realloc(*block, layout(*bytes), layout(2 * *bytes)) }
                    .expect("room");
                *bytes *= 2;
                (0..*bytes).for_each(|at| touch(*block, at));
            }
            blocks.drain(..).for_each(|(block, bytes)| free(&heap, block, bytes));
        }
        drop(heap);
        memory.fill(7);
        assert!(memory.iter().all(|&word| word == 7));
    }));
}

#[test]
fn a_small_block() {
    assert!(reported("buffers::a_small_block", || {
        let mut memory = buffer(64 << 10);
        let heap = embedded(&mut memory);
        let (block, _other) = (alloc(&heap, 40), alloc(&heap, 40));
        free(&heap, block, 40);
        touch(block, 0);
    }));
}

#[test]
fn a_block_whose_slab_went_back() {
    assert!(reported("buffers::a_block_whose_slab_went_back", || {
        let mut memory = buffer(64 << 10);
        let heap = embedded(&mut memory);
        let block = alloc(&heap, 40);
        free(&heap, block, 40);
        // Needs all of the buffer, so no class keeps a slab.
        let all = alloc(&heap, 59 << 10);
        assert_eq!(heap.stats().slabs, 0);
        free(&heap, all, 59 << 10);
        touch(block, 39);
    }));
}

#[test]
fn the_first_word_of_a_range_where_the_list_is() {
    assert!(reported("buffers::the_first_word_of_a_range_where_the_list_is", || {
        let mut memory = buffer(64 << 10);
        let heap = embedded(&mut memory);
        let (block, _other) = (alloc(&heap, 3_000), alloc(&heap, 3_000));
        free(&heap, block, 3_000);
        touch(block, 0);
    }));
}

#[test]
fn the_end_of_a_range() {
    assert!(reported("buffers::the_end_of_a_range", || {
        let mut memory = buffer(64 << 10);
        let heap = embedded(&mut memory);
        let (block, _other) = (alloc(&heap, 30_000), alloc(&heap, 3_000));
        free(&heap, block, 30_000);
        touch(block, 29_999);
    }));
}

#[test]
fn the_part_that_a_range_gave_up() {
    assert!(reported("buffers::the_part_that_a_range_gave_up", || {
        let mut memory = buffer(64 << 10);
        let heap = embedded(&mut memory);
        let block = alloc(&heap, 30_000);
        // SAFETY: in use, and given up here.
        let same = unsafe { heap.try_realloc(block, layout(30_000), layout(5_000)) };
        assert_eq!(same, Ok(block));
        (0..5_000).for_each(|at| touch(block, at));
        touch(block, 6_000);
    }));
}

#[test]
fn memory_that_was_never_handed_out() {
    assert!(reported("buffers::memory_that_was_never_handed_out", || {
        let mut memory = buffer(64 << 10);
        let heap = embedded(&mut memory);
        touch(alloc(&heap, 3_000), 20_000);
    }));
}

#[test]
fn what_a_heap_gave_back_to_its_region() {
    assert!(reported("buffers::what_a_heap_gave_back_to_its_region", || {
        let memory: &'static mut [MaybeUninit<u8>] = Box::leak(Box::new_uninit_slice(24 << 20));
        let heap = Heap::builder().backing(FixedRegion::new(memory)).build().unwrap();
        let block = heap.alloc(layout(5 << 20));
        touch(block, 5_000);
        // SAFETY: in use, and freed once.
        unsafe { heap.dealloc(block, layout(5 << 20)) };
        heap.purge();
        assert!(heap.backing().contains(block.as_ptr()));
        touch(block, 5_000);
    }));
}
