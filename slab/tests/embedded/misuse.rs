//! Frees that no correct program makes end the process with a line that names the address. Each case
//! runs in a child, which is this test itself with a variable set.
// requirement: G9

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::ptr::NonNull;

use crate::buffer::{layout, leaked};

const CASE: &str = "FLAGSTONE_EMBEDDED_MISUSE";

fn aborts(test: &str, says: &str, fault: impl FnOnce()) {
    let test = format!("misuse::{test}");
    if std::env::var(CASE).is_ok_and(|case| case == test) {
        fault();
        std::process::exit(0);
    }
    let child = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", &test, "--nocapture", "--test-threads=1"])
        .env(CASE, &test)
        .output()
        .expect("starts");
    let said = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.signal(), Some(libc::SIGABRT), "{said}");
    let line = said.lines().find(|line| line.starts_with("flagstone: ")).unwrap_or_default();
    assert!(line.contains(says) && line.contains("0x"), "{said}");
}

#[test]
fn a_block_freed_twice() {
    aborts("a_block_freed_twice", "double free of", || {
        let heap = leaked(64 << 10);
        let layout = layout(40, 8);
        let blocks = [(); 3].map(|()| heap.try_alloc(layout).expect("room"));
        // SAFETY: none: that it ends the process is the point.
        unsafe {
            heap.dealloc(blocks[1], layout);
            heap.dealloc(blocks[0], layout);
            heap.dealloc(blocks[1], layout);
        }
    });
}

#[test]
fn a_range_freed_twice() {
    aborts("a_range_freed_twice", "which is no block", || {
        let heap = leaked(64 << 10);
        let layout = layout(5000, 8);
        let block = heap.try_alloc(layout).expect("room");
        // SAFETY: none, as above.
        unsafe {
            heap.dealloc(block, layout);
            heap.dealloc(block, layout);
        }
    });
}

#[test]
fn an_address_inside_a_block() {
    aborts("an_address_inside_a_block", "which is no block", || {
        let heap = leaked(64 << 10);
        let layout = layout(100, 8);
        let block = heap.try_alloc(layout).expect("room");
        // SAFETY: none, as above.
        unsafe { heap.dealloc(block.add(8), layout) };
    });
}

#[test]
fn an_address_of_somebody_else() {
    aborts("an_address_of_somebody_else", "not in the heap's region", || {
        let heap = leaked(64 << 10);
        let mut other = [0u64; 8];
        let block = NonNull::from(&mut other).cast();
        // SAFETY: none, as above.
        unsafe { heap.dealloc(block, layout(64, 8)) };
    });
}

/// A block whose contents read like a free block's link is no double free.
#[test]
#[cfg_attr(flagstone_asan, ignore = "reads a free block, which the sanitizer reports")]
fn a_block_that_only_looks_free_is_freed() {
    let heap = leaked(64 << 10);
    let layout = layout(64, 8);
    let blocks = [(); 8].map(|()| heap.try_alloc(layout).expect("room"));
    // SAFETY: blocks are given up once; the first word of a free block is read while the slab is mapped,
    // which no correct program does.
    unsafe {
        heap.dealloc(blocks[5], layout);
        let link = blocks[5].cast::<usize>().read();
        blocks[2].cast::<usize>().write(link);
        heap.dealloc(blocks[2], layout);
    }
    heap.debug_validate();
    assert_eq!(heap.stats().live, 6 * 64);
}
