//! Passive false sharing: one thread hands neighbouring small blocks to others, who then allocate
//! in their stead.
//!
//! After cache-scratch of the Hoard benchmarks (Berger et al., ASPLOS 2000). Each thread frees the
//! block it was given and goes on with blocks of its own. An allocator that hands the freed
//! neighbours out to the threads that freed them lets two processors write one cache line.

use std::thread;

use super::cache_thrash::write_often;
use super::{Outcome, Param, Params, Workload, join, param};
use crate::block::Block;
use crate::measure::Section;

const PARAMS: &[Param] = &[
    param("threads", 2, "threads"),
    param("size", 8, "bytes per block"),
    param("rounds", 1_600, "blocks that each thread allocates, writes to and frees"),
    param("writes", 100_000, "writes to each block"),
];

/// The workload.
pub const WORKLOAD: Workload = Workload {
    name: "cache-scratch",
    about: "passive false sharing",
    params: PARAMS,
    work: "rounds",
    tiny: &[("rounds", 10), ("writes", 100)],
    run,
};

fn run(params: &Params) -> Outcome {
    let (size, rounds, writes) = (params.count("size"), params.get("rounds"), params.get("writes"));
    let threads = params.get("threads");

    let section = Section::start();
    // Allocated side by side by one thread before any other starts.
    let given: Vec<Block> = (0..threads).map(|tag| Block::new(size, tag as u32)).collect();
    let running: Vec<_> = given
        .into_iter()
        .map(|given| {
            thread::spawn(move || {
                drop(given);
                (0..rounds).map(|round| write_often(size, round, writes)).fold(0, u64::wrapping_add)
            })
        })
        .collect();
    let checksum = running.into_iter().map(join).fold(0, u64::wrapping_add);
    Outcome {
        measured: section.stop(),
        operations: threads * rounds,
        checksum,
        ..Outcome::default()
    }
}
