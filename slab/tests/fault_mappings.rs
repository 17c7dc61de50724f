//! The kernel's own failures: no mapping slots are left, so that what would take one more is refused,
//! `munmap` of a part included. In a child process, whose slots a test uses up.
#![cfg(target_os = "linux")]

mod common;

use std::process::Command;
use std::ptr::NonNull;

use common::churn::churn_alone;
use common::traced;
use flagstone_slab::Heap;
use flagstone_slab::port::{Backing, OsPages};

const CHILD: &str = "FLAGSTONE_TEST_CHILD";

/// Every mapping slot of the process but `spare`, until dropped.
struct Slots {
    start: *mut libc::c_void,
    bytes: usize,
}

fn page() -> usize {
    // SAFETY: sysconf only reads.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

impl Slots {
    /// Pages of turn-about protection are a mapping each.
    fn take_all_but(spare: usize) -> Option<Self> {
        let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?;
        let limit: usize = limit.trim().parse().ok()?;
        // Where an administrator allows many more, this would take too long.
        if limit > 1 << 18 {
            return None;
        }
        let bytes = (limit + 1000) * page();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping at a place of the kernel's choice.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        let slots = Self { start, bytes };
        let mut taken = 0;
        // SAFETY: pages of the mapping above, which nobody else knows.
        let protect = |at: usize, protection| unsafe {
            libc::mprotect(start.byte_add(at * page()), page(), protection) == 0
        };
        while protect(2 * taken + 1, libc::PROT_READ) {
            taken += 1;
            assert!((2 * taken + 1) * page() < bytes, "the kernel does not keep to its limit");
        }
        // Each page that is as its neighbours again gives two slots back.
        for given in 0..spare.div_ceil(2) {
            assert!(protect(2 * given + 1, libc::PROT_NONE));
        }
        Some(slots)
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing lies in it.
        assert_eq!(unsafe { libc::munmap(self.start, self.bytes) }, 0);
    }
}

/// Pages of `[start, start + bytes)` that are in memory; `None` where not all of it is mapped.
fn resident(start: NonNull<u8>, bytes: usize) -> Option<usize> {
    let mut seen = vec![0u8; bytes / page()];
    // SAFETY: the kernel writes a byte per page.
    let known = unsafe { libc::mincore(start.as_ptr().cast(), bytes, seen.as_mut_ptr()) } == 0;
    known.then(|| seen.iter().filter(|&&flags| flags & 1 != 0).count())
}

/// A heap works with few slots and none, without a lost byte, and as before when they are back.
fn without_slots() {
    // Without another thread: those need slots to start.
    let heap = traced(Heap::builder().name("slots"));
    assert_eq!(churn_alone(&heap, 60), 0);
    for spare in [0, 1, 2, 3, 5, 9, 20] {
        let Some(slots) = Slots::take_all_but(spare) else { return println!("skipped") };
        let failed = churn_alone(&heap, 150);
        let bytes = heap.snapshot().bytes;
        drop(slots);
        assert_eq!((bytes.live, bytes.residual()), (0, 0), "{spare} spare: {bytes:?}");
        println!("{spare} spare: {failed} requests failed");
        assert_eq!(churn_alone(&heap, 150), 0, "{spare} spare");
        heap.purge();
    }
}

/// What cannot be unmapped loses its pages at least.
fn a_part_that_stays() {
    let bytes = 64 * page();
    let range = OsPages.map(bytes, page()).unwrap();
    // SAFETY: just mapped.
    unsafe { range.write_bytes(1, bytes) };
    assert_eq!(resident(range, bytes), Some(64));
    let Some(slots) = Slots::take_all_but(0) else { return println!("skipped") };
    // SAFETY: a part in the middle of what was mapped, which splits the mapping.
    unsafe { OsPages.unmap(range.byte_add(16 * page()), 32 * page()) };
    let left = resident(range, bytes);
    drop(slots);
    assert_eq!(left, Some(32), "mapped as a whole, and half of it without pages");
}

fn in_child(test: &str, errand: fn()) {
    if std::env::var_os(CHILD).is_some() {
        return errand();
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    let errors = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{}\n{text}\n{errors}", child.status);
    assert!(text.contains("1 passed"), "the errand did not run: {text}");
}

// requirement: G7
#[test]
fn a_heap_outlives_the_kernels_mapping_slots() {
    in_child("a_heap_outlives_the_kernels_mapping_slots", without_slots);
}

#[test]
fn what_the_kernel_does_not_unmap_loses_its_pages() {
    in_child("what_the_kernel_does_not_unmap_loses_its_pages", a_part_that_stays);
}
