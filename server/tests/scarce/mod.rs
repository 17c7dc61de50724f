//! A global allocator that runs out of memory on demand: past a number of bytes, or at the N-th request.
//!
//! Only blocks of a size and above are refused, and only to threads that were not spared: a program's
//! small blocks, of which nobody is asked whether they may be had, are served, and so is the client that
//! watches it.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "an allocator on the way to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

pub struct Scarce;

/// Blocks below this are served.
static FROM: AtomicUsize = AtomicUsize::new(usize::MAX);
static BUDGET: AtomicI64 = AtomicI64::new(i64::MAX);
static FIRST: AtomicU64 = AtomicU64::new(u64::MAX);
static LAST: AtomicU64 = AtomicU64::new(u64::MAX);
static REQUESTS: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);
static OUTSTANDING: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static SPARED: Cell<bool> = const { Cell::new(false) };
}

/// The calling thread gets memory whatever happens.
pub fn spare_this_thread() {
    SPARED.set(true);
}

/// From now on there are `more` bytes beyond what is in use, for blocks of `from` bytes and above.
pub fn limit(more: i64, from: usize) {
    BUDGET.store(outstanding() + more, Ordering::SeqCst);
    start(u64::MAX, u64::MAX, from);
}

/// From now on refuses the requests `first` to `last` for blocks of `from` bytes and above, counted from
/// 1.
pub fn fail(first: u64, last: u64, from: usize) {
    start(first, last, from);
}

fn start(first: u64, last: u64, from: usize) {
    REQUESTS.store(0, Ordering::SeqCst);
    REFUSED.store(0, Ordering::SeqCst);
    FIRST.store(first, Ordering::SeqCst);
    LAST.store(last, Ordering::SeqCst);
    FROM.store(from, Ordering::SeqCst);
}

/// There is memory again. Returns how many requests were refused.
pub fn relieve() -> u64 {
    FROM.store(usize::MAX, Ordering::SeqCst);
    BUDGET.store(i64::MAX, Ordering::SeqCst);
    REFUSED.load(Ordering::SeqCst)
}

/// Bytes that are out.
pub fn outstanding() -> i64 {
    OUTSTANDING.load(Ordering::SeqCst)
}

fn refuses(bytes: usize) -> bool {
    if bytes < FROM.load(Ordering::SeqCst) || SPARED.try_with(Cell::get).unwrap_or(true) {
        return false;
    }
    let request = REQUESTS.fetch_add(1, Ordering::SeqCst) + 1;
    let first = FIRST.load(Ordering::SeqCst);
    let refused = (first..=LAST.load(Ordering::SeqCst)).contains(&request) && first != u64::MAX
        || outstanding() + bytes as i64 > BUDGET.load(Ordering::SeqCst);
    REFUSED.fetch_add(u64::from(refused), Ordering::SeqCst);
    refused
}

// SAFETY: every call goes to the system's allocator as it came, or gets null.
unsafe impl GlobalAlloc for Scarce {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if refuses(layout.size()) {
            return std::ptr::null_mut();
        }
        OUTSTANDING.fetch_add(layout.size() as i64, Ordering::SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        OUTSTANDING.fetch_sub(layout.size() as i64, Ordering::SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}
