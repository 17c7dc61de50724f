//! Same-thread pairs by size: allocate, write, free, over and over on one thread.
//!
//! The shortest way through an allocator. A `window` of one frees each block at once, so that the
//! free list never holds more than one; a larger one frees the oldest of that many, as a queue of
//! requests would.
//!
//! The windows are primes: one that divides an allocator's number of blocks per page resonates with
//! it, and takes twice the time (seen with mimalloc at 64 and 256) where any other does not.

use super::{Outcome, Param, Params, Workload, param};
use crate::block::Block;
use crate::measure::Section;

const PARAMS: &[Param] = &[
    param("size", 64, "bytes per block"),
    param("pairs", 40_000_000, "allocate/free pairs"),
    param("window", 257, "blocks alive at once; best a prime"),
];

/// The workload.
pub const WORKLOAD: Workload = Workload {
    name: "pairs",
    about: "same-thread allocate/free pairs of one size",
    params: PARAMS,
    work: "pairs",
    tiny: &[("pairs", 10_000)],
    run,
};

fn run(params: &Params) -> Outcome {
    let (size, pairs) = (params.count("size"), params.get("pairs"));
    let mut ring: Vec<Option<Block>> = Vec::new();
    ring.resize_with(params.count("window").max(1), || None);
    let mut checksum = 0u64;

    let section = Section::start();
    let mut at = 0;
    for pair in 0..pairs {
        if let Some(oldest) = ring[at].take() {
            checksum = checksum.wrapping_add(u64::from(oldest.tag()));
        }
        ring[at] = Some(Block::new(size, pair as u32));
        at += 1;
        if at == ring.len() {
            at = 0;
        }
    }
    ring.clear();
    Outcome { measured: section.stop(), operations: pairs, checksum, ..Outcome::default() }
}
