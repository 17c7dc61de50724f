//! Threads that come and go and leave blocks alive.
//!
//! After mleak of mimalloc-bench: generation after generation of short threads, each of which
//! leaves half of what it allocated to be freed by a thread two generations later. An allocator
//! that gives every new thread fresh memory, or cannot take over what a dead thread owned, grows.

use std::thread;

use super::{Outcome, Param, Params, Workload, join, param};
use crate::block::Block;
use crate::measure::Section;
use crate::rng::Rng;

const PARAMS: &[Param] = &[
    param("threads", 8, "threads per generation"),
    param("generations", 400, "generations"),
    param("blocks", 2_000, "blocks that each thread allocates"),
    param("max", 1_024, "largest block in bytes; sizes are skewed to small ones"),
];

/// The workload.
pub const WORKLOAD: Workload = Workload {
    name: "mleak",
    about: "threads that come and go with live blocks",
    params: PARAMS,
    work: "generations",
    tiny: &[("threads", 3), ("generations", 4), ("blocks", 40)],
    run,
};

const SEED: u64 = 0x6d6c_6561;

fn run(params: &Params) -> Outcome {
    let threads = params.get("threads");
    let (generations, blocks) = (params.get("generations"), params.count("blocks"));
    let max = params.count("max");

    let section = Section::start();
    let mut checksum = 0u64;
    let (mut parents, mut grandparents) = (Vec::new(), Vec::<Vec<Block>>::new());
    for generation in 0..generations {
        let mut inherited = grandparents.into_iter();
        let running: Vec<_> = (0..threads)
            .map(|number| {
                let inherited = inherited.next().unwrap_or_default();
                let rng = Rng::part(SEED, generation << 32 | number);
                thread::spawn(move || live(inherited, rng, blocks, max))
            })
            .collect();
        let left: Vec<Vec<Block>> = running.into_iter().map(join).collect();
        for block in left.iter().flatten() {
            checksum = checksum.wrapping_add(block.size() as u64);
        }
        grandparents = std::mem::replace(&mut parents, left);
    }
    drop((parents, grandparents));
    Outcome {
        measured: section.stop(),
        operations: generations * threads * blocks as u64,
        checksum,
        ..Outcome::default()
    }
}

/// One thread's life: allocates, frees what it inherited, and leaves every other block.
fn live(inherited: Vec<Block>, mut rng: Rng, blocks: usize, max: usize) -> Vec<Block> {
    let mut own = Vec::with_capacity(blocks / 2 + 1);
    let mut others = inherited.into_iter();
    for tag in 0..blocks {
        let block = Block::new(rng.skewed(8, max), tag as u32);
        if tag % 2 == 0 {
            own.push(block);
        }
        drop(others.next());
    }
    own
}
