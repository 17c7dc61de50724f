//! A heap's cap: never exceeded, however many threads allocate at once, and nothing lost by a refusal.

mod common;

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Barrier;
use std::thread;

use common::traced;
use flagstone_slab::Heap;
use flagstone_slab::port::AllocError;

const CAP: usize = 40 << 20;

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).unwrap()
}

// requirement: D4, W4
#[test]
fn threads_that_reserve_at_once_never_pass_the_cap() {
    const THREADS: usize = 8;
    let heap = traced(Heap::builder().cap(CAP));
    let barrier = Barrier::new(THREADS);
    for round in 0..3 {
        thread::scope(|scope| {
            for t in 0..THREADS {
                let (heap, barrier): (&Heap, _) = (&heap, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let mut blocks: Vec<(NonNull<u8>, Layout)> = Vec::new();
                    // Small blocks, a slab to each, and large ones, until there is no more.
                    for i in 0.. {
                        let layout = layout([60_000, 300_000, 2 << 20, 100][(t + i + round) % 4]);
                        match heap.try_alloc(layout) {
                            Ok(block) => blocks.push((block, layout)),
                            Err(error) => {
                                assert!(
                                    matches!(
                                        error,
                                        AllocError::CapReached { cap: CAP, .. }
                                            | AllocError::OutOfMemory { .. }
                                    ),
                                    "{error}"
                                );
                                break;
                            }
                        }
                        assert!(i < 100_000, "the cap does not hold");
                    }
                    barrier.wait();
                    for (block, layout) in blocks {
                        // SAFETY: allocated above, freed once.
                        unsafe { heap.dealloc(block, layout) };
                    }
                    flagstone_slab::thread::give_back();
                });
            }
        });
        assert!(heap.backing().peak_bytes() <= CAP, "{} taken", heap.backing().peak_bytes());
        assert_eq!(heap.held_bytes(), Some(heap.backing().bytes_outstanding() as u64));
    }
    assert_eq!(heap.cap(), Some(CAP as u64));
    assert!(heap.cap_refusals() > 0);
    assert!(heap.peak_held_bytes().unwrap() > CAP as u64 / 2, "the cap was what stopped them");
    assert_eq!(heap.live_bytes(), 0, "nothing is lost by refusals");
    // And the room can be had again.
    heap.purge();
    let block = heap.try_alloc(layout(CAP / 2)).unwrap();
    // SAFETY: just allocated.
    unsafe { heap.dealloc(block, layout(CAP / 2)) };
}

#[test]
fn whether_there_is_room_is_told_and_changes_nothing() {
    let heap = traced(Heap::builder().cap(CAP));
    let figures = || (heap.held_bytes(), heap.snapshot().bytes.mapped, heap.snapshot().fallback);
    let before = figures();
    assert!(heap.can_grow(0) && heap.can_grow(CAP / 2));
    assert!(!heap.can_grow(CAP) && !heap.can_grow(usize::MAX));
    assert_eq!(figures(), before);
    assert!(Heap::global().can_grow(1 << 20));
    assert!(!Heap::global().can_grow(1 << 60));
}

#[test]
fn a_refused_resize_leaves_the_block_and_says_why() {
    let heap = traced(Heap::builder().cap(CAP));
    let (old, new) = (layout(1 << 20), layout(CAP));
    let block = heap.try_alloc(old).unwrap();
    // SAFETY: the block is live throughout.
    unsafe {
        block.write_bytes(3, old.size());
        let error = heap.try_realloc(block, old, new).unwrap_err();
        assert_eq!(error, AllocError::CapReached { layout: new, cap: CAP });
        assert!(error.to_string().contains("cap"));
        assert!((0..old.size()).all(|at| block.add(at).read() == 3));
        heap.dealloc(block, old);
    }
    assert_eq!(heap.live_bytes(), 0);
}
