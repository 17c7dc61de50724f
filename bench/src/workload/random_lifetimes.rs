//! Random sizes and lifetimes over threads that restart, with blocks that change hands.
//!
//! After mstress of mimalloc's tests: each thread keeps an array of slots and, at each step, frees
//! a random slot's block, swaps it for one in an array shared by all threads, or fills the slot
//! anew. Between rounds the threads end and new ones take their slots over. Shows how an allocator
//! holds together under fragmentation, frees from other threads, and owners that are gone.

use std::sync::Mutex;
use std::thread;

use super::{Outcome, Param, Params, Workload, param};
use crate::block::Block;
use crate::measure::Section;
use crate::rng::Rng;

const PARAMS: &[Param] = &[
    param("threads", 2, "threads at a time"),
    param("slots", 20_000, "slots per thread, half of them filled on average"),
    param("steps", 400_000, "steps per thread and round"),
    param("rounds", 20, "times that the threads are replaced"),
    param("shared", 1_000, "slots that all threads swap with"),
    param("max", 8_192, "largest block in bytes; sizes are skewed to small ones"),
];

/// The workload.
pub const WORKLOAD: Workload = Workload {
    name: "random-lifetimes",
    about: "random sizes and lifetimes, threads restart, blocks change hands (after mstress)",
    params: PARAMS,
    work: "rounds",
    tiny: &[("slots", 100), ("steps", 2_000), ("rounds", 2), ("shared", 10)],
    run,
};

const MIN_SIZE: usize = 8;
const SEED: u64 = 0x6d73_7472;

type Slots = Vec<Option<Block>>;

fn run(params: &Params) -> Outcome {
    let max = params.count("max");
    let steps = params.get("steps");
    let mut rng = Rng::new(SEED);
    // Full from the start and swapped block for block, so that which slots of a thread are filled
    // never depends on the interleaving.
    let shared: Vec<Mutex<Block>> =
        (0..params.count("shared")).map(|tag| Mutex::new(new_block(&mut rng, max, tag))).collect();
    let mut all: Vec<Slots> = Vec::new();
    for _ in 0..params.get("threads") {
        let mut slots = Slots::new();
        slots.resize_with(params.count("slots"), || None);
        all.push(slots);
    }

    let section = Section::start();
    let (mut operations, mut checksum) = (0u64, 0u64);
    for round in 0..params.get("rounds") {
        let counts: Vec<(u64, u64)> = thread::scope(|scope| {
            let threads: Vec<_> = all
                .iter_mut()
                .enumerate()
                .map(|(number, slots)| {
                    let shared = &shared;
                    let rng = Rng::part(SEED, round << 8 | number as u64);
                    scope.spawn(move || work(slots, shared, rng, steps, max))
                })
                .collect();
            threads.into_iter().map(|t| t.join().expect("a worker thread panicked")).collect()
        });
        for (allocations, sum) in counts {
            operations += allocations;
            checksum = checksum.wrapping_add(sum);
        }
    }
    drop(all);
    drop(shared);
    Outcome { measured: section.stop(), operations, checksum, ..Outcome::default() }
}

/// Returns how many blocks were allocated, and the sum over their tags and sizes.
fn work(
    slots: &mut Slots,
    shared: &[Mutex<Block>],
    mut rng: Rng,
    steps: u64,
    max: usize,
) -> (u64, u64) {
    let (mut allocations, mut sum) = (0, 0u64);
    for step in 0..steps {
        let at = rng.below(slots.len());
        let slot = &mut slots[at];
        match slot {
            Some(block) if rng.one_in(8) => {
                let other = &shared[rng.below(shared.len())];
                let mut other = other.lock().expect("no thread panics with the lock");
                std::mem::swap(block, &mut *other);
            }
            Some(_) => *slot = None,
            None => {
                let block = new_block(&mut rng, max, step as usize);
                allocations += 1;
                sum = sum.wrapping_add(u64::from(block.tag()) + block.size() as u64);
                *slot = Some(block);
            }
        }
    }
    (allocations, sum)
}

fn new_block(rng: &mut Rng, max: usize, tag: usize) -> Block {
    let mut block = Block::new(rng.skewed(MIN_SIZE, max), tag as u32);
    block.touch(4096);
    block
}
