//! Active false sharing: threads that start at once allocate small blocks and write to them.
//!
//! After cache-thrash of the Hoard benchmarks (Berger et al., ASPLOS 2000). An allocator that
//! serves two threads from one cache line makes them slow each other down at every write.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;

use super::{Outcome, Param, Params, Workload, join, param};
use crate::measure::Section;

const PARAMS: &[Param] = &[
    param("threads", 2, "threads"),
    param("size", 8, "bytes per block"),
    param("rounds", 1_600, "blocks that each thread allocates, writes to and frees"),
    param("writes", 100_000, "writes to each block"),
];

/// The workload.
pub const WORKLOAD: Workload = Workload {
    name: "cache-thrash",
    about: "active false sharing",
    params: PARAMS,
    work: "rounds",
    tiny: &[("rounds", 10), ("writes", 100)],
    run,
};

fn run(params: &Params) -> Outcome {
    let (size, rounds, writes) = (params.count("size"), params.get("rounds"), params.get("writes"));
    let threads = params.get("threads");

    let section = Section::start();
    let start = Arc::new(Barrier::new(threads as usize));
    let running: Vec<_> = (0..threads)
        .map(|_| {
            let start = Arc::clone(&start);
            thread::spawn(move || {
                start.wait();
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

/// Allocates a block, counts up every byte of it in turn `writes` times, sums it and frees it.
pub(super) fn write_often(size: usize, round: u64, writes: u64) -> u64 {
    let mut block = vec![round as u8; black_box(size)];
    for write in 0..writes {
        let at = write as usize % size;
        // Kept in memory, as the compiler would otherwise keep a small block in a register.
        let byte = black_box(&mut block[at]);
        *byte = byte.wrapping_add(1);
    }
    block.iter().map(|&byte| u64::from(byte)).sum()
}
