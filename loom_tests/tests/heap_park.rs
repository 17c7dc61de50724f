//! The life of a lease on a real heap: park, claim, unpark, the fast path after it, exit, adoption.
//!
//! One shard for two threads. The first has it, parks, allocates and frees again, and ends; the other
//! scavenges, which claims the shard if it rests, and allocates, from the shard if it was given back and
//! else from the bucket tier. A parked thread's fast path finds no shard: only after it took the lease
//! back does it touch the shard's cells, which loom watches (rule H1; D4).
//!
//! control: park_keeps_the_shard: Causality violation
//! control: lease_acquire: Causality violation
#![cfg(flagstone_loom)]

use std::alloc::Layout;

use flagstone_loom_tests::heap::{World, builder, end, spawn};
use flagstone_loom_tests::model;
use flagstone_slab::thread;
use loom::sync::Arc;

fn layout() -> Layout {
    Layout::from_size_align(1024, 8).expect("a layout")
}

/// Allocates a block and frees it.
fn use_heap(heap: &World) {
    let block = heap.alloc(layout());
    // SAFETY: just allocated.
    unsafe { heap.dealloc(block, layout()) };
}

// requirement: D4
#[test]
fn a_parked_thread_touches_its_shard_when_it_has_it_again() {
    model("heap_park", || {
        let heap = Arc::new(World::new(builder(&[1024], 1).build().expect("memory")));
        use_heap(&heap);
        let other = {
            let heap = Arc::clone(&heap);
            spawn(move || {
                let claimed = heap.scavenge().shards_claimed;
                use_heap(&heap);
                claimed > 0
            })
        };
        thread::park();
        use_heap(&heap);
        end();
        let claimed = other.join().unwrap();

        assert_eq!(heap.live_bytes(), 0, "a block was lost");
        claimed
    });
}
