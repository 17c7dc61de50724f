//! Large blocks of 5 to 25 MiB, replaced at random, every page written.
//!
//! After malloc-large of mimalloc-bench. Decided by page faults: an allocator that gives each
//! block back at once pays for every page of the next one; one that keeps too many pays in
//! resident memory.

use super::{Outcome, Param, Params, Workload, param};
use crate::block::Block;
use crate::measure::Section;
use crate::rng::Rng;

const PARAMS: &[Param] = &[
    param("min_kib", 5 << 10, "smallest block in KiB"),
    param("max_kib", 25 << 10, "largest block in KiB"),
    param("slots", 10, "blocks alive at once"),
    param("blocks", 150, "blocks allocated"),
];

/// The workload.
pub const WORKLOAD: Workload = Workload {
    name: "large-blocks",
    about: "blocks of 5-25 MiB, every page written (after malloc-large)",
    params: PARAMS,
    work: "blocks",
    tiny: &[("blocks", 6), ("slots", 2)],
    run,
};

const SEED: u64 = 0x6c61_7267;
/// Bytes between writes: the smallest page in use.
const PAGE: usize = 4096;

fn run(params: &Params) -> Outcome {
    let (min, max) = (params.count("min_kib") << 10, params.count("max_kib") << 10);
    let blocks = params.get("blocks");
    let mut rng = Rng::new(SEED);
    let mut slots: Vec<Option<Block>> = Vec::new();
    slots.resize_with(params.count("slots"), || None);

    let section = Section::start();
    let mut checksum = 0u64;
    for tag in 0..blocks {
        let slot = rng.below(slots.len());
        // The old block goes first, as an assignment to a cleared buffer does.
        slots[slot] = None;
        let mut block = Block::new(rng.range(min, max), tag as u32);
        block.touch(PAGE);
        checksum = checksum.wrapping_add(block.size() as u64);
        slots[slot] = Some(block);
    }
    drop(slots);
    Outcome { measured: section.stop(), operations: blocks, checksum, ..Outcome::default() }
}
