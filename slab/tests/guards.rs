//! Guard pages, with the feature `hardened`: who writes past a slab's last block or a large block's end is
//! ended with a line that names where, and everything else goes on as without them. Faults happen in a
//! child, which is this test itself with a variable set.
// requirement: G9
#![cfg(feature = "hardened")]

use std::alloc::{GlobalAlloc, Layout};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use flagstone_slab::port::FixedRegion;
use flagstone_slab::{Flagstone, Heap};

#[global_allocator]
static ALLOCATOR: Flagstone = Flagstone::new();

const CASE: &str = "FLAGSTONE_GUARD_CASE";

const DOCUMENTED: &str = include_str!("../../docs/misuse.md");

/// Runs `case` in a child, and returns what became of it. The child ends with success if `case` returns.
fn in_child(test: &str, case: impl FnOnce()) -> Output {
    if std::env::var(CASE).is_ok_and(|name| name == test) {
        case();
        std::process::exit(0);
    }
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CASE, test)
        .output()
        .unwrap()
}

fn layout(bytes: usize, align: usize) -> Layout {
    Layout::from_size_align(bytes, align).unwrap()
}

fn alloc(layout: Layout) -> *mut u8 {
    // SAFETY: the layout is not empty.
    let block = unsafe { ALLOCATOR.alloc(layout) };
    assert!(!block.is_null());
    block
}

fn free(block: *mut u8, layout: Layout) {
    // SAFETY: the callers allocated it with this layout.
    unsafe { ALLOCATOR.dealloc(block, layout) };
}

/// Fills a few slabs of a class; returns the blocks.
fn slabs_of(bytes: usize) -> Vec<*mut u8> {
    let count = (256 << 10) / bytes + 20;
    (0..count).map(|_| alloc(layout(bytes, 8))).collect()
}

/// The highest block of a slab: it ends with a page, and nothing is in the next one.
fn last_of_a_slab(blocks: &[*mut u8], bytes: usize) -> *mut u8 {
    let mut blocks = blocks.to_vec();
    blocks.sort();
    let last = |pair: &&[*mut u8]| {
        let end = pair[0].addr() + bytes;
        end.is_multiple_of(4096) && pair[1].addr() >= end + 4096
    };
    blocks.windows(2).find(last).expect("more than one slab")[0]
}

#[track_caller]
fn ended(output: &Output, message: &str, also: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{}: {said}", output.status);
    let line = said.lines().find(|line| line.starts_with("flagstone: ")).expect("a message");
    for part in also.iter().chain([&message, &"0x"]) {
        assert!(line.contains(part), "{line:?} does not say {part:?}");
    }
    assert!(DOCUMENTED.contains(message), "docs/misuse.md does not have {message:?}");
}

/// Writes one byte, as a program would that does not know where its block ends.
fn poke(at: *mut u8) {
    // SAFETY: none: that it ends the process is the point.
    unsafe { at.write_volatile(1) };
}

// requirement: G9
#[test]
fn a_byte_past_the_last_block_of_a_slab() {
    let output = in_child("a_byte_past_the_last_block_of_a_slab", || {
        let blocks = slabs_of(48);
        poke(last_of_a_slab(&blocks, 48).wrapping_add(48));
    });
    let also = ["a block of 48 bytes, class ", "of heap global", "shard "];
    ended(&output, "in the guard page behind a slab: a block of", &also);
}

/// A read is as bad, and the last byte of the slab as well guarded as the first.
#[test]
fn a_read_far_past_a_block_that_has_a_slab_of_its_own() {
    let output = in_child("a_read_far_past_a_block_that_has_a_slab_of_its_own", || {
        let block = alloc(layout(81_920, 8));
        // SAFETY: none, as in `poke`.
        unsafe { block.wrapping_add(81_920 + 4_000).read_volatile() };
    });
    ended(&output, "in the guard page behind a slab: a block of", &["81920 bytes", "heap global"]);
}

// requirement: G9
#[test]
fn a_byte_past_a_large_block() {
    let output = in_child("a_byte_past_a_large_block", || {
        let block = alloc(layout(600_001, 1));
        poke(block.wrapping_add(600_000));
        poke(block.wrapping_add(600_001).map_addr(|a| a.next_multiple_of(16)));
    });
    let message = "in the guard page behind a large block: of ";
    ended(&output, message, &["600001 bytes", "of heap global"]);
}

#[test]
fn a_byte_past_a_large_block_of_an_instance_that_was_resized() {
    let output = in_child("a_byte_past_a_large_block_of_an_instance_that_was_resized", || {
        let heap = Heap::builder().name("index").build().unwrap();
        let block = heap.alloc(layout(1 << 20, 8));
        // SAFETY: the block is in use, with this layout.
        let block = unsafe { heap.realloc(block, layout(1 << 20, 8), layout(3 << 20, 8)) };
        poke(block.as_ptr().wrapping_add((3 << 20) - 1));
        // A resize keeps a block's place in its page.
        poke(block.as_ptr().wrapping_add(3 << 20).map_addr(|a| a.next_multiple_of(4096)));
    });
    let message = "in the guard page behind a large block: of ";
    ended(&output, message, &["3145728 bytes", "of heap index"]);
}

#[test]
fn a_byte_in_front_of_a_segments_first_slab() {
    let output = in_child("a_byte_in_front_of_a_segments_first_slab", || {
        let blocks = slabs_of(48);
        let segment = blocks[0].map_addr(|a| a & !((4 << 20) - 1));
        poke(segment.wrapping_add((64 << 10) - 1));
    });
    let message = "in the guard page behind a segment's head, of heap ";
    ended(&output, message, &["heap global"]);
}

/// The runtime's own message about a stack that overflows is as it was.
#[test]
fn a_stack_that_overflows_is_told_as_ever() {
    #[allow(unconditional_recursion, reason = "the point")]
    fn deeper(n: u64) -> u64 {
        let room = std::hint::black_box([n; 100]);
        deeper(n + 1) + room[n as usize % 100]
    }
    let output = in_child("a_stack_that_overflows_is_told_as_ever", || {
        slabs_of(48);
        std::thread::Builder::new()
            .stack_size(128 << 10)
            .spawn(|| deeper(0))
            .unwrap()
            .join()
            .unwrap();
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{said}");
    assert!(said.contains("has overflowed its stack"), "{said}");
}

/// A fault that is none of ours ends the process as it does without us.
#[test]
fn other_faults_end_as_ever() {
    let output = in_child("other_faults_end_as_ever", || {
        slabs_of(48);
        poke(std::ptr::without_provenance_mut(64));
    });
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("flagstone"));
}

/// A handler that the program had installed before is called for what is not ours.
#[test]
fn the_programs_own_handler_is_called_for_other_faults() {
    extern "C" fn handler(_: libc::c_int) {
        // SAFETY: ends the process, from a signal handler.
        unsafe { libc::_exit(77) };
    }
    let output = in_child("the_programs_own_handler_is_called_for_other_faults", || {
        // SAFETY: the handler does what handlers may.
        unsafe { libc::signal(libc::SIGSEGV, handler as *const () as libc::sighandler_t) };
        slabs_of(48);
        poke(std::ptr::without_provenance_mut(64));
    });
    assert_eq!(output.status.code(), Some(77));
}

/// Guards come and go with their slabs and blocks, over purges, resizes, forks and ends of heaps.
#[test]
fn guards_are_where_blocks_are_and_nowhere_else() {
    let heap = Heap::builder().name("counted").build().unwrap();
    for round in 0..3 {
        let sizes = [16, 48, 64, 1_000, 4_096, 5_000, 65_536, 100_000, 524_288, 600_001, 5 << 20];
        let layouts = sizes.map(|bytes| layout(bytes, 16));
        let mut blocks = Vec::new();
        for &layout in layouts.iter().cycle().take(2_000) {
            let block = heap.alloc(layout);
            assert!(block.addr().get().is_multiple_of(16));
            // SAFETY: just allocated. All of it can be written to.
            unsafe {
                block.as_ptr().write(1);
                block.as_ptr().add(layout.size() - 1).write(2);
            }
            blocks.push((block, layout));
        }
        let guards = heap.guards();
        assert!(guards.standing > 300, "{guards:?}");
        assert_eq!(guards.refused, 0);
        if round == 1 {
            // SAFETY: the child only uses the heap, and ends.
            match unsafe { libc::fork() } {
                0 => {
                    for &(block, layout) in &blocks {
                        // SAFETY: the child's copy of the blocks.
                        unsafe { heap.dealloc(block, layout) };
                    }
                    heap.purge();
                    // SAFETY: ends the child.
                    unsafe { libc::_exit(0) };
                }
                child => {
                    let mut status = 0;
                    // SAFETY: waits for the child that was started.
                    unsafe { libc::waitpid(child, &mut status, 0) };
                    assert_eq!(status, 0, "the child of a fork");
                }
            }
        }
        for (i, (block, layout)) in blocks.into_iter().enumerate() {
            // SAFETY: allocated above, given up.
            unsafe {
                assert_eq!(*block.as_ptr().add(layout.size() - 1), 2);
                // Some stay in slabs whose other pages go.
                if round < 2 || i % 97 != 0 {
                    heap.dealloc(block, layout);
                }
            }
        }
        heap.purge();
        if round < 2 {
            let left = heap.guards().standing;
            assert!(left < 30, "{left} guards without blocks");
        }
    }
    let before = Heap::global().guards();
    drop(heap);
    assert!(Heap::global().guards().standing >= before.standing);
}

/// Large blocks that are resized keep their contents, whatever guards are in the way.
#[test]
fn resizes_keep_contents() {
    let heap = Heap::builder().name("resized").build().unwrap();
    let mut bytes = 600_000;
    let mut block = heap.alloc(layout(bytes, 1));
    let mark = |at: usize| (at / 1_000 % 251) as u8;
    // SAFETY: the block holds `bytes` throughout.
    unsafe {
        (0..bytes).for_each(|at| block.as_ptr().add(at).write(mark(at)));
        for new in [650_000, 3_000_000, 1_000_000, 999_999, 5_000_000, 600_001, 9_000_000] {
            block = heap.realloc(block, layout(bytes, 1), layout(new, 1));
            assert!((0..bytes.min(new)).all(|at| block.as_ptr().add(at).read() == mark(at)));
            (bytes.min(new)..new).for_each(|at| block.as_ptr().add(at).write(mark(at)));
            assert!(heap.usable_size(block.as_ptr()).unwrap() >= new);
            bytes = new;
        }
        heap.dealloc(block, layout(bytes, 1));
    }
}

/// Zeroed is zeroed, wherever in its range a block lies.
#[test]
fn zeroed_blocks_are_zeros_up_to_their_guards() {
    for bytes in [100_000, 524_288, 700_001] {
        for align in [1, 16, 4_096, 65_536, 1 << 20] {
            for _ in 0..3 {
                let layout = layout(bytes, align);
                // SAFETY: the layout is not empty; the block holds it.
                unsafe {
                    let block = ALLOCATOR.alloc_zeroed(layout);
                    assert!(block.addr().is_multiple_of(align));
                    let all = std::slice::from_raw_parts_mut(block, bytes);
                    assert!(all.iter().all(|&byte| byte == 0), "{layout:?}");
                    all.fill(7);
                    free(block, layout);
                }
            }
        }
    }
}

/// Guards keep to half of the mappings that the system allows: beyond, memory is handed out all the same.
#[test]
fn past_the_budget_there_are_no_more_guards_and_memory_all_the_same() {
    let output =
        in_child("past_the_budget_there_are_no_more_guards_and_memory_all_the_same", || {
            let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count");
            let limit: u64 = limit.unwrap().trim().parse().unwrap();
            let own = layout(70_000, 8);
            // A slab each, of which one page is touched.
            let blocks: Vec<_> = (0..limit.min(100_000) / 4 + 100).map(|_| alloc(own)).collect();
            let guards = Heap::global().guards();
            assert!(guards.standing <= limit / 4, "{guards:?}");
            assert!(guards.refused > 0 || limit > 100_000, "{guards:?}");
            for block in blocks {
                free(block, own);
            }
            assert!(Heap::global().guards().standing < 100);
            if guards.refused == 0 {
                eprintln!("no more are set: not here, where the system allows {limit} mappings");
            }
        });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("no more are set").count(), 1, "{said}");
}

/// What is given up is wiped: by its owner, on its way to it, in a large block, and where one shrinks.
#[test]
fn nothing_is_left_of_what_is_freed() {
    const WORDS_OF_OURS: usize = 4 * size_of::<usize>();
    let wiped = |at: usize, bytes: usize| {
        let at: *const u8 = std::ptr::with_exposed_provenance(at);
        // SAFETY: the memory is mapped: another block of the slab is in use.
        (WORDS_OF_OURS..bytes).all(|i| unsafe { at.add(i).read_volatile() } == 0)
    };
    for bytes in [64, 200, 1_000, 9_000] {
        let keep = alloc(layout(bytes, 8));
        let fill = || {
            let block = alloc(layout(bytes, 8));
            // SAFETY: the block holds so many.
            unsafe { block.write_bytes(0xA5, bytes) };
            block.expose_provenance()
        };
        let back = move |at: usize| {
            free(std::ptr::with_exposed_provenance_mut(at), layout(bytes, 8));
        };
        let own = fill();
        back(own);
        assert!(wiped(own, bytes), "{bytes} by its owner");
        let remote = fill();
        std::thread::spawn(move || {
            let keep = alloc(layout(bytes, 8));
            back(remote);
            free(keep, layout(bytes, 8));
        })
        .join()
        .unwrap();
        assert!(wiped(remote, bytes), "{bytes} by another thread");
        free(keep, layout(bytes, 8));
    }
    let heap = Heap::builder().name("wiped").build().unwrap();
    let (small, large) = (layout(1 << 20, 8), layout(3 << 20, 8));
    // SAFETY: blocks are used as they were allocated.
    unsafe {
        let block = heap.alloc(large);
        block.write_bytes(0xA5, large.size());
        let block = heap.realloc(block, large, small);
        let rest = heap.alloc(layout(1 << 20, 8));
        let all = std::slice::from_raw_parts(rest.as_ptr(), small.size());
        assert!(all.iter().all(|&byte| byte == 0), "what a block gave up that shrank");
        heap.dealloc(block, small);
        heap.dealloc(rest, small);
        let block = heap.alloc(large);
        let all = std::slice::from_raw_parts(block.as_ptr(), large.size());
        assert!(all.iter().all(|&byte| byte == 0), "what large blocks gave up");
        heap.dealloc(block, large);
    }
}

/// A backing that cannot protect memory serves without guards, and the report says so.
#[test]
fn a_fixed_region_has_no_guards_and_works() {
    let buffer = Box::leak(Box::<[u8]>::new_uninit_slice(24 << 20));
    let heap = Heap::builder().name("fixed").backing(FixedRegion::new(buffer)).build().unwrap();
    let block = heap.alloc(layout(64, 8));
    // SAFETY: allocated here, and given up.
    unsafe { heap.dealloc(block, layout(64, 8)) };
    let guards = heap.guards();
    assert_eq!(guards.standing, 0);
    assert!(guards.refused > 0);
}
