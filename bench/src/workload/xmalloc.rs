//! Producer and consumer: some threads only allocate, others only free.
//!
//! After Boreham's xmalloc-test, as Lever and Boreham published it ("malloc() performance in a
//! multithreaded Linux environment", USENIX 2000). Batches of blocks go through a bounded queue;
//! nothing is ever freed where it was allocated. Allocators that keep freed blocks with the thread
//! that frees them grow, or pay for every block's way home.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::{Outcome, Param, Params, Workload, join, param};
use crate::block::Block;
use crate::measure::Section;
use crate::rng::Rng;

const PARAMS: &[Param] = &[
    param("pairs", 1, "producers, each with a consumer of its own"),
    param("batch", 512, "blocks per batch"),
    param("batches", 12_000, "batches per producer"),
    param("queue", 8, "batches that a queue holds"),
];

/// The workload.
pub const WORKLOAD: Workload = Workload {
    name: "xmalloc",
    about: "producers allocate, consumers free",
    params: PARAMS,
    work: "batches",
    tiny: &[("batch", 16), ("batches", 50)],
    run,
};

const SEED: u64 = 0x786d_616c;
/// Sizes in bytes, small ones more often.
const SIZES: [usize; 16] = [8, 12, 16, 16, 24, 32, 32, 48, 48, 64, 64, 96, 128, 192, 256, 512];

fn run(params: &Params) -> Outcome {
    let (batch, batches) = (params.count("batch"), params.get("batches"));
    let pairs = params.get("pairs");
    let queue = params.count("queue");

    let section = Section::start();
    let mut threads = Vec::new();
    for pair in 0..pairs {
        let (sender, receiver) = sync_channel(queue);
        threads.push(thread::spawn(move || {
            produce(&sender, Rng::part(SEED, pair), batch, batches);
            0
        }));
        threads.push(thread::spawn(move || consume(receiver)));
    }
    let checksum = threads.into_iter().map(join).fold(0, u64::wrapping_add);
    Outcome {
        measured: section.stop(),
        operations: pairs * batches * batch as u64,
        checksum,
        ..Outcome::default()
    }
}

fn produce(sender: &SyncSender<Vec<Block>>, mut rng: Rng, batch: usize, batches: u64) {
    for number in 0..batches {
        let blocks =
            (0..batch).map(|_| Block::new(SIZES[rng.below(SIZES.len())], number as u32)).collect();
        sender.send(blocks).expect("the consumer receives until the producer ends");
    }
}

fn consume(receiver: Receiver<Vec<Block>>) -> u64 {
    let mut sum = 0u64;
    for blocks in receiver {
        for block in blocks {
            sum = sum.wrapping_add(block.size() as u64 ^ u64::from(block.tag()));
        }
    }
    sum
}
