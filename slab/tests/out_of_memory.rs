//! No memory is a null pointer, counted, and the heap goes on as before once there is some again.
//!
//! Each test starts this binary again with an errand's name in its environment; the child limits
//! its own address space.

use std::alloc::{GlobalAlloc, Layout};
use std::process::Command;

use flagstone_slab::{Flagstone, Heap};

#[global_allocator]
static ALLOCATOR: Flagstone = Flagstone::new();

const ERRAND: &str = "FLAGSTONE_TEST_ERRAND";

/// Runs `errand` in a child process whose only test is `test`.
fn in_child(test: &str, errand: fn()) {
    if std::env::var_os(ERRAND).is_some() {
        return errand();
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ERRAND, test)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    let errors = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{}\n{text}\n{errors}", child.status);
    assert!(text.contains("1 passed"), "the errand did not run: {text}");
}

/// Lets the address space of this process grow by `more` bytes and no further.
fn limit(more: usize) {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split_ascii_whitespace().next().unwrap().parse().unwrap();
    // SAFETY: sysconf only reads.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    set_limit((pages * page + more) as libc::rlim_t);
}

fn set_limit(bytes: libc::rlim_t) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place; only this process is limited.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_AS, &mut limit), 0);
        limit.rlim_cur = bytes;
        assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &limit), 0);
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).unwrap()
}

/// Room for the pointers of a test, taken before memory runs out.
const ROOM: usize = 300_000;

/// Allocates until there is no more; each block is filled with its number.
fn exhaust(blocks: &mut Vec<*mut u8>, bytes: usize) {
    loop {
        assert!(blocks.len() < ROOM, "the limit does not hold");
        // SAFETY: the layout is not empty; the block is as large as asked.
        unsafe {
            let block = ALLOCATOR.alloc(layout(bytes));
            if block.is_null() {
                return;
            }
            block.write_bytes(blocks.len() as u8, bytes.min(4096));
            block.add(bytes - 1).write(blocks.len() as u8);
            blocks.push(block);
        }
    }
}

fn check_and_free(blocks: &mut Vec<*mut u8>, bytes: usize) {
    for (i, &block) in blocks.iter().enumerate() {
        // SAFETY: written by `exhaust`, freed once with the layout it has.
        unsafe {
            assert!((0..bytes.min(4096)).all(|at| block.add(at).read() == i as u8), "block {i}");
            assert_eq!(block.add(bytes - 1).read(), i as u8, "block {i}");
            ALLOCATOR.dealloc(block, layout(bytes));
        }
    }
    blocks.clear();
}

#[test]
fn every_tier_refuses_with_null_and_recovers() {
    in_child("every_tier_refuses_with_null_and_recovers", || {
        let heap = Heap::global();
        let mut blocks: Vec<*mut u8> = Vec::with_capacity(ROOM);
        for bytes in [1_000usize, 20_000, 300_000, 3 << 20] {
            let before = heap.snapshot();
            limit(64 << 20);
            exhaust(&mut blocks, bytes);
            let count = blocks.len();
            assert!(count * bytes > 40 << 20, "{count} blocks of {bytes} in 64 MiB");
            // A second refusal is like the first.
            // SAFETY: the layout is not empty.
            assert!(unsafe { ALLOCATOR.alloc(layout(bytes)) }.is_null());
            set_limit(libc::RLIM_INFINITY);
            let during = heap.snapshot();
            assert!(during.tiers.failures - before.tiers.failures >= 2, "{:?}", during.tiers);
            assert_eq!(during.bytes.residual(), 0, "{:?}", during.bytes);
            #[cfg(debug_assertions)]
            heap.debug_validate();
            check_and_free(&mut blocks, bytes);
            heap.purge();
            limit(64 << 20);
            exhaust(&mut blocks, bytes);
            let again = blocks.len();
            set_limit(libc::RLIM_INFINITY);
            assert!(again >= count, "{again} blocks of {bytes} after {count}: something leaked");
            check_and_free(&mut blocks, bytes);
            heap.purge();
            let after = heap.snapshot();
            assert!(after.bytes.mapped < before.bytes.mapped + (12 << 20), "{:?}", after.bytes);
        }
    });
}

#[test]
fn what_large_blocks_left_serves_small_ones_when_there_is_nothing_else() {
    in_child("what_large_blocks_left_serves_small_ones_when_there_is_nothing_else", || {
        let heap = Heap::global();
        let mut blocks: Vec<*mut u8> = Vec::with_capacity(ROOM);
        // SAFETY: the layout is not empty; the block is freed once, with it.
        unsafe {
            let block = ALLOCATOR.alloc(layout(28 << 20));
            assert!(!block.is_null());
            ALLOCATOR.dealloc(block, layout(28 << 20));
        }
        assert!(heap.snapshot().fallback.cached_bytes >= 28 << 20);
        limit(1 << 20);
        exhaust(&mut blocks, 1_000);
        let bytes = blocks.len() * 1_000;
        set_limit(libc::RLIM_INFINITY);
        assert!(bytes > 20 << 20, "{bytes} bytes where 28 MiB were kept");
        assert_eq!(heap.snapshot().bytes.residual(), 0);
        check_and_free(&mut blocks, 1_000);
    });
}

#[test]
fn a_refused_resize_leaves_the_block_as_it_was() {
    in_child("a_refused_resize_leaves_the_block_as_it_was", || {
        let heap = Heap::global();
        for bytes in [100usize, 9_000, 400_000, 5 << 20] {
            // SAFETY: the layouts are not empty; the block is freed once with the one it has.
            unsafe {
                let block = ALLOCATOR.alloc(layout(bytes));
                assert!(!block.is_null());
                block.write_bytes(0xA5, bytes);
                let live = heap.live_bytes();
                // What is cached would serve.
                heap.purge();
                limit(16 << 20);
                let refused = ALLOCATOR.realloc(block, layout(bytes), 64 << 20);
                set_limit(libc::RLIM_INFINITY);
                assert!(refused.is_null());
                assert_eq!(heap.live_bytes(), live);
                assert!((0..bytes).all(|at| block.add(at).read() == 0xA5));
                let grown = ALLOCATOR.realloc(block, layout(bytes), 64 << 20);
                assert!(!grown.is_null());
                assert!((0..bytes).all(|at| grown.add(at).read() == 0xA5));
                ALLOCATOR.dealloc(grown, layout(64 << 20));
            }
        }
        assert_eq!(heap.snapshot().bytes.residual(), 0);
    });
}

#[test]
fn sizes_near_the_end_of_the_address_space_are_refused() {
    for bytes in [isize::MAX as usize - 8, 1 << 62, 1 << 47, (1 << 47) - (8 << 20)] {
        for align in [8, 1 << 20, 1 << 30] {
            let Ok(layout) = Layout::from_size_align(bytes, align) else { continue };
            // SAFETY: the layout is not empty.
            unsafe {
                assert!(ALLOCATOR.alloc(layout).is_null(), "{layout:?}");
                assert!(ALLOCATOR.alloc_zeroed(layout).is_null(), "{layout:?}");
                let small = Layout::from_size_align(600 << 10, align).unwrap();
                let block = ALLOCATOR.alloc(small);
                assert!(!block.is_null());
                assert!(ALLOCATOR.realloc(block, small, bytes).is_null(), "{layout:?}");
                ALLOCATOR.dealloc(block, small);
            }
        }
    }
}
