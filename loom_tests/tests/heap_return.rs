//! A slab returned whole to its segment against a remote free in flight.
//!
//! A real heap. The first thread has all eight blocks of a slab. Another frees one of them; the first
//! frees the others, takes back what was posted, gives its empty slabs to the pool, and takes a slab of
//! another class, which may be cut from the same slice. Until the block in flight is back its slab is
//! in use, so what the other thread reads of it, its slice, class and owner, stays (rules S2, S3, O1, F1).
//!
//! control: slab_not_empty: Causality violation
//! control: inbox_post: Causality violation
#![cfg(flagstone_loom)]

use std::alloc::Layout;

use flagstone_loom_tests::heap::{World, builder, end, spawn};
use flagstone_loom_tests::model;
use flagstone_slab::thread;
use loom::sync::Arc;

/// Eight blocks of it make a slab of one slice.
const BYTES: usize = 8192;
const OTHER: usize = 4096;

#[test]
fn a_slab_stays_until_its_last_block_is_back() {
    model("heap_return", || {
        let heap = Arc::new(World::new(builder(&[OTHER, BYTES], 2).build().expect("memory")));
        let layout = Layout::from_size_align(BYTES, 8).expect("a layout");
        let blocks: Vec<_> = (0..8).map(|_| heap.alloc(layout)).collect();
        // The ninth makes another slab current: the first one sleeps, and can become empty.
        let ninth = heap.alloc(layout);
        let remote = {
            let (heap, block) = (Arc::clone(&heap), blocks[0].as_ptr().addr());
            let block = std::ptr::with_exposed_provenance_mut(block);
            spawn(move || {
                let block = std::ptr::NonNull::new(block).expect("a block");
                // SAFETY: allocated above, and given up by this thread alone.
                unsafe { heap.dealloc(block, layout) };
                // Posts it.
                thread::flush();
            })
        };
        for block in blocks[1..].iter().chain([&ninth]) {
            // SAFETY: as above, by the first thread.
            unsafe { heap.dealloc(*block, layout) };
        }
        let before = slabs(&heap);
        thread::give_back();
        let returned = before - slabs(&heap);
        let other = Layout::from_size_align(OTHER, 8).expect("a layout");
        let taken = heap.alloc(other);
        remote.join().unwrap();

        // SAFETY: just allocated.
        unsafe { heap.dealloc(taken, other) };
        end();
        heap.scavenge();
        heap.scavenge();
        assert_eq!(heap.live_bytes(), 0, "a block was lost");
        assert_eq!(slabs(&heap), 0, "a slab without blocks in use was kept");
        // The case that matters: the slab went while the other thread was still about.
        returned == 2
    });
}

fn slabs(heap: &World) -> u64 {
    heap.snapshot().classes.iter().map(|class| class.slabs).sum()
}
