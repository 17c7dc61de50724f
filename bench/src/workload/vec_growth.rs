//! Vectors grown by pushing, several in turn, so that none can simply grow into the space behind.
//!
//! Ours; the suites of the field have none. Growth is `realloc` from a few bytes to tens of MiB,
//! the way a program reads a body or collects rows: an allocator that can remap a large block
//! spares the copy, one that cannot copies and faults everything twice.

use std::hint::black_box;

use super::{Outcome, Param, Params, Workload, param};
use crate::measure::Section;

const PARAMS: &[Param] = &[
    param("vectors", 4, "vectors grown in turn"),
    param("mib", 16, "final size of each in MiB"),
    param("chunk", 1_000, "bytes appended at a time"),
    param("times", 10, "times that the vectors are grown from nothing"),
];

/// The workload.
pub const WORKLOAD: Workload = Workload {
    name: "vec-growth",
    about: "vectors grown by pushing to 16 MiB",
    params: PARAMS,
    work: "times",
    tiny: &[("mib", 1), ("vectors", 2), ("times", 1)],
    run,
};

fn run(params: &Params) -> Outcome {
    let limit = params.count("mib") << 20;
    let chunk = params.count("chunk");
    let section = Section::start();
    let (mut operations, mut checksum) = (0u64, 0u64);
    for time in 0..params.get("times") {
        let mut vectors: Vec<Vec<u8>> = vec![Vec::new(); params.count("vectors")];
        let mut appended = 0u64;
        while vectors[0].len() < limit {
            for vector in &mut vectors {
                let at = vector.len();
                vector.resize(at + chunk, appended as u8);
                appended += 1;
            }
        }
        // What was appended first must have survived every move.
        for (index, vector) in black_box(&vectors).iter().enumerate() {
            assert_eq!(vector[..chunk], vec![index as u8; chunk], "a vector lost its contents");
            checksum = checksum.wrapping_add(u64::from(vector[vector.len() - 1]) + time);
        }
        operations += appended;
    }
    Outcome { measured: section.stop(), operations, checksum, ..Outcome::default() }
}
