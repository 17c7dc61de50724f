//! Memory that comes back: what stays resident when a peak over many threads is over and every
//! thread sleeps.
//!
//! Ours. Threads allocate a peak together, free 99 % of it and wait; nothing allocates from then
//! on. After the settling time the resident set is read beside the bytes still alive, which are
//! the checksum. Time matters little here.

use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::{Outcome, Param, Params, Workload, join, param};
use crate::block::Block;
use crate::measure::{Resident, Section};
use crate::peer;
use crate::rng::Rng;

const PARAMS: &[Param] = &[
    param("threads", 64, "threads"),
    param("peak_mib", 1024, "bytes alive at the peak, all threads, in MiB"),
    param("kept", 100, "one block in this many stays alive"),
    param("scattered", 0, "1 if the survivors lie all over, 0 if they were allocated together"),
    param("max", 16_384, "largest block in bytes; sizes are skewed to small ones"),
    param("settle_ms", 2_000, "time between the last free and the reading, in milliseconds"),
];

/// The workload.
pub const WORKLOAD: Workload = Workload {
    name: "memory-return",
    about: "what stays resident after a peak, with every thread asleep",
    params: PARAMS,
    work: "peak_mib",
    tiny: &[("threads", 3), ("peak_mib", 3), ("settle_ms", 1)],
    run,
};

const SEED: u64 = 0x7265_7475;
/// How often an allocator that has housekeeping for sleeping threads gets to do it.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// Lets the threads end when the reading is done.
type Gate = Arc<(Mutex<bool>, Condvar)>;

fn run(params: &Params) -> Outcome {
    let threads = params.count("threads");
    let share = (params.count("peak_mib") << 20) / threads;
    let settle = Duration::from_millis(params.get("settle_ms"));
    let gate = Gate::default();
    let peaked = Arc::new(Barrier::new(threads));
    let freed = Arc::new(Barrier::new(threads + 1));

    let section = Section::start();
    let running: Vec<_> = (0..threads)
        .map(|number| {
            let (params, gate) = (params.clone(), Arc::clone(&gate));
            let (peaked, freed) = (Arc::clone(&peaked), Arc::clone(&freed));
            thread::spawn(move || live(&params, number, share, &peaked, &freed, &gate))
        })
        .collect();
    freed.wait();
    let measured = section.stop();

    let start = Instant::now();
    while start.elapsed() < settle {
        thread::sleep(HOUSEKEEPING.min(settle));
        peer::housekeep();
    }
    let settled_rss = Some(Resident::of_self().current);
    *gate.0.lock().expect("no thread panics with the gate") = true;
    gate.1.notify_all();
    let (mut operations, mut alive) = (0u64, 0u64);
    for (blocks, bytes) in running.into_iter().map(join) {
        operations += blocks;
        alive += bytes;
    }
    Outcome { measured, operations, checksum: alive, settled_rss }
}

/// Returns the blocks allocated and the bytes kept.
fn live(
    params: &Params,
    number: usize,
    share: usize,
    peaked: &Barrier,
    freed: &Barrier,
    gate: &Gate,
) -> (u64, u64) {
    let (max, kept) = (params.count("max"), params.count("kept").max(1));
    let scattered = params.get("scattered") != 0;
    let mut rng = Rng::part(SEED, number as u64);
    let blocks = blocks_of(rng.clone(), share, max);
    // The harness's own memory first, and the survivors' vector apart: collecting would reuse the
    // peak's, and keep 16 bytes for each block that ever lived where the checksum does not count.
    let mut all = Vec::with_capacity(blocks);
    let mut survivors: Vec<Block> = Vec::with_capacity(blocks.div_ceil(kept));
    for _ in 0..blocks {
        let mut block = Block::new(rng.skewed(16, max), number as u32);
        block.touch(4096);
        all.push(block);
    }
    peaked.wait();
    let stride = if scattered { kept } else { 1 };
    survivors.extend(all.into_iter().step_by(stride).take(blocks.div_ceil(kept)));
    let alive = survivors.iter().map(|block| block.size() as u64).sum();
    freed.wait();
    // What a runtime tells an allocator that asks to be told.
    peer::about_to_sleep();
    let mut open = gate.0.lock().expect("no thread panics with the gate");
    while !*open {
        open = gate.1.wait(open).expect("no thread panics with the gate");
    }
    drop(open);
    drop(survivors);
    (blocks as u64, alive)
}

/// How many blocks make up a thread's share of the peak.
fn blocks_of(mut rng: Rng, share: usize, max: usize) -> usize {
    let (mut blocks, mut bytes) = (0, 0);
    while bytes < share {
        bytes += rng.skewed(16, max);
        blocks += 1;
    }
    blocks
}
