//! Frees that no correct program makes end the process with a line that names address, class and
//! owner. Each case runs in a child, which is this test itself with a variable set.
// requirement: G9

use std::alloc::{GlobalAlloc, Layout};
use std::fmt::Debug;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Barrier;
use std::thread;

use flagstone_slab::{Flagstone, untyped};

#[global_allocator]
static ALLOCATOR: Flagstone = Flagstone::new();

const CASE: &str = "FLAGSTONE_MISUSE_CASE";

/// Runs `fault` in a child if this is the child; else starts it and returns what it wrote to
/// standard error. It must have ended by `SIGABRT`.
fn aborts(test: &str, fault: impl FnOnce()) -> String {
    let mut fault = Some(fault);
    let mut said = abort_each(test, &[()], |()| fault.take().unwrap()());
    said.pop().unwrap()
}

/// The same for several faults of a kind, each in a child of its own.
fn abort_each<T: Copy + Debug>(test: &str, faults: &[T], fault: impl FnOnce(T)) -> Vec<String> {
    if let Ok(case) = std::env::var(CASE) {
        fault(faults[case.parse::<usize>().unwrap()]);
        std::process::exit(0);
    }
    let in_child = |(case, what): (usize, &T)| {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(CASE, case.to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr).into_owned();
        assert_eq!(child.status.signal(), Some(libc::SIGABRT), "{what:?}: {said}");
        said
    };
    faults.iter().enumerate().map(in_child).collect()
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).unwrap()
}

fn alloc(bytes: usize) -> *mut u8 {
    // SAFETY: the layout is not empty.
    let block = unsafe { ALLOCATOR.alloc(layout(bytes)) };
    assert!(!block.is_null());
    block
}

fn free(block: *mut u8, bytes: usize) {
    // SAFETY: none: that it ends the process is the point of the test where it is misused.
    unsafe { ALLOCATOR.dealloc(block, layout(bytes)) };
}

/// Where users look a message up.
const DOCUMENTED: &str = include_str!("../../docs/misuse.md");

/// The line that the process ended with says this, and the page of messages knows it.
#[track_caller]
fn says(said: &str, fault: &str) {
    let line = said.lines().find(|line| line.starts_with("flagstone: "));
    let line = line.unwrap_or_else(|| panic!("no message in {said:?}"));
    assert!(line.contains(fault) && line.contains("0x"), "{line}");
    assert!(DOCUMENTED.contains(fault), "docs/misuse.md does not have {fault:?}");
}

#[track_caller]
fn names(said: &str, fault: &str) {
    says(said, fault);
    let line = said.lines().find(|line| line.starts_with("flagstone: "));
    let line = line.unwrap_or_else(|| panic!("no message in {said:?}"));
    assert!(line.contains(fault), "{line}");
    assert!(line.contains("0x") && line.contains("class ") && line.contains("of heap global"));
    assert!(line.contains("shard ") || line.contains("in a bucket"), "{line}");
}

#[test]
fn a_block_freed_twice_in_a_row() {
    let said = aborts("a_block_freed_twice_in_a_row", || {
        let block = alloc(200);
        free(block, 200);
        free(block, 200);
    });
    names(&said, "double free of");
}

/// Through the interface of `malloc`; the global allocator checks as much with the feature `hardened`.
#[test]
fn a_block_freed_twice_with_others_between_and_never_written() {
    let said = aborts("a_block_freed_twice_with_others_between_and_never_written", || {
        let blocks: Vec<_> = (0..40).map(|_| untyped::alloc(64)).collect();
        // SAFETY: each block is given up; the last free is the fault.
        unsafe {
            for &block in &blocks {
                untyped::free(block);
            }
            if cfg!(feature = "hardened") {
                free(blocks[17], 64);
            }
            untyped::free(blocks[17]);
        }
    });
    names(&said, "double free of");
}

/// Where a block is that its slab's owner has not linked yet.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// With the thread that freed it.
    Gathered,
    /// With its owner, in a chain.
    Posted,
}

/// Who frees it again.
#[derive(Clone, Copy, Debug)]
enum Again {
    Owner,
    Third,
}

const WHO: [Again; 2] = [Again::Owner, Again::Third];

/// Frees six blocks of this thread's on another thread, and then one of them once more. The process
/// ends with success if that goes unnoticed.
fn free_again(
    way: Way,
    again: Again,
    which: usize,
    alloc: impl Fn() -> usize + Send + Sync,
    free: impl Fn(usize) + Send + Sync,
) {
    let blocks: Vec<usize> = (0..6).map(|_| alloc()).collect();
    let freed = Barrier::new(3);
    thread::scope(|scope| {
        scope.spawn(|| {
            // So that the thread has a shard, if there is one for it.
            alloc();
            blocks.iter().for_each(|&block| free(block));
            if let Way::Posted = way {
                flagstone_slab::thread::flush();
            }
            freed.wait();
            // With what it has gathered.
            loop {
                thread::park();
            }
        });
        // Here before the blocks are freed: to start a thread takes memory, perhaps that of these blocks.
        let third = scope.spawn(|| {
            freed.wait();
            if let Again::Third = again {
                free(blocks[which]);
            }
        });
        freed.wait();
        match again {
            Again::Owner => free(blocks[which]),
            Again::Third => third.join().unwrap(),
        }
        std::process::exit(0);
    });
}

/// Nobody touches the block between the two frees, and nobody allocates after the second. Through the
/// interface of `malloc`; the global allocator finds as much with the feature `hardened`.
#[test]
fn a_block_on_its_way_to_its_owner_is_found_at_once() {
    let here = "a_block_on_its_way_to_its_owner_is_found_at_once";
    // The first that is freed is one of several that a chain's head names, the last is the head. Of the
    // smallest each is a head, the largest have a slab each.
    let blocks = [(16, 0), (24, 5), (64, 0), (640, 5), (5_000, 2), (100_000, 1)];
    let ways = [Way::Gathered, Way::Posted];
    let faults = blocks.iter().flat_map(|&block| {
        ways.iter().flat_map(move |&way| WHO.iter().map(move |&again| (block, way, again)))
    });
    let faults: Vec<_> = faults.collect();
    let said = abort_each(here, &faults, |((bytes, which), way, again)| {
        let alloc = || untyped::alloc(bytes).expose_provenance();
        free_again(way, again, which, alloc, |block| {
            let block = std::ptr::with_exposed_provenance_mut(block);
            match cfg!(feature = "hardened") {
                true => free(block, bytes),
                // SAFETY: given up; the second is the fault.
                false => unsafe { untyped::free(block) },
            }
        });
    });
    said.iter().for_each(|said| names(said, "double free of"));
}

#[test]
fn a_block_of_an_instance_on_its_way_is_found_at_once() {
    let here = "a_block_of_an_instance_on_its_way_is_found_at_once";
    // With one shard the freeing thread has none.
    let faults = [1, 2].map(|shards| WHO.map(|again| (shards, again)));
    let said = abort_each(here, faults.as_flattened(), |(shards, again)| {
        let heap = flagstone_slab::Heap::builder().name("index").shards(shards);
        let heap = heap.build().unwrap();
        let alloc = || heap.alloc(layout(200)).as_ptr().expose_provenance();
        free_again(Way::Posted, again, 3, alloc, |block| {
            let block = std::ptr::with_exposed_provenance_mut(block);
            let block = std::ptr::NonNull::new(block).unwrap();
            // SAFETY: given up; the second is the fault.
            unsafe { heap.dealloc(block, layout(200)) };
        });
    });
    for said in said {
        says(&said, "double free of");
        assert!(said.contains("of heap index"), "{said}");
    }
}

/// Unchecked, a block on its way is not looked at: its owner finds it when it needs the slab's blocks.
#[test]
fn a_block_freed_by_two_threads_neither_of_which_owns_it() {
    let said = aborts("a_block_freed_by_two_threads_neither_of_which_owns_it", || {
        let block = alloc(640) as usize;
        for _ in 0..2 {
            let freer = thread::spawn(move || {
                alloc(640);
                free(block as *mut u8, 640);
            });
            freer.join().unwrap();
        }
        if cfg!(feature = "hardened") {
            std::process::exit(0);
        }
        for _ in 0..1_000 {
            alloc(640);
        }
    });
    names(&said, "double free of");
}

/// Through the interface of `malloc`, whose callers get this wrong.
#[test]
fn an_address_inside_a_small_block() {
    let said = aborts("an_address_inside_a_small_block", || {
        let block = untyped::alloc(64);
        assert!(!block.is_null());
        // SAFETY: none; the offset is the fault.
        unsafe { untyped::free(block.add(16)) };
    });
    names(&said, "not the start of a block");
}

/// The inside lies in another slice than the start.
#[test]
fn an_address_inside_a_larger_block() {
    let said = aborts("an_address_inside_a_larger_block", || {
        let block = untyped::alloc(300_000);
        assert!(!block.is_null());
        // SAFETY: none; the offset is the fault.
        unsafe { untyped::free(block.add(131_072)) };
    });
    names(&said, "not the start of a block");
}

#[test]
fn an_address_that_nobody_allocated() {
    let said = aborts("an_address_that_nobody_allocated", || {
        let mut word = 0u64;
        free((&raw mut word).cast(), 8);
    });
    says(&said, "which no Flagstone heap handed out");
}

#[test]
fn a_large_block_freed_twice() {
    let said = aborts("a_large_block_freed_twice", || {
        let block = alloc(3 << 20);
        free(block, 3 << 20);
        free(block, 3 << 20);
    });
    says(&said, "which is not the start of a large block in use");
}

#[test]
fn an_address_inside_a_large_block() {
    let said = aborts("an_address_inside_a_large_block", || {
        let block = untyped::alloc(3 << 20);
        assert!(!block.is_null());
        // SAFETY: none; the offset is the fault.
        unsafe { untyped::free(block.add(1 << 20)) };
    });
    says(&said, "which is not the start of a large block in use");
}

#[test]
fn an_address_in_memory_that_is_free_as_a_whole() {
    let said = aborts("an_address_in_memory_that_is_free_as_a_whole", || {
        // The segment's last slice: one block is in use, in one of the first.
        let block = untyped::alloc(100);
        let last = (block as usize | ((4 << 20) - 1)) - 4095;
        // SAFETY: none; the address is the fault.
        unsafe { untyped::free(std::ptr::with_exposed_provenance_mut(last)) };
    });
    says(&said, "which is in no slab in use");
}

#[test]
fn an_address_that_nobody_allocated_resized() {
    let said = aborts("an_address_that_nobody_allocated_resized", || {
        let mut word = 0u64;
        // SAFETY: none; the address is the fault.
        unsafe { untyped::resize((&raw mut word).cast(), 100) };
    });
    assert!(said.contains("realloc of 0x"), "{said}");
    says(&said, "which no Flagstone heap handed out");
}

#[test]
fn a_block_retired_in_a_heap_that_it_is_not_of() {
    let said = aborts("a_block_retired_in_a_heap_that_it_is_not_of", || {
        let heap = flagstone_slab::Heap::builder().name("index").build().unwrap();
        let block = std::ptr::NonNull::new(alloc(100)).unwrap();
        // SAFETY: none; the heap is the fault.
        unsafe { heap.retire_here(block) };
    });
    says(&said, "which is not in heap ");
}

/// What the checks must not mistake for a fault: blocks given back unwritten, full of zeros, full of
/// addresses of their neighbours, and handed out by the bucket tier.
#[test]
fn blocks_with_any_contents_are_freed_without_complaint() {
    for bytes in [16, 24, 64, 1_000, 5_000, 40_000, 100_000] {
        for round in 0..4 {
            let blocks: Vec<_> = (0..50).map(|_| alloc(bytes)).collect();
            for (at, &block) in blocks.iter().enumerate() {
                let word = block.cast::<usize>();
                // SAFETY: the block is at least a word large.
                unsafe {
                    match round {
                        0 => assert_eq!(word.read(), 0, "the link is gone"),
                        1 => word.write(0),
                        2 => word.write(blocks[(at + 1) % blocks.len()].addr()),
                        _ => word.write(usize::MAX),
                    }
                }
            }
            for block in blocks {
                free(block, bytes);
            }
        }
    }
}
