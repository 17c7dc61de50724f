//! The bare pair for counting instructions: nothing in the loop but the allocator.
//!
//! `--suite pair` runs it under callgrind with two counts and takes the difference, so that start
//! and end of the process fall out; the loop's own instructions fall out against `kind=0`, to
//! within one or two. For an allocator that callgrind cannot run, a tracer counts between marks.
//! Blocks are not checked here: the checks would be counted.

use std::hint::black_box;
use std::ptr::NonNull;

use super::{Outcome, Param, Params, Workload, param};
use crate::block::{allocate, opaque_layout, release};
use crate::measure::Section;

/// `kind`: the loop without the allocator.
pub const EMPTY: u64 = 0;
/// `kind`: allocate one block, free it.
pub const SINGLE: u64 = 1;
/// `kind`: allocate [`BATCH_BLOCKS`] blocks, then free them, oldest first.
pub const BATCH: u64 = 2;

/// Blocks per batch.
pub const BATCH_BLOCKS: usize = 64;

/// Pairs before the marked ones: enough for every allocator to be in its steady state.
const WARM_UP: u64 = 20_480;

const PARAMS: &[Param] = &[
    param("size", 64, "bytes per block"),
    param("pairs", 1_000_000, "allocate/free pairs"),
    param("kind", SINGLE, "0 the empty loop, 1 one block at a time, 2 batches of 64"),
    param("marked", 0, "1 to warm up first and mark the pairs with SIGUSR1 for a tracer"),
];

/// The workload.
pub const WORKLOAD: Workload = Workload {
    name: "pair-count",
    about: "the bare allocate/free pair, for instruction counts",
    params: PARAMS,
    work: "pairs",
    tiny: &[("pairs", 1280), ("kind", BATCH)],
    run,
};

fn run(params: &Params) -> Outcome {
    let (size, pairs, kind) = (params.count("size"), params.get("pairs"), params.get("kind"));
    let marked = params.get("marked") != 0;
    if marked {
        work(size, WARM_UP, kind);
    }
    let section = Section::start();
    mark(marked);
    work(size, pairs, kind);
    mark(marked);
    Outcome { measured: section.stop(), operations: pairs, ..Outcome::default() }
}

fn work(size: usize, pairs: u64, kind: u64) {
    match kind {
        EMPTY => (0..pairs).for_each(|_| {
            black_box(opaque_layout(size).size());
            black_box(opaque_layout(size).size());
        }),
        SINGLE => (0..pairs).for_each(|_| {
            let block = black_box(allocate(size));
            // SAFETY: allocated in the line before with this size.
            unsafe { release(block, size) };
        }),
        _ => batches(size, pairs),
    }
}

fn batches(size: usize, pairs: u64) {
    let mut blocks = [NonNull::<u8>::dangling(); BATCH_BLOCKS];
    for _ in 0..pairs / BATCH_BLOCKS as u64 {
        for slot in &mut blocks {
            *slot = allocate(size);
        }
        for block in black_box(&blocks) {
            // SAFETY: each was allocated in the loop above with this size and is freed once.
            unsafe { release(*block, size) };
        }
    }
}

/// Tells a tracer that the counted part begins or ends. Without a tracer it ends the process.
fn mark(marked: bool) {
    if marked {
        // SAFETY: raises a signal in this thread.
        unsafe { libc::raise(libc::SIGUSR1) };
    }
}
