//! An allocator that refuses a thread's requests from the N-th on, or the N-th alone.
//!
//! It does what allocators with per-thread caches do: what a thread has just freed it gets again, and
//! that is no request. Everything is kept per thread, so that tests beside each other do not meet.
#![allow(clippy::disallowed_methods, reason = "an allocator on the way to the system's")]
#![allow(dead_code, reason = "each test file uses its part")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

pub struct Refusing;

/// Blocks of distinct sizes that a thread's cache holds.
const CACHED: usize = 8;

#[derive(Clone, Copy)]
struct Plan {
    armed: bool,
    requests: u64,
    refused: u64,
    first: u64,
    last: u64,
    /// Sizes that were freed last.
    cached: [usize; CACHED],
}

const IDLE: Plan =
    Plan { armed: false, requests: 0, refused: 0, first: 0, last: 0, cached: [0; CACHED] };

thread_local! {
    static PLAN: Cell<Plan> = const { Cell::new(IDLE) };
    static OUTSTANDING: Cell<isize> = const { Cell::new(0) };
    /// Sizes of the last requests, for a test to look at.
    static SEEN: Cell<[(usize, usize); 16]> = const { Cell::new([(0, 0); 16]) };
}

/// Refuses the requests `first` to `last` of the calling thread, counted from 1 and from now.
pub fn arm(first: u64, last: u64) {
    PLAN.set(Plan { armed: true, first, last, ..IDLE });
}

/// Refuses nothing any more. Returns how many requests were refused.
pub fn disarm() -> u64 {
    PLAN.replace(IDLE).refused
}

/// Runs `f` with requests served, whatever the plan, and not counted.
pub fn served<R>(f: impl FnOnce() -> R) -> R {
    let plan = PLAN.replace(IDLE);
    let result = f();
    PLAN.set(plan);
    result
}

/// Bytes that the calling thread has allocated and not freed.
pub fn outstanding() -> isize {
    OUTSTANDING.get()
}

/// Sizes and alignments of the latest requests of the calling thread.
pub fn latest() -> [(usize, usize); 16] {
    SEEN.get()
}

/// Whether a request is refused.
fn refuse(layout: Layout) -> bool {
    let Ok(mut plan) = PLAN.try_with(Cell::get) else { return false };
    let _ = SEEN.try_with(|seen| {
        let mut sizes = seen.get();
        sizes.rotate_right(1);
        sizes[0] = (layout.size(), layout.align());
        seen.set(sizes);
    });
    if !plan.armed {
        return false;
    }
    if let Some(at) = plan.cached.iter().position(|&size| size == layout.size()) {
        plan.cached[at] = 0;
        PLAN.set(plan);
        return false;
    }
    plan.requests += 1;
    let refused = (plan.first..=plan.last).contains(&plan.requests);
    plan.refused += u64::from(refused);
    PLAN.set(plan);
    refused
}

fn freed(layout: Layout) {
    let _ = PLAN.try_with(|cell| {
        let mut plan = cell.get();
        plan.cached.rotate_right(1);
        plan.cached[0] = layout.size();
        cell.set(plan);
    });
}

fn count(bytes: isize) {
    let _ = OUTSTANDING.try_with(|sum| sum.set(sum.get() + bytes));
}

// SAFETY: every call goes to the system's allocator as it came, or gets null.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if refuse(layout) {
            return std::ptr::null_mut();
        }
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        freed(layout);
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}
