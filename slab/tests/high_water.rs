//! Peaks are never invented: a reader that is interrupted between two counters sees nonsense in
//! neither the marks nor the blocks in use.

#![allow(clippy::disallowed_types, reason = "loom does not run this file")]

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flagstone_slab::{Flagstone, Heap};

#[global_allocator]
static ALLOCATOR: Flagstone = Flagstone::new();

/// One thread allocates and frees one block over and over; more readers than processors look at the
/// sum, so that some are interrupted, or wait for a cache line, between the class's two counters.
#[test]
fn readers_that_are_interrupted_do_not_see_a_peak_that_never_was() {
    const READERS: usize = 8;
    const BYTES: u64 = 7_168;
    let heap = Heap::global();
    let layout = Layout::from_size_align(BYTES as usize, 8).unwrap();
    let stop = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..1_000 {
                    // SAFETY: the layout is not empty; the block is freed once, with it.
                    unsafe {
                        let block = ALLOCATOR.alloc(layout);
                        assert!(!block.is_null());
                        ALLOCATOR.dealloc(block, layout);
                    }
                }
            }
        });
        let read = || {
            let mut most = 0;
            while !stop.load(Ordering::Relaxed) {
                most = most.max(heap.live_bytes());
            }
            most
        };
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().unwrap()).max().unwrap()
    });
    // One block was there at a time; the rest is room for what starting the threads took.
    let now = heap.live_bytes();
    assert!(most < now + 4 * BYTES, "{most} bytes seen, {now} are there");
}
