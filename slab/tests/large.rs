//! Large blocks: cached, resized without a copy, zeroed when asked for, given back.

mod common;

use std::alloc::{GlobalAlloc, Layout};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use flagstone_slab::stats::HeapSnapshot;
use flagstone_slab::{Flagstone, Heap};

/// Blocks come from here by calls; the test program itself uses the system's allocator, so that
/// the heap's figures are the test's alone.
static HEAP: Flagstone = Flagstone::new();

/// The tests of this file look at process-wide figures: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const MIB: usize = 1 << 20;

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).unwrap()
}

fn alloc(bytes: usize) -> *mut u8 {
    // SAFETY: layouts of these tests are not empty.
    let block = unsafe { HEAP.alloc(layout(bytes)) };
    assert!(!block.is_null());
    block
}

fn free(block: *mut u8, bytes: usize) {
    // SAFETY: the tests free what they allocated, once, with the layout it has.
    unsafe { HEAP.dealloc(block, layout(bytes)) }
}

fn resize(block: *mut u8, bytes: usize, to: usize) -> *mut u8 {
    // SAFETY: as in `free`.
    let block = unsafe { HEAP.realloc(block, layout(bytes), to) };
    assert!(!block.is_null());
    block
}

/// A byte for each place, different between neighbouring pages.
fn pattern(at: usize, seed: u8) -> u8 {
    (at as u8).wrapping_add((at >> 12) as u8).wrapping_mul(31).wrapping_add(seed)
}

fn fill(block: *mut u8, range: std::ops::Range<usize>, seed: u8) {
    for at in range.step_by(512) {
        // SAFETY: within the block, by the callers.
        unsafe { block.add(at).write(pattern(at, seed)) };
    }
}

fn check(block: *mut u8, bytes: usize, seed: u8) {
    for at in (0..bytes).step_by(512) {
        // SAFETY: within the block.
        assert_eq!(unsafe { block.add(at).read() }, pattern(at, seed), "byte {at} of {bytes}");
    }
}

/// A snapshot of a heap at rest: the thread of an earlier test may still be on its way out.
fn quiet_snapshot() -> HeapSnapshot {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let snapshot = Heap::global().snapshot();
        if snapshot.bytes.residual() == 0 {
            return snapshot;
        }
        assert!(Instant::now() < deadline, "{:?}", snapshot.bytes);
        thread::yield_now();
    }
}

// requirement: D8
#[test]
fn a_freed_block_stays_populated_and_serves_the_next_one() {
    let _alone = common::alone(&ONE_AT_A_TIME);
    let heap = Heap::global();
    heap.purge();
    let before = quiet_snapshot().fallback;
    let block = alloc(20 * MIB);
    fill(block, 0..20 * MIB, 1);
    free(block, 20 * MIB);
    let cached = quiet_snapshot();
    assert_eq!(cached.fallback.mapped_bytes, before.mapped_bytes);
    assert_eq!(cached.fallback.cached_bytes - before.cached_bytes, 20 << 20);
    assert!(cached.bytes.cached >= 20 << 20);
    // Smaller ones are cut out of it; what is left stays.
    let blocks: Vec<_> = (0..3).map(|_| alloc(6 * MIB)).collect();
    let inside = blocks.iter().all(|b| (block.addr()..block.addr() + 20 * MIB).contains(&b.addr()));
    assert!(inside, "fresh memory was taken while some was cached");
    assert_eq!(quiet_snapshot().fallback.cached_bytes - before.cached_bytes, 2 << 20);
    blocks.into_iter().for_each(|block| free(block, 6 * MIB));
    // And they join again.
    let again = alloc(20 * MIB);
    assert_eq!(again, block);
    free(again, 20 * MIB);
    let after = quiet_snapshot().fallback;
    assert_eq!(after.frees - before.frees, 5);
    assert_eq!(after.live_bytes, before.live_bytes);
}

#[test]
fn zeroed_means_zero_after_reuse() {
    let _alone = common::alone(&ONE_AT_A_TIME);
    Heap::global().purge();
    for round in 0..8usize {
        let dirty = [9 * MIB, 3 * MIB, 5 * MIB + 12_345].map(|bytes| (alloc(bytes), bytes));
        for (block, bytes) in dirty {
            // SAFETY: within the block.
            unsafe { block.write_bytes(0xEE, bytes) };
        }
        for (block, bytes) in dirty {
            free(block, bytes);
        }
        // Larger than any populated range, and smaller: joined with clean ones, or cut.
        for bytes in [600 * 1024 + round, 4 * MIB, 12 * MIB + round * 70_000, 40 * MIB] {
            // SAFETY: the layout is not empty; what is read was asked for.
            unsafe {
                let block = HEAP.alloc_zeroed(layout(bytes));
                assert!(!block.is_null());
                let found = std::slice::from_raw_parts(block.cast::<u64>(), bytes / 8);
                assert!(found.iter().all(|&word| word == 0), "{bytes} in round {round}");
                block.write_bytes(0xDD, bytes);
                free(block, bytes);
            }
        }
    }
}

// requirement: D5
#[test]
fn contents_stay_over_every_way_of_resizing() {
    let _alone = common::alone(&ONE_AT_A_TIME);
    let heap = Heap::global();
    heap.purge();
    let before = quiet_snapshot().fallback;
    let sizes = [
        600 * 1024,
        MIB,
        5 * MIB,
        5 * MIB + 1,
        33 * MIB,
        9 * MIB,
        700 * 1024,
        64 * MIB,
        3 * MIB,
        100 * 1024,
        2 * MIB,
        90 * MIB,
        513 * 1024,
    ];
    let mut bytes = sizes[0];
    let mut blocks: Vec<*mut u8> = (0..4).map(|_| alloc(bytes)).collect();
    for (seed, &block) in blocks.iter().enumerate() {
        fill(block, 0..bytes, seed as u8);
    }
    for &to in &sizes[1..] {
        // In turn, so that none simply grows into free space behind it.
        for (seed, block) in blocks.iter_mut().enumerate() {
            *block = resize(*block, bytes, to);
            check(*block, bytes.min(to), seed as u8);
            fill(*block, bytes.min(to).next_multiple_of(512)..to, seed as u8);
        }
        quiet_snapshot();
        bytes = to;
    }
    for (seed, block) in blocks.into_iter().enumerate() {
        check(block, bytes, seed as u8);
        free(block, bytes);
    }
    let after = quiet_snapshot().fallback;
    assert_eq!(after.live_bytes, before.live_bytes);
    assert_eq!(after.mapped_bytes, before.mapped_bytes);
    assert!(after.resizes > before.resizes);
}

#[test]
fn a_block_grows_into_the_free_range_behind_it() {
    let _alone = common::alone(&ONE_AT_A_TIME);
    let heap = Heap::global();
    heap.purge();
    let room = alloc(32 * MIB);
    fill(room, 0..32 * MIB, 0);
    free(room, 32 * MIB);
    let remaps = quiet_snapshot().fallback.remaps;
    let first = alloc(2 * MIB);
    fill(first, 0..2 * MIB, 7);
    let grown = resize(first, 2 * MIB, 24 * MIB);
    assert_eq!(grown, first, "there was room behind");
    check(grown, 2 * MIB, 7);
    let small = resize(grown, 24 * MIB, MIB);
    assert_eq!(small, first);
    check(small, MIB, 7);
    assert_eq!(quiet_snapshot().fallback.remaps, remaps);
    free(small, MIB);
}

#[cfg(target_os = "linux")]
#[test]
fn a_block_without_room_behind_it_moves_by_its_pages() {
    let _alone = common::alone(&ONE_AT_A_TIME);
    let heap = Heap::global();
    heap.purge();
    let (first, second) = (alloc(8 * MIB), alloc(8 * MIB));
    fill(first, 0..8 * MIB, 1);
    fill(second, 0..8 * MIB, 2);
    let before = quiet_snapshot().fallback;
    let first = resize(first, 8 * MIB, 80 * MIB);
    let second = resize(second, 8 * MIB, 80 * MIB);
    let after = quiet_snapshot().fallback;
    assert!(after.remaps > before.remaps, "{after:?}");
    assert_eq!(after.resizes - before.resizes, 2);
    assert_eq!(after.allocs, before.allocs, "nothing was copied");
    check(first, 8 * MIB, 1);
    check(second, 8 * MIB, 2);
    free(first, 80 * MIB);
    free(second, 80 * MIB);
}

#[test]
fn the_cache_is_bounded_by_the_recent_peak_and_a_floor() {
    let _alone = common::alone(&ONE_AT_A_TIME);
    let heap = Heap::global();
    // After a pause of more than two decay times no peak of the tests before this one counts.
    heap.set_decay(Duration::from_millis(1));
    std::thread::sleep(Duration::from_millis(20));
    free(alloc(MIB), MIB);
    heap.set_decay(Duration::from_secs(3_600));
    heap.purge();
    const FLOOR: u64 = 32 << 20;
    let (mut peak, mut seed) = (0, 1u64);
    let mut slots: Vec<Option<(*mut u8, usize)>> = vec![None; 8];
    for _ in 0..600 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = (seed >> 33) as usize % slots.len();
        if let Some((block, bytes)) = slots[at].take() {
            free(block, bytes);
        }
        let bytes = MIB + (seed >> 40) as usize % (20 * MIB);
        slots[at] = Some((alloc(bytes), bytes));
        let fallback = quiet_snapshot().fallback;
        peak = peak.max(fallback.mapped_bytes);
        let held = fallback.mapped_bytes + fallback.cached_bytes;
        assert!(held <= peak + FLOOR, "{held} held, {peak} at the peak");
    }
    for (block, bytes) in slots.into_iter().flatten() {
        free(block, bytes);
    }
    heap.purge();
    let after = quiet_snapshot().fallback;
    assert_eq!((after.mapped_bytes, after.cached_bytes), (0, 0), "{after:?}");
    heap.set_decay(Duration::from_secs(1));
}

/// Nobody scavenges here: other traffic has to bring the memory back.
#[test]
fn the_cache_goes_back_after_the_decay_without_a_scavenger() {
    let _alone = common::alone(&ONE_AT_A_TIME);
    let heap = Heap::global();
    for large_traffic in [true, false] {
        heap.set_decay(Duration::from_millis(20));
        heap.purge();
        let block = alloc(24 * MIB);
        fill(block, 0..24 * MIB, 3);
        let purged = quiet_snapshot().fallback.purged_bytes;
        free(block, 24 * MIB);
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if large_traffic {
                free(alloc(600 * 1024), 600 * 1024);
            } else {
                // Slabs that come and go: blocks of a slab each.
                let blocks: Vec<_> = (0..4).map(|_| alloc(300 * 1024)).collect();
                blocks.into_iter().for_each(|block| free(block, 300 * 1024));
            }
            let now = quiet_snapshot().fallback;
            if now.cached_bytes <= 2 << 20 {
                assert!(now.purged_bytes - purged >= 22 << 20);
                break;
            }
            assert!(Instant::now() < deadline, "{now:?}");
            thread::sleep(Duration::from_millis(1));
        }
        heap.set_decay(Duration::from_secs(1));
    }
}

/// Fresh pages are zeros already: filling them would make memory resident that nobody asked for.
#[cfg(target_os = "linux")]
#[test]
fn fresh_zeroed_blocks_are_not_written_to() {
    let _alone = common::alone(&ONE_AT_A_TIME);
    Heap::global().purge();
    // SAFETY: sysconf only reads.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    let mut blocks = Vec::new();
    let mut written = 0;
    for round in 0..60usize {
        for bytes in [100 << 10, (200 << 10) + round, 300 << 10, 512 << 10, 3 * MIB + round] {
            // SAFETY: the layout is not empty; what is read was asked for.
            unsafe {
                let block = HEAP.alloc_zeroed(layout(bytes));
                assert!(!block.is_null());
                let start = block.map_addr(|address| address & !(page - 1));
                let mut resident = vec![0u8; (bytes + page) / page + 1];
                let length = block.addr() + bytes - start.addr();
                assert_eq!(libc::mincore(start.cast(), length, resident.as_mut_ptr()), 0);
                let pages = resident.iter().filter(|&&byte| byte & 1 == 1).count();
                written += usize::from(pages > 2);
                blocks.push((block, bytes));
            }
        }
    }
    // Huge pages, where the system gives them unasked, come with what was written beside a block.
    assert!(written <= 5 || thp_always(), "{written} of {} were written to", blocks.len());
    for (block, bytes) in blocks {
        // SAFETY: as above.
        let found = unsafe { std::slice::from_raw_parts(block, bytes) };
        assert!(found.iter().all(|&byte| byte == 0), "{bytes}");
        free(block, bytes);
    }
}

#[cfg(target_os = "linux")]
fn thp_always() -> bool {
    std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
        .is_ok_and(|text| text.contains("[always]"))
}

#[test]
fn strict_alignments_are_kept_in_reused_memory() {
    let _alone = common::alone(&ONE_AT_A_TIME);
    let mut blocks = Vec::new();
    for round in 0..300usize {
        let align = 1 << (17 + round % 8);
        let of = Layout::from_size_align(1 + round * 9_999, align).unwrap();
        // SAFETY: the layouts are not empty; each block is freed once, with its own.
        unsafe {
            let block = HEAP.alloc(of);
            assert!(!block.is_null());
            assert_eq!(block.addr() % align, 0, "{of:?}");
            block.write_bytes(round as u8, of.size());
            blocks.push((block, of, round as u8));
            if round % 3 != 0 {
                let (block, of, byte) = blocks.swap_remove(round * 7 % blocks.len());
                let found = std::slice::from_raw_parts(block, of.size());
                assert!(found.iter().all(|&b| b == byte));
                HEAP.dealloc(block, of);
            }
        }
    }
    quiet_snapshot();
    for (block, of, _) in blocks {
        // SAFETY: as above.
        unsafe { HEAP.dealloc(block, of) };
    }
}

#[test]
fn threads_share_the_space_and_the_books_close() {
    let _alone = common::alone(&ONE_AT_A_TIME);
    let before = quiet_snapshot().fallback;
    thread::scope(|scope| {
        for me in 0..6u8 {
            scope.spawn(move || {
                let mut seed = u64::from(me) + 1;
                let mut kept: Vec<(*mut u8, usize)> = Vec::new();
                for _ in 0..400 {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let bytes = 530_000 + (seed >> 40) as usize % (3 * MIB);
                    let end = |block: *mut u8, bytes: usize| block.wrapping_add(bytes - 1);
                    // SAFETY: blocks are written at both ends, and freed once with their layout.
                    unsafe {
                        match seed >> 33 & 3 {
                            0 | 1 => {
                                let block = alloc(bytes);
                                block.write(me);
                                end(block, bytes).write(me);
                                kept.push((block, bytes));
                            }
                            2 if !kept.is_empty() => {
                                let at = seed as usize % kept.len();
                                let (block, old) = kept[at];
                                let block = resize(block, old, bytes);
                                assert_eq!(block.read(), me);
                                end(block, bytes).write(me);
                                kept[at] = (block, bytes);
                            }
                            _ => {
                                if let Some((block, bytes)) = kept.pop() {
                                    assert_eq!((block.read(), end(block, bytes).read()), (me, me));
                                    free(block, bytes);
                                }
                            }
                        }
                    }
                }
                for (block, bytes) in kept {
                    free(block, bytes);
                }
            });
        }
    });
    let after = quiet_snapshot().fallback;
    assert_eq!(after.live_bytes, before.live_bytes);
    assert_eq!(after.mapped_bytes, before.mapped_bytes);
    assert_eq!(after.allocs - before.allocs, after.frees - before.frees);
}
