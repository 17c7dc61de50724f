//! Any address may be asked about: inside a block, before it, after it, in nobody's memory.

#![allow(clippy::disallowed_types, reason = "loom does not run this file")]

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flagstone_slab::{Flagstone, Heap};

#[global_allocator]
static ALLOCATOR: Flagstone = Flagstone::new();

const SEGMENT: usize = 4 << 20;

fn with_block(bytes: usize, align: usize, check: impl FnOnce(*mut u8)) {
    let layout = Layout::from_size_align(bytes, align).unwrap();
    // SAFETY: the layout is not empty; the block is freed once, with it.
    unsafe {
        let block = ALLOCATOR.alloc(layout);
        assert!(!block.is_null());
        // Contents that make the worst head: every field large, every byte the heap's own number.
        block.write_bytes(1, bytes);
        check(block);
        ALLOCATOR.dealloc(block, layout);
    }
}

// requirement: D5
#[test]
fn inside_a_block_of_its_own_the_rest_of_it_is_usable() {
    let heap = Heap::global();
    for (bytes, align) in [(600 << 10, 8), (3 << 20, 1 << 17), (9 << 20, 8), (5 << 20, SEGMENT)] {
        with_block(bytes, align, |block| {
            let whole = heap.usable_size(block).expect("the block is the heap's");
            assert!(whole >= bytes && whole < bytes + (64 << 10), "{whole} for {bytes}");
            for offset in [1, 4096, 300 << 10] {
                let inside = block.wrapping_add(offset);
                assert_eq!(heap.usable_size(inside), Some(whole - offset), "{bytes} at {offset}");
            }
        });
    }
}

// requirement: D5
#[test]
fn outside_a_block_of_its_own_nothing_of_it_is_usable() {
    let heap = Heap::global();
    // Larger than what other tests free, so that nothing of theirs lies around it.
    with_block(70 << 20, SEGMENT, |block| {
        let whole = heap.usable_size(block).unwrap();
        for beside in [block.wrapping_sub(1), block.wrapping_add(whole)] {
            let usable = heap.usable_size(beside);
            assert!(usable.is_none_or(|bytes| bytes < 70 << 20), "{usable:?} beside the block");
        }
        // Every unit of it is known, not only the first.
        let late = block.wrapping_add(whole - 1);
        assert_eq!(heap.usable_size(late), Some(1));
    });
}

// requirement: D5
#[test]
fn heads_of_segments_and_foreign_memory_hold_no_block() {
    let heap = Heap::global();
    with_block(100, 8, |block| {
        let head = block.map_addr(|address| address & !(SEGMENT - 1));
        assert_eq!(heap.usable_size(head), None);
        assert_eq!(heap.usable_size(head.wrapping_add(4096)), None);
        assert!(heap.usable_size(block).is_some_and(|bytes| (100..=112).contains(&bytes)));
    });
    let local = 0u8;
    static STATIC: u8 = 0;
    for address in [&raw const local, &raw const STATIC, std::ptr::null(), usize::MAX as *const u8]
    {
        assert_eq!(heap.usable_size(address), None);
    }
}

/// Addresses are looked up while threads free the memory around them and segments go back to the system: a
/// head that were read after it was unmapped would end the process.
// requirement: D5
#[test]
fn addresses_may_be_asked_about_while_their_memory_goes() {
    const ROUNDS: usize = 60;
    let layout = Layout::from_size_align(100_000, 8).unwrap();
    let heap = Heap::builder().name("asked").build().unwrap();
    let asked = AtomicUsize::new(0);
    let found = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asker = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let address = std::ptr::without_provenance(asked.load(Ordering::Relaxed));
                if let Some(bytes) = heap.usable_size(address) {
                    assert!(bytes >= 100_000, "{bytes}");
                    found.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let mut unmapped = 0;
        for round in 0..ROUNDS {
            let blocks: Vec<_> = (0..200).map(|_| heap.alloc(layout)).collect();
            // Found once while all is in use, and asked about while it goes.
            let before = found.load(Ordering::Relaxed);
            asked.store(blocks[150].addr().get() + round, Ordering::Relaxed);
            let deadline = Instant::now() + Duration::from_secs(60);
            while found.load(Ordering::Relaxed) == before && !asker.is_finished() {
                if Instant::now() > deadline {
                    done.store(true, Ordering::Relaxed);
                    panic!("a block in use is not found");
                }
                std::thread::yield_now();
            }
            for block in blocks {
                // SAFETY: in use, and freed once.
                unsafe { heap.dealloc(block, layout) };
            }
            unmapped += heap.purge().scavenged.segments_unmapped;
        }
        done.store(true, Ordering::Relaxed);
        assert!(unmapped > 0, "no segment went");
    });
}

// requirement: D5
#[test]
fn of_a_borrowed_value_the_block_is_known() {
    let heap = Heap::global();
    let (small, large) = (Box::new([7u8; 100]), vec![7u8; 3 << 20]);
    assert_eq!(heap.usable_size_of(&*small), heap.usable_size((&raw const *small).cast()));
    assert_eq!(heap.usable_size_of(&small[99]), heap.usable_size_of(&*small));
    assert_eq!(heap.usable_size_of(&*large), heap.usable_size(large.as_ptr()));
    assert!(heap.usable_size_of(&*large).is_some_and(|bytes| bytes >= 3 << 20));
    let local = 0u8;
    assert_eq!(heap.usable_size_of(&local), None);
    assert_eq!(heap.usable_size_of(&large[..0]), None, "no bytes, no place");
    let other = Heap::builder().name("other").build().unwrap();
    assert_eq!(other.usable_size_of(&*small), None);
}
