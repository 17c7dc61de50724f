//! Heap instances: what a builder makes, what threads see of it, and what its end gives back.

mod common;

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::{Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::traced;
use flagstone_slab::port::{FixedRegion, OsPages, System, Tracing};
use flagstone_slab::stats::ShardState;
use flagstone_slab::{BuildFailure, ClassTable, Heap, OwnedHeap};

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).unwrap()
}

fn with_backing() -> (&'static Tracing<OsPages>, OwnedHeap<&'static Tracing<OsPages>>) {
    // Kept for ever, and where a leak detector finds it.
    static KEPT: Mutex<Vec<&Tracing<OsPages>>> = Mutex::new(Vec::new());
    let backing: &'static Tracing<OsPages> = Box::leak(Box::new(Tracing::new(OsPages)));
    KEPT.lock().unwrap().push(backing);
    (backing, Heap::builder().backing(backing).build().unwrap())
}

/// A block that goes from thread to thread.
struct Sent(NonNull<u8>);
// SAFETY: the tests hand each block to one thread at a time.
unsafe impl Send for Sent {}

// requirement: D3
#[test]
fn requests_that_fit_a_class_never_reach_the_fallback_and_oversize_ones_do() {
    let heap = traced(Heap::builder().class_table(ClassTable::SMALL_POOL));
    let sizes = [16u64, 24, 32, 48, 64, 96, 128, 192, 256];
    let classes: Vec<u64> = heap.snapshot().classes.iter().map(|c| c.block_bytes).collect();
    assert_eq!(classes, sizes);
    for bytes in 1..=256 {
        let block = heap.try_alloc(layout(bytes)).unwrap();
        let class = sizes.iter().find(|&&size| size >= bytes as u64).unwrap();
        assert_eq!(heap.usable_size(block.as_ptr()), Some(*class as usize));
        // SAFETY: just allocated with this layout.
        unsafe { heap.dealloc(block, layout(bytes)) };
    }
    let fits = heap.snapshot();
    assert_eq!((fits.fallback.allocs, fits.fallback.frees), (0, 0));
    let slab = heap.snapshot().classes.iter().find(|c| c.slabs > 0).copied().unwrap();
    assert_eq!(slab.slab_bytes / slab.slabs, 64 << 10, "slabs are 64 KiB");
    let block = heap.try_alloc(layout(257)).unwrap();
    // SAFETY: as above.
    unsafe { heap.dealloc(block, layout(257)) };
    let oversize = heap.snapshot();
    assert_eq!((oversize.fallback.allocs, oversize.fallback.frees), (1, 1));
}

#[test]
fn settings_that_cannot_be_met_are_refused_with_a_reason_and_give_the_backing_back() {
    let small = Heap::builder().cap(1 << 20).backing(Tracing::new(OsPages)).build().unwrap_err();
    assert!(matches!(small.failure, BuildFailure::CapTooSmall { cap, least }
        if cap == 1 << 20 && least > 4 << 20));
    assert_eq!(small.backing.requests(), 0);
    assert!(small.to_string().contains("1048576"));
    let buffer = Box::leak(Box::new_uninit_slice(4096));
    let none = Heap::builder().backing(FixedRegion::new(buffer)).build().unwrap_err();
    assert!(matches!(none.failure, BuildFailure::OutOfMemory { .. }));
}

// requirement: G8
#[test]
fn the_end_of_a_heap_gives_every_byte_back_with_blocks_still_out() {
    let (backing, heap) = with_backing();
    // Full slabs, partly used ones, slabs of several slices, fallback blocks near and apart.
    for bytes in [16, 40, 1000, 9000, 70_000, 512 << 10, 600 << 10, 5 << 20] {
        for i in 0..if bytes <= 1000 { 10_000 } else { 9 } {
            let block = heap.try_alloc(layout(bytes)).unwrap();
            if i % 3 == 0 {
                // SAFETY: just allocated.
                unsafe { heap.dealloc(block, layout(bytes)) };
            }
        }
    }
    for shift in [12, 16, 17, 22, 23] {
        heap.try_alloc(Layout::from_size_align(100, 1 << shift).unwrap()).unwrap();
    }
    // A fallback block that grew and so moved.
    let block = heap.try_alloc(layout(1 << 20)).unwrap();
    // SAFETY: just allocated.
    unsafe { heap.try_realloc(block, layout(1 << 20), layout(40 << 20)).unwrap() };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| heap.try_alloc(layout(100)).map(|_| ()).unwrap());
        }
    });
    assert!(backing.bytes_outstanding() > 40 << 20);
    assert_eq!(heap.held_bytes(), Some(backing.bytes_outstanding() as u64));
    assert!(heap.live_bytes() > 0);
    drop(heap);
    backing.assert_nothing_outstanding();
}

#[test]
fn a_backing_comes_out_of_the_heap_that_it_served() {
    let heap = Heap::builder().backing(Tracing::new(System::SYSTEM)).build().unwrap();
    heap.try_alloc(layout(64)).unwrap();
    heap.try_alloc(layout(1 << 20)).unwrap();
    let tracing = heap.into_backing();
    assert!(tracing.peak_bytes() > 5 << 20);
    tracing.assert_nothing_outstanding();
}

// requirement: D4
#[test]
fn more_threads_than_shards_are_served_and_counted() {
    const THREADS: usize = 12;
    let heap = traced(Heap::builder().shards(3));
    assert_eq!(heap.snapshot().shards.len(), 3, "made at once");
    assert_eq!(heap.missing_shards(), 0);
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        for t in 0..THREADS {
            let (heap, barrier): (&Heap, _) = (&heap, &barrier);
            scope.spawn(move || {
                let mut blocks = Vec::new();
                for i in 0..500 {
                    let block = heap.try_alloc(layout(24 + i % 64)).unwrap();
                    // SAFETY: at least 24 bytes.
                    unsafe { block.cast::<usize>().write(t * 1000 + i) };
                    blocks.push(block);
                    if i == 0 {
                        // All at once: more than there are shards have one now, or none.
                        barrier.wait();
                    }
                }
                for (i, block) in blocks.into_iter().enumerate() {
                    // SAFETY: allocated above.
                    unsafe {
                        assert_eq!(block.cast::<usize>().read(), t * 1000 + i);
                        heap.dealloc(block, layout(24 + i % 64));
                    }
                }
            });
        }
    });
    // The scope ends with the threads' closures, a little before the threads.
    let deadline = Instant::now() + Duration::from_secs(20);
    while heap.snapshot().shards_in(ShardState::Idle) < 3 && Instant::now() < deadline {
        thread::yield_now();
    }
    let snapshot = heap.snapshot();
    assert_eq!(snapshot.shards_in(ShardState::Idle), 3, "ended threads gave their shards back");
    assert_eq!(snapshot.shards.len(), 3);
    assert!(snapshot.tiers.bucket_hits > 0, "threads without a shard went to the buckets");
    assert!(snapshot.tiers.lease_refusals > 0);
    assert!(snapshot.shards.iter().all(|shard| shard.leases >= 1), "handed out in turn");
    assert_eq!(snapshot.bytes.live, 0);
    assert_eq!(snapshot.bytes.residual(), 0);
}

// requirement: D4
#[test]
fn without_shards_the_buckets_serve_and_without_memory_for_them_too() {
    let none = traced(Heap::builder().shards(0));
    let block = none.try_alloc(layout(100)).unwrap();
    // SAFETY: just allocated.
    unsafe { none.dealloc(block, layout(100)) };
    assert_eq!(none.snapshot().tiers.bucket_hits, 1);
    // A cap that leaves room for a segment and a few shards only.
    let room = 5 << 20;
    let few = traced(Heap::builder().cap(room).shards(1000));
    let missing = few.missing_shards();
    assert!(missing > 0 && missing < 1000, "{missing} missing");
    assert_eq!(few.snapshot().shards.len() + missing, 1000);
}

/// A bucket's slab has free blocks in chains when the last linked one goes: it has more to give.
#[test]
fn what_others_freed_to_a_buckets_slab_is_used_before_a_fresh_slab() {
    let heap = Heap::builder().class_table(ClassTable::new(&[1024]).unwrap()).shards(1);
    let heap = traced(heap);
    let heap: &Heap = &heap;
    let slab_of = |block: &NonNull<u8>| block.addr().get() >> 16;
    thread::scope(|scope| {
        let (to_owner, blocks) = mpsc::channel::<Vec<Sent>>();
        let (done, freed) = mpsc::channel();
        let (leased, ready) = mpsc::channel();
        scope.spawn(move || {
            // The one shard is this thread's.
            let own = heap.alloc(layout(8));
            leased.send(()).unwrap();
            for blocks in blocks {
                for block in blocks {
                    // SAFETY: sent to be freed.
                    unsafe { heap.dealloc(block.0, layout(1024)) };
                }
                flagstone_slab::thread::flush();
                done.send(()).unwrap();
            }
            // SAFETY: allocated above.
            unsafe { heap.dealloc(own, layout(8)) };
        });
        ready.recv().unwrap();
        let mut kept: Vec<_> = (0..63).map(|_| heap.alloc(layout(1024))).collect();
        let slab = slab_of(&kept[0]);
        assert!(kept.iter().all(|block| slab_of(block) == slab), "one slab, all but full");
        to_owner.send(kept.drain(1..).map(Sent).collect()).unwrap();
        freed.recv().unwrap();
        kept.extend((0..10).map(|_| heap.alloc(layout(1024))));
        assert!(
            kept.iter().all(|block| slab_of(block) == slab),
            "a slab with 60 free blocks is full"
        );
        for block in kept {
            // SAFETY: allocated above, not sent.
            unsafe { heap.dealloc(block, layout(1024)) };
        }
    });
}

#[test]
fn a_thread_that_ends_after_the_heap_is_gone_does_no_harm() {
    let (backing, heap) = with_backing();
    let (to_thread, from_main) = mpsc::channel::<OwnedHeap<_>>();
    let (to_main, from_thread) = mpsc::channel();
    let thread = thread::spawn(move || {
        let heap = from_main.recv().unwrap();
        heap.try_alloc(layout(64)).unwrap();
        to_main.send(heap).unwrap();
        // Ends only when the heap is gone.
        from_main.recv().ok()
    });
    to_thread.send(heap).unwrap();
    let heap = from_thread.recv().unwrap();
    assert_eq!(heap.snapshot().shards_in(ShardState::Leased), 1);
    drop(heap);
    backing.assert_nothing_outstanding();
    drop(to_thread);
    thread.join().unwrap();
}

#[test]
fn numbers_are_used_again_and_nothing_of_the_heap_before_is_found() {
    // More heaps than there are numbers, one after the other, on one thread that ends with a lease.
    for round in 0..600usize {
        let heap = traced(Heap::builder().name("short")).leaving_blocks();
        let block = heap.try_alloc(layout(64)).unwrap();
        // SAFETY: just allocated.
        unsafe { block.cast::<usize>().write(round) };
        assert_eq!(heap.snapshot().shards.len(), 1, "a lease of this heap, not of one before");
        assert_eq!(heap.live_bytes(), 64);
    }
}

#[test]
fn parked_threads_shards_are_visited_and_taken_back() {
    let heap = traced(Heap::builder().decay(Duration::ZERO)).leaving_blocks();
    let blocks: Vec<_> = (0..1000).map(|_| heap.try_alloc(layout(256)).unwrap()).collect();
    for block in blocks {
        // SAFETY: allocated above.
        unsafe { heap.dealloc(block, layout(256)) };
    }
    flagstone_slab::thread::park();
    assert_eq!(heap.snapshot().shards_in(ShardState::Parked), 1);
    let deadline = Instant::now() + Duration::from_secs(20);
    while heap.snapshot().bytes.cached > 0 && Instant::now() < deadline {
        heap.scavenge();
    }
    assert_eq!(heap.snapshot().bytes.cached, 0, "an idle heap holds nothing");
    heap.try_alloc(layout(256)).unwrap();
    assert_eq!(heap.snapshot().shards_in(ShardState::Leased), 1, "taken back");
    assert_eq!(heap.snapshot().shards.len(), 1);
    flagstone_slab::thread::give_back();
    assert_eq!(heap.snapshot().shards_in(ShardState::Idle), 1);
}

#[test]
fn a_parked_thread_takes_back_what_was_posted_when_it_flushes_or_gives_back() {
    use flagstone_slab::thread::{flush, give_back, park};
    let heap = traced(Heap::builder());
    let (instance, global): (&Heap, &Heap) = (&heap, Heap::global());
    for (heap, bring_home) in
        [instance, global].into_iter().flat_map(|heap| [(heap, flush as fn()), (heap, give_back)])
    {
        let block = Sent(heap.try_alloc(layout(7_000)).unwrap());
        park();
        let in_use =
            || heap.snapshot().classes.iter().find(|c| c.block_bytes >= 7_000).unwrap().in_use;
        assert_eq!(in_use(), 1);
        thread::scope(|scope| {
            scope.spawn(move || {
                // SAFETY: allocated above, freed once.
                unsafe { heap.dealloc({ block }.0, layout(7_000)) };
                give_back();
            });
        });
        bring_home();
        assert_eq!(in_use(), 0);
        assert_eq!(heap.snapshot().shards_in(ShardState::Leased), 0, "it stays away");
        give_back();
    }
}

#[test]
fn blocks_go_home_from_any_thread() {
    let heap = traced(Heap::builder());
    let sizes = [16usize, 200, 5000, 100_000, 2 << 20];
    thread::scope(|scope| {
        let (to_freer, blocks) = mpsc::channel::<(Sent, usize)>();
        let shared: &Heap = &heap;
        scope.spawn(move || {
            for (block, bytes) in blocks {
                // SAFETY: sent with its size, freed once.
                unsafe { shared.dealloc(block.0, layout(bytes)) };
            }
        });
        for i in 0..3000 {
            let bytes = sizes[if i % 100 == 0 { 4 } else { i % 4 }];
            to_freer.send((Sent(heap.try_alloc(layout(bytes)).unwrap()), bytes)).unwrap();
        }
    });
    // What the freeing thread has gathered is posted when it ends, a little after the scope.
    let deadline = Instant::now() + Duration::from_secs(20);
    while heap.live_bytes() > 0 && Instant::now() < deadline {
        flagstone_slab::thread::flush();
    }
    let snapshot = heap.snapshot();
    assert_eq!(snapshot.bytes.live, 0);
    assert_eq!(snapshot.bytes.residual(), 0);
    assert!(snapshot.remote.posted_blocks > 0);
}

// requirement: D7
#[test]
fn every_heap_has_statistics_of_its_own_by_name() {
    let a = traced(Heap::builder().name("index")).leaving_blocks();
    let b = traced(Heap::builder().name("log")).leaving_blocks();
    a.try_alloc(layout(100)).unwrap();
    a.try_alloc(layout(100)).unwrap();
    b.try_alloc(layout(3000)).unwrap();
    let (of_a, of_b) = (a.snapshot(), b.snapshot());
    assert_eq!((of_a.heap.as_str(), of_b.heap.as_str()), ("index", "log"));
    assert_eq!((of_a.bytes.live, of_b.bytes.live), (208, 3072));
    assert_eq!(of_a.classes.len(), of_a.locks.len() - 3);
    let mut names = Vec::new();
    Heap::for_each(|heap| names.push(heap.name().to_owned()));
    assert_eq!(names[0], "global");
    assert!(names.contains(&"index".to_owned()) && names.contains(&"log".to_owned()));
}

// requirement: D6
#[test]
fn retired_blocks_go_home_to_their_instance_and_with_it() {
    let (backing, heap) = with_backing();
    let participant = heap.domain().register();
    let guard = participant.pin();
    for bytes in [64, 5000, 1 << 20] {
        let block = heap.try_alloc(layout(bytes)).unwrap();
        // SAFETY: nobody else knows the block.
        unsafe { heap.retire(block, &guard) };
    }
    assert_eq!(heap.snapshot().bytes.retired, 64 + 5120 + (1 << 20));
    assert_eq!(Heap::global().snapshot().bytes.retired, 0);
    drop(guard);
    participant.collect();
    assert_eq!(heap.snapshot().bytes.retired, 0);
    assert_eq!(heap.live_bytes(), 0);
    // One that waits when the heap goes is not touched any more.
    let guard = participant.pin();
    let block = heap.try_alloc(layout(64)).unwrap();
    // SAFETY: as above.
    unsafe { heap.retire(block, &guard) };
    drop(heap);
    backing.assert_nothing_outstanding();
    drop(guard);
    participant.collect();
}

/// Records of large blocks come in chunks. Where a chunk ends, one block more is no reason to refuse,
/// whichever way the ranges before were cut and given back.
#[test]
fn large_blocks_are_refused_for_want_of_memory_and_not_of_records() {
    for decay in [Duration::ZERO, Duration::from_secs(1)] {
        let builder = || Heap::builder().class_table(ClassTable::SMALL_OBJECTS).decay(decay);
        let pages = builder().build().unwrap();
        let system = builder().backing(System::SYSTEM).build().unwrap();
        for (bytes, count) in [(2_000, 3_000), (5 << 20, 60)] {
            for number in 0..count {
                // Untouched: it is address space that is used up here.
                assert!(pages.try_alloc(layout(bytes)).is_ok(), "{number} of {bytes} bytes");
            }
        }
        for number in 0..1_000 {
            assert!(system.try_alloc(layout(300_000)).is_ok(), "{number}");
        }
    }
}
