//! A slab that changes its owner against frees that are routed to the old one.
//!
//! A real heap. The first thread has blocks of a slab; another frees one of them. Meanwhile the first
//! gives its shard back, a scavenger moves the slab on to the bucket, and another shard takes it from
//! there and frees the rest. The free may find any owner's name, post to a shard that has the slab no
//! more, or ask a bucket that has just given it away: it is passed on, and gets there (rules O1, B1,
//! F1, H1). On its way the block is marked, and its owner must not take the mark for a second free (F2). In the second test a thread without a shard routes its free by itself.
//!
//! control: drain_not_asked: Causality violation
//! control: bucket_not_asked: Causality violation
//! control: lease_release: Causality violation
//! control: mark_is_a_link: double free of
#![cfg(flagstone_loom)]

use std::alloc::Layout;
use std::ptr::NonNull;

use flagstone_loom_tests::heap::{World, builder, end, spawn};
use flagstone_loom_tests::model_within;
use flagstone_slab::stats::HeapSnapshot;
use flagstone_slab::thread;
use loom::sync::Arc;

const BYTES: usize = 8192;

fn layout() -> Layout {
    Layout::from_size_align(BYTES, 8).expect("a layout")
}

/// `shards` of the heap: with three everybody has a new one each time, with one somebody has none.
/// `matters` says whether an execution was of the kind that the test is about.
fn check(
    name: &str,
    preemptions: usize,
    shards: usize,
    matters: impl Fn(&HeapSnapshot) -> bool + Send + Sync + 'static,
) {
    model_within(preemptions, name, move || {
        let heap = Arc::new(World::new(builder(&[BYTES], shards).build().expect("memory")));
        let blocks = [(); 3].map(|()| heap.alloc(layout()));
        let remote = {
            let (heap, block) = (Arc::clone(&heap), blocks[0].addr().get());
            spawn(move || {
                let block = NonNull::new(std::ptr::with_exposed_provenance_mut(block));
                // SAFETY: allocated above, and given up by this thread alone.
                unsafe { heap.dealloc(block.expect("a block"), layout()) };
                thread::flush();
            })
        };
        thread::give_back();
        heap.scavenge();
        // From the bucket, if the slab is there.
        let more = heap.alloc(layout());
        for block in [blocks[1], blocks[2], more] {
            // SAFETY: as above, by the first thread.
            unsafe { heap.dealloc(block, layout()) };
        }
        remote.join().unwrap();

        let snapshot = heap.snapshot();
        end();
        heap.scavenge();
        heap.scavenge();
        assert_eq!(heap.live_bytes(), 0, "a block was lost");
        let slabs = heap.snapshot().classes[0].slabs;
        assert_eq!(slabs, 0, "a slab without blocks in use was kept");
        matters(&snapshot)
    });
}

#[test]
fn a_free_finds_the_new_owner() {
    // It went to a shard that had the slab no more.
    check("heap_owner", 2, 3, |seen| seen.remote.forwarded_batches > 0);
}

#[test]
fn a_free_without_a_shard_finds_the_new_owner() {
    // It went to a bucket.
    check("heap_owner_unsharded", 2, 1, |seen| seen.classes[0].bucket_frees > 0);
}
