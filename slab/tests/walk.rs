//! Statistics walk segments while these are mapped and unmapped.
#![allow(clippy::disallowed_types, reason = "loom does not run these tests")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use flagstone_slab::{Flagstone, Heap};

#[global_allocator]
static ALLOCATOR: Flagstone = Flagstone::new();

// requirement: D9
#[test]
fn snapshots_walk_segments_while_memory_is_returned() {
    let heap = Heap::global();
    heap.set_decay(Duration::ZERO);
    let done = AtomicBool::new(false);
    let walks = thread::scope(|scope| {
        let walkers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut walks = 0u64;
                    while !done.load(Ordering::Relaxed) {
                        let seen = heap.snapshot().segments;
                        let walked: u64 = seen.in_use.segments_by_use.iter().sum();
                        assert!(walked >= 1, "{seen:?}");
                        assert!(seen.in_use.used_slices <= walked * 63, "{seen:?}");
                        walks += 1;
                    }
                    walks
                })
            })
            .collect();
        let makers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..20 {
                        // Ten segments and more.
                        let blocks: Vec<_> = (0..450).map(|_| vec![1u8; 100_000]).collect();
                        drop(blocks);
                        heap.purge();
                    }
                })
            })
            .collect();
        makers.into_iter().for_each(|maker| maker.join().unwrap());
        done.store(true, Ordering::Relaxed);
        walkers.into_iter().map(|walker| walker.join().unwrap()).sum::<u64>()
    });
    assert!(walks > 0);
    heap.purge();
    let seen = heap.snapshot().segments;
    assert!(seen.unmapped_total > 100, "{seen:?}");
    let walked: u64 = seen.in_use.segments_by_use.iter().sum();
    assert_eq!(walked, seen.segments, "{seen:?}");
    let free = (seen.free_dirty_bytes + seen.free_clean_bytes) / (64 << 10);
    assert_eq!(seen.in_use.used_slices + free, walked * 63, "{seen:?}");
    assert_eq!(seen.in_use.populated_free_slices, seen.free_dirty_bytes / (64 << 10), "{seen:?}");
}
