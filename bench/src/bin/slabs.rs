//! Measures the typed slab beside its peers and prints one line of JSON: see `flagstone_bench::slabs`.
//!
//! `slabs [rounds [threads,threads,... [cell,cell,...]]]`; a run of 15 rounds takes about half a minute.

#![allow(clippy::disallowed_types, reason = "a count of bytes, no protocol")]
#![allow(
    clippy::disallowed_methods,
    reason = "an allocator that counts on its way to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use flagstone_bench::slabs::operations::{Guards, at_once, get, pairs, remote};
use flagstone_bench::slabs::{Cell, Measured, Memory, guards, memory};

/// Values at the peak of the memory cells.
const VALUES: usize = 1_000_000;

/// The system's allocator, which counts bytes while it is asked to: timed cells pay one load.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static COUNTS: AtomicBool = AtomicBool::new(false);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTS.load(Ordering::Relaxed) {
            LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if COUNTS.load(Ordering::Relaxed) {
            LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        }
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let rounds = args.next().map_or(15, |arg| arg.parse().expect("a number of rounds"));
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads: Vec<usize> = args.next().map_or_else(
        || [1, 2, 4, 8, 16].into_iter().filter(|&n| n <= processors.max(2)).collect(),
        |arg| arg.split(',').map(|n| n.parse().expect("a number of threads")).collect(),
    );
    let wished = args.next().unwrap_or_default();
    let wished: Vec<&str> = wished.split(',').filter(|part| !part.is_empty()).collect();
    let wants = |cell: &str| wished.is_empty() || wished.iter().any(|part| cell.contains(part));

    let memory = if wants("memory") { memory_cells() } else { Vec::new() };
    let mut cells = Vec::new();
    for &threads in &threads {
        for (name, cell, guards) in OPERATIONS {
            if wants(name) {
                cells.push(cell(threads, rounds, guards));
            }
        }
    }
    for (name, cell) in OTHERS {
        if wants(name) {
            cells.push(cell(rounds));
        }
    }
    let backlogs = if wants("backlog") { guards::backlogs() } else { Vec::new() };
    let measured = Measured { cells, memory, backlogs };
    println!("{}", serde_json::to_string(&measured).expect("plain data has a JSON form"));
}

type Operation = fn(usize, usize, Guards) -> Cell;
type Other = fn(usize) -> Cell;

/// Cells for each number of threads.
const OPERATIONS: [(&str, Operation, Guards); 5] = [
    ("get", get, Guards::Request),
    ("get own guard", get, Guards::Own),
    ("insert+remove", pairs, Guards::Request),
    ("insert+remove own guard", pairs, Guards::Own),
    ("insert+remove at once", at_once, Guards::Request),
];

/// Cells of one shape.
const OTHERS: [(&str, Other); 4] = [
    ("remote remove", remote),
    ("guard", guards::guard),
    ("retire", guards::retire),
    ("retire or defer", guards::retire_or_defer),
];

fn memory_cells() -> Vec<Memory> {
    // From far above zero, for what is freed now may not have been counted.
    LIVE.store(1 << 40, Ordering::Relaxed);
    COUNTS.store(true, Ordering::Relaxed);
    let memory = memory::memory(VALUES, &|| LIVE.load(Ordering::Relaxed));
    COUNTS.store(false, Ordering::Relaxed);
    memory
}
