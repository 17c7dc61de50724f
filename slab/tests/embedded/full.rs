//! A heap that is full refuses, stays whole, and serves again when blocks come back.

use std::alloc::Layout;
use std::ptr::NonNull;

use flagstone_slab::embedded::{EmbeddedHeap, GiveError};
use flagstone_slab::port::{AllocError, FixedRegion};

use crate::buffer::{Buffer, layout, shapes};

/// Allocates until there is no more; every byte of block `i` is `i`'s mark.
fn fill(heap: &EmbeddedHeap, layout: Layout, buffer: &Buffer) -> Vec<NonNull<u8>> {
    let mut blocks = Vec::new();
    loop {
        match heap.try_alloc(layout) {
            Ok(block) => {
                assert!(buffer.holds(block, layout.size()));
                assert!(block.addr().get().is_multiple_of(layout.align()));
                // SAFETY: just handed out.
                unsafe { block.write_bytes(blocks.len() as u8, layout.size()) };
                blocks.push(block);
            }
            Err(error) => {
                assert_eq!(error, AllocError::OutOfMemory { layout });
                break;
            }
        }
    }
    blocks
}

fn check(blocks: &[NonNull<u8>], bytes: usize) {
    for (i, block) in blocks.iter().enumerate() {
        // SAFETY: the blocks are in use.
        let contents = unsafe { std::slice::from_raw_parts(block.as_ptr(), bytes) };
        assert!(contents.iter().all(|&byte| byte == i as u8), "block {i}");
    }
}

fn free(heap: &EmbeddedHeap, blocks: impl IntoIterator<Item = NonNull<u8>>, layout: Layout) {
    // SAFETY: each block is given up once.
    blocks.into_iter().for_each(|block| unsafe { heap.dealloc(block, layout) });
}

#[test]
fn full_refuses_and_freed_serves_again() {
    for (bytes, offset) in shapes() {
        for (size, align) in
            [(16, 8), (64, 64), (100, 4), (1360, 16), (2048, 2048), (3000, 8), (9000, 4096)]
        {
            let mut buffer = Buffer::new(bytes, offset);
            let heap = buffer.heap().expect("large enough");
            let layout = layout(size, align);
            let mut blocks = fill(&heap, layout, &buffer);
            heap.debug_validate();
            assert!(heap.try_alloc(layout).is_err(), "still full");
            assert!(heap.stats().failures >= 2);
            check(&blocks, size);
            // Every other one back, and as many again.
            let half: Vec<_> = blocks.iter().copied().skip(1).step_by(2).collect();
            free(&heap, half.iter().copied(), layout);
            heap.debug_validate();
            let again = fill(&heap, layout, &buffer);
            assert_eq!(again.len(), half.len(), "{size}/{align} in {bytes}+{offset}");
            free(&heap, again, layout);
            let mut at = 0;
            blocks.retain(|_| {
                at += 1;
                at % 2 == 1
            });
            for (i, block) in blocks.iter().enumerate() {
                // SAFETY: in use.
                assert_eq!(unsafe { block.read() }, (2 * i) as u8, "survivors are as they were");
            }
            free(&heap, blocks, layout);
            heap.debug_validate();
            let stats = heap.stats();
            assert_eq!((stats.live, stats.allocs), (0, stats.frees), "{stats:?}");
            // All of it is one range again.
            let most = (stats.region - stats.metadata) & !4095;
            let whole = layout_of(most - 4096);
            let block = heap.try_alloc(whole).expect("the free region is whole");
            free(&heap, [block], whole);
            buffer.check_guards();
        }
    }
}

fn layout_of(bytes: usize) -> Layout {
    layout(bytes, 1)
}

/// What a program gets of its buffer: figures of `docs/embedded.md`.
#[test]
fn most_of_a_buffer_is_for_blocks() {
    for (kib, bytes, least) in [
        (64, 16, 88),
        (64, 64, 88),
        (64, 3000, 75),
        (256, 16, 95),
        (256, 64, 95),
        (256, 1000, 92),
        (1024, 48, 96),
        (1024, 5000, 93),
    ] {
        let mut buffer = Buffer::new(kib << 10, 0);
        let heap = buffer.heap().expect("large enough");
        let blocks = fill(&heap, layout(bytes, 8), &buffer);
        let share = blocks.len() * bytes * 100 / (kib << 10);
        println!("{kib} KiB in blocks of {bytes}: {share} %");
        assert!(share >= least, "{kib} KiB in blocks of {bytes}: {share} % and not {least}");
    }
}

#[test]
fn a_class_without_slabs_gets_what_others_have_free() {
    let mut buffer = Buffer::new(64 << 10, 0);
    let heap = buffer.heap().expect("large enough");
    let blocks = fill(&heap, layout(2048, 8), &buffer);
    let grains = fill(&heap, layout(512, 8), &buffer);
    // One block of 2 KiB is free and nothing else is: a small request gets it.
    free(&heap, [blocks[3]], layout(2048, 8));
    let small = heap.try_alloc(layout(24, 8)).expect("a larger block");
    assert!(heap.try_alloc(layout(24, 8)).is_err());
    heap.debug_validate();
    free(&heap, [small], layout(24, 8));
    free(&heap, grains, layout(512, 8));
    free(
        &heap,
        blocks.into_iter().enumerate().filter(|&(i, _)| i != 3).map(|(_, b)| b),
        layout(2048, 8),
    );
    // Empty slabs that classes keep go when a range needs them.
    for bytes in [16, 100, 500, 1000] {
        let block = heap.try_alloc(layout(bytes, 8)).expect("room");
        free(&heap, [block], layout(bytes, 8));
    }
    assert!(heap.stats().slabs >= 4, "{:?}", heap.stats());
    let large = layout(54 << 10, 8);
    let block = heap.try_alloc(large).expect("all slabs are empty");
    assert_eq!(heap.stats().slabs, 0);
    free(&heap, [block], large);
    heap.debug_validate();
}

#[test]
fn resizing_stays_in_place_where_it_can_and_never_fails_to_shrink() {
    let mut buffer = Buffer::new(64 << 10, 0);
    let heap = buffer.heap().expect("large enough");
    let (small, grown) = (layout(3000, 8), layout(30_000, 8));
    // SAFETY: the block's layout is followed below.
    unsafe {
        let block = heap.try_alloc(small).expect("room");
        block.write_bytes(9, 3000);
        let same = heap.try_realloc(block, small, grown).expect("room behind");
        assert_eq!(same, block, "what is behind the first range is free");
        let rest = fill(&heap, layout(500, 8), &buffer);
        assert!(heap.try_realloc(block, grown, layout(60_000, 8)).is_err());
        let shrunk = heap.try_realloc(block, grown, layout(10, 8)).expect("shrinks");
        assert!((0..10).all(|i| shrunk.add(i).read() == 9));
        heap.debug_validate();
        free(&heap, [shrunk], layout(10, 8));
        free(&heap, rest, layout(500, 8));
    }
    assert_eq!(heap.stats().live, 0);
    heap.debug_validate();
}

#[test]
fn zeroed_blocks_are_zeros_wherever_they_lay() {
    for bytes in [16, 300, 2048, 5000] {
        let mut buffer = Buffer::new(64 << 10, 7);
        let heap = buffer.heap().expect("large enough");
        let layout = layout(bytes, 8);
        let dirty = fill(&heap, layout, &buffer);
        free(&heap, dirty, layout);
        while let Ok(block) = heap.try_alloc_zeroed(layout) {
            // SAFETY: just handed out.
            let contents = unsafe { std::slice::from_raw_parts(block.as_ptr(), bytes) };
            assert!(contents.iter().all(|&byte| byte == 0), "{bytes}");
        }
        assert!(heap.stats().live > 48 << 10, "{:?}", heap.stats());
    }
}

#[test]
fn what_cannot_be_given_comes_back() {
    let heap = EmbeddedHeap::new();
    assert!(heap.try_alloc(layout(1, 1)).is_err(), "no region yet");
    assert_eq!(heap.stats().residual(), 0);
    for bytes in [0, 100, 4096, 5000] {
        let mut small = Buffer::new(bytes, 100);
        let Err(GiveError::TooSmall(region)) = small.heap() else {
            panic!("{bytes} bytes are no heap")
        };
        assert_eq!(region.free_bytes(), region.bytes());
        small.check_guards();
    }
    let mut buffers = [Buffer::new(64 << 10, 0), Buffer::new(64 << 10, 0)];
    let heap = buffers[0].heap().expect("large enough");
    let start = NonNull::from(&mut buffers[1].bytes).cast();
    // SAFETY: nothing is in the region, so nothing is touched.
    let second = unsafe { FixedRegion::from_raw_parts(start, 0, false) };
    assert!(matches!(heap.give(second), Err(GiveError::Given(_))));
    assert!(heap.try_alloc(layout(100, 8)).is_ok());
}
