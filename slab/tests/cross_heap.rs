//! A block freed to a heap that did not hand it out ends the process, with a message that names the
//! address and whose block it is.
//!
//! Each test starts this binary again with its own name in the environment; the child's end is what
//! is looked at.

use std::alloc::{GlobalAlloc, Layout};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::ptr::NonNull;

use flagstone_slab::{ClassTable, Flagstone, Heap, OwnedHeap};

const CHILD: &str = "FLAGSTONE_TEST_CHILD";

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).unwrap()
}

/// Runs `deed` in a child; returns what it said when it was ended, by an abort.
fn last_words(test: &str, deed: impl FnOnce()) -> String {
    if std::env::var_os(CHILD).is_some() {
        deed();
        // Not reached if the deed is found out.
        std::process::exit(0);
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&child.stderr).into_owned();
    assert_eq!(child.status.signal(), Some(libc::SIGABRT), "{}: {words}", child.status);
    words.lines().find(|line| line.starts_with("flagstone: ")).expect("a message").to_owned()
}

fn two_heaps() -> (OwnedHeap, OwnedHeap) {
    let table = ClassTable::SMALL_POOL;
    let build = |name| Heap::builder().name(name).class_table(table).build().unwrap();
    (build("index"), build("log"))
}

fn assert_names(words: &str, parts: &[&str]) {
    for part in parts {
        assert!(words.contains(part), "{part:?} is not in {words:?}");
    }
}

// requirement: G9
#[test]
fn a_block_of_another_instance_is_named_with_its_class_heap_and_shard() {
    let test = "a_block_of_another_instance_is_named_with_its_class_heap_and_shard";
    let words = last_words(test, || {
        let (index, log) = two_heaps();
        let block = index.try_alloc(layout(90)).unwrap();
        // SAFETY: none: the deed that is to be found out.
        unsafe { log.dealloc(block, layout(90)) };
    });
    assert_names(
        &words,
        &["free of 0x", "to heap log", "96 bytes", "class 5", "of heap index", "shard 0"],
    );
}

// requirement: G9
#[test]
fn a_large_block_of_another_instance_is_named_too() {
    let words = last_words("a_large_block_of_another_instance_is_named_too", || {
        let (index, log) = two_heaps();
        let block = log.try_alloc(layout(9 << 20)).unwrap();
        // SAFETY: none: the deed that is to be found out.
        unsafe { index.dealloc(block, layout(9 << 20)) };
    });
    assert_names(&words, &["free of 0x", "to heap index", "large block of heap log"]);
}

// requirement: G9
#[test]
fn blocks_of_the_global_heap_and_of_instances_are_told_apart() {
    let test = "blocks_of_the_global_heap_and_of_instances_are_told_apart";
    let words = last_words(test, || {
        let (index, _) = two_heaps();
        // SAFETY: none: the deed that is to be found out.
        unsafe {
            let block = NonNull::new(Flagstone.alloc(layout(4000))).unwrap();
            index.dealloc(block, layout(4000));
        }
    });
    assert_names(&words, &["to heap index", "of heap global", "4096 bytes"]);
}

// requirement: G9
#[test]
fn a_block_of_an_instance_freed_to_the_global_allocator_is_found_out() {
    let test = "a_block_of_an_instance_freed_to_the_global_allocator_is_found_out";
    let words = last_words(test, || {
        let heap = Heap::builder().name("index").shards(0).build().unwrap();
        let block = heap.try_alloc(layout(64)).unwrap();
        // SAFETY: none: the deed that is to be found out.
        unsafe { Flagstone.dealloc(block.as_ptr(), layout(64)) };
    });
    assert_names(&words, &["to heap global", "64 bytes", "of heap index", "in a bucket"]);
}

#[test]
fn a_block_that_outlived_its_heap_is_nobodys() {
    let words = last_words("a_block_that_outlived_its_heap_is_nobodys", || {
        let (index, log) = two_heaps();
        let block = index.try_alloc(layout(64)).unwrap();
        drop(index);
        // SAFETY: none: the deed that is to be found out.
        unsafe { log.dealloc(block, layout(64)) };
    });
    assert_names(&words, &["free of 0x", "no Flagstone heap"]);
}
