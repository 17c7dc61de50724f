//! The books close: counters are exact when nothing moves, the identity holds and
//! frees on other threads are seen.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::Mutex;
use std::thread;

use flagstone_slab::stats::{ClassSnapshot, HeapSnapshot};
use flagstone_slab::{Flagstone, Heap};

#[global_allocator]
static ALLOCATOR: Flagstone = Flagstone::new();

/// The tests of this file look at process-wide figures: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn class(snapshot: &HeapSnapshot, bytes: u64) -> ClassSnapshot {
    *snapshot.classes.iter().find(|class| class.block_bytes >= bytes).unwrap()
}

fn alloc(layout: Layout) -> *mut u8 {
    // SAFETY: layouts of these tests are not empty.
    let block = unsafe { ALLOCATOR.alloc(layout) };
    assert!(!block.is_null());
    block
}

fn free(block: *mut u8, layout: Layout) {
    // SAFETY: the tests free what they allocated, once, with the same layout.
    unsafe { ALLOCATOR.dealloc(block, layout) }
}

#[test]
fn counters_are_exact_on_one_thread() {
    let _guard = ONE_AT_A_TIME.lock();
    let heap = Heap::global();
    // Sizes that nothing else in this process uses.
    for bytes in [11_111usize, 3_333, 777] {
        let layout = Layout::from_size_align(bytes, 8).unwrap();
        let before = class(&heap.snapshot(), bytes as u64);
        let blocks: Vec<_> = (0..1_000).map(|_| alloc(layout)).collect();
        let during = class(&heap.snapshot(), bytes as u64);
        assert_eq!(during.allocs - before.allocs, 1_000);
        assert_eq!(during.in_use - before.in_use, 1_000);
        assert!(during.high_water >= during.in_use);
        for block in blocks {
            free(block, layout);
        }
        let after = class(&heap.snapshot(), bytes as u64);
        assert_eq!(after.frees - before.frees, 1_000);
        assert_eq!(after.in_use, before.in_use);
        assert!(
            after.slabs <= before.slabs + 5,
            "empty slabs go back, but for the current one, a reserve and the bucket's three"
        );
    }
}

// requirement: D3, D8
#[test]
fn what_fits_a_class_never_reaches_the_fallback_and_what_does_not_is_counted_there() {
    let _guard = ONE_AT_A_TIME.lock();
    let heap = Heap::global();
    let before = heap.snapshot().fallback;
    for bytes in [1usize, 16, 100, 4_096, 65_536, 512 * 1024] {
        let layout = Layout::from_size_align(bytes, 8).unwrap();
        free(alloc(layout), layout);
    }
    assert_eq!(heap.snapshot().fallback, before);
    let layout = Layout::from_size_align(512 * 1024 + 1, 8).unwrap();
    let block = alloc(layout);
    let during = heap.snapshot().fallback;
    assert_eq!(during.allocs - before.allocs, 1);
    assert_eq!(during.live_bytes - before.live_bytes, layout.size() as u64);
    assert_eq!(during.histogram.iter().sum::<u64>(), during.allocs);
    // SAFETY: allocated above with this layout.
    let block = unsafe { ALLOCATOR.realloc(block, layout, 3 << 20) };
    let grown = Layout::from_size_align(3 << 20, 8).unwrap();
    let resized = heap.snapshot().fallback;
    assert_eq!(resized.resizes - before.resizes, 1);
    assert_eq!(resized.allocs, during.allocs, "in place or by its pages, but not copied");
    free(block, grown);
    let after = heap.snapshot().fallback;
    assert_eq!(after.frees - before.frees, 1);
    assert_eq!(after.live_bytes, before.live_bytes);
    assert_eq!(after.mapped_bytes, before.mapped_bytes);
}

#[test]
fn the_identity_closes_when_nothing_moves() {
    let _guard = ONE_AT_A_TIME.lock();
    let heap = Heap::global();
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for i in 0..30_000usize {
        kept.push(vec![1; 1 + (i * 7919) % 5_000]);
        if i % 3 == 0 {
            kept.swap_remove(i * 31 % kept.len());
        }
    }
    kept.push(vec![2; 3 << 20]);
    let bytes = heap.snapshot().bytes;
    assert_eq!(bytes.residual(), 0, "{bytes:?}");
    assert!(bytes.live > 40 << 20);
    assert!(bytes.active >= bytes.live);
    let resident = bytes.resident.expect("this platform tells");
    assert!(resident >= bytes.live, "{resident} resident, {} live", bytes.live);
    let live = heap.live_bytes();
    // The snapshot's own vectors are alive while it is taken.
    let difference = heap.snapshot().bytes.live.abs_diff(live);
    assert!(difference < 64 << 10, "{difference} bytes apart");
    drop(kept);
    let bytes = heap.snapshot().bytes;
    assert_eq!(bytes.residual(), 0, "{bytes:?}");
}

#[test]
fn frees_on_other_threads_are_counted_as_batches() {
    let _guard = ONE_AT_A_TIME.lock();
    let heap = Heap::global();
    let before = heap.snapshot().remote;
    let blocks: Vec<Box<[u8; 72]>> = (0..10_000).map(|_| Box::new([0; 72])).collect();
    thread::spawn(move || {
        drop(blocks);
        flagstone_slab::thread::flush();
    })
    .join()
    .unwrap();
    let posted = heap.snapshot().remote;
    assert!(posted.posted_blocks - before.posted_blocks >= 10_000);
    let batches = posted.posted_batches - before.posted_batches;
    assert!(batches < 1_000, "{batches} batches for 10,000 blocks");
    flagstone_slab::thread::flush();
    let drained = heap.snapshot().remote;
    assert!(drained.drained_blocks - before.drained_blocks >= 10_000);
}
