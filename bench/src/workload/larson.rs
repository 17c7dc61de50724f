//! Server churn: threads that replace random blocks of random sizes, end, and leave what lives to
//! the thread that follows them.
//!
//! After Larson and Krishnan, "Memory allocation for long-running server applications" (ISMM 1998).
//! Each successor frees blocks that a thread which is gone had allocated: what a server does whose
//! workers come and go while its sessions stay.

use std::sync::mpsc;
use std::thread;

use super::{Outcome, Param, Params, Workload, join, param};
use crate::block::Block;
use crate::measure::Section;
use crate::rng::Rng;

const PARAMS: &[Param] = &[
    param("threads", 2, "threads at a time"),
    param("blocks", 5_000, "blocks that live per thread"),
    param("min", 8, "smallest block in bytes"),
    param("max", 1_000, "largest block in bytes"),
    param("replaced", 100_000, "blocks that one thread replaces before it ends"),
    param("generations", 100, "threads that follow one another"),
];

/// The workload.
pub const WORKLOAD: Workload = Workload {
    name: "larson",
    about: "server churn, threads inherit each other's blocks",
    params: PARAMS,
    work: "generations",
    tiny: &[("blocks", 50), ("replaced", 500), ("generations", 3)],
    run,
};

const SEED: u64 = 0x6c61_7273;

/// What one thread leaves to its successor.
struct Estate {
    chain: u64,
    generation: u64,
    blocks: Vec<Block>,
    sum: u64,
}

fn run(params: &Params) -> Outcome {
    let (min, max) = (params.count("min"), params.count("max"));
    let (replaced, generations) = (params.get("replaced"), params.get("generations"));
    let threads = params.get("threads");
    let (sender, receiver) = mpsc::channel::<Estate>();
    let spawn = |mut estate: Estate| {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut rng = Rng::part(SEED, estate.chain << 32 | estate.generation);
            for tag in 0..replaced {
                let block = Block::new(rng.range(min, max), tag as u32);
                estate.sum = estate.sum.wrapping_add(block.size() as u64);
                let slot = rng.below(estate.blocks.len());
                estate.blocks[slot] = block;
            }
            estate.generation += 1;
            // Fails only when the main thread is gone, and then nobody asks for the result.
            let _ = sender.send(estate);
        })
    };

    let section = Section::start();
    let mut running = Vec::new();
    for chain in 0..threads {
        let mut rng = Rng::part(!SEED, chain);
        let blocks = (0..params.count("blocks"))
            .map(|tag| Block::new(rng.range(min, max), tag as u32))
            .collect();
        running.push(Some(spawn(Estate { chain, generation: 0, blocks, sum: 0 })));
    }
    let mut checksum = 0u64;
    let mut left = threads;
    while left > 0 {
        let estate = receiver.recv().expect("the main thread holds a sender itself");
        let chain = estate.chain as usize;
        if let Some(ended) = running[chain].take() {
            join(ended);
        }
        if estate.generation < generations {
            running[chain] = Some(spawn(estate));
        } else {
            checksum = checksum.wrapping_add(estate.sum);
            left -= 1;
        }
    }
    Outcome {
        measured: section.stop(),
        operations: threads * generations * replaced,
        checksum,
        ..Outcome::default()
    }
}
