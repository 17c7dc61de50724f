//! Batches of small objects, freed in the order of allocation, against it, and interleaved.
//!
//! After the sh6bench and sh8bench programs of MicroQuill's SmartHeap: sizes up to a thousand bytes
//! with the small ones in the majority, every other batch kept for a while so that the heap is
//! never empty. With `exchange` (sh8) half of each batch goes to the next thread to be freed there.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use super::{Outcome, Param, Params, Workload, join, param};
use crate::block::Block;
use crate::measure::Section;
use crate::rng::Rng;

const PARAMS: &[Param] = &[
    param("threads", 2, "threads"),
    param("batch", 4_000, "blocks per batch"),
    param("batches", 4_000, "batches per thread"),
    param("max", 1_000, "largest block in bytes; sizes are skewed to small ones"),
    param("exchange", 0, "1 to free half of each batch on the next thread"),
];

/// The workload.
pub const WORKLOAD: Workload = Workload {
    name: "small-batches",
    about: "batches of small objects freed in and out of order (after sh6bench, sh8bench)",
    params: PARAMS,
    work: "batches",
    tiny: &[("batch", 60), ("batches", 12), ("exchange", 1)],
    run,
};

const SEED: u64 = 0x7368_3673;
/// Batches under way to a thread; a fuller one makes the sender free its batch itself.
const UNDER_WAY: usize = 4;
/// Batches that a thread keeps alive while it makes new ones.
const KEPT: usize = 3;

fn run(params: &Params) -> Outcome {
    let threads = params.count("threads");
    let (batch, batches) = (params.count("batch"), params.get("batches"));
    let max = params.count("max");
    let exchange = params.get("exchange") != 0;

    let section = Section::start();
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..threads).map(|_| sync_channel::<Vec<Block>>(UNDER_WAY)).unzip();
    let running: Vec<_> = receivers
        .into_iter()
        .enumerate()
        .map(|(number, from)| {
            let to = exchange.then(|| senders[(number + 1) % threads].clone());
            let rng = Rng::part(SEED, number as u64);
            thread::spawn(move || work(rng, batch, batches, max, to.as_ref(), &from))
        })
        .collect();
    drop(senders);
    let checksum = running.into_iter().map(join).fold(0, u64::wrapping_add);
    Outcome {
        measured: section.stop(),
        operations: threads as u64 * batches * batch as u64,
        checksum,
        ..Outcome::default()
    }
}

fn work(
    mut rng: Rng,
    batch: usize,
    batches: u64,
    max: usize,
    to: Option<&SyncSender<Vec<Block>>>,
    from: &Receiver<Vec<Block>>,
) -> u64 {
    let mut sum = 0u64;
    let mut kept: Vec<Vec<Block>> = Vec::with_capacity(KEPT);
    for number in 0..batches {
        let mut blocks: Vec<Block> =
            (0..batch).map(|_| Block::new(rng.skewed(8, max), number as u32)).collect();
        sum = sum.wrapping_add(blocks.iter().map(|block| block.size() as u64).sum());
        if let Some(to) = to {
            let half = blocks.split_off(batch / 2);
            // Never waits: two threads waiting for each other would never end.
            match to.try_send(half) {
                Ok(()) => {}
                Err(TrySendError::Full(half) | TrySendError::Disconnected(half)) => drop(half),
            }
            while let Ok(others) = from.try_recv() {
                free(others, number + 1);
            }
        }
        if kept.len() < KEPT {
            kept.push(blocks);
        } else {
            let oldest = std::mem::replace(&mut kept[number as usize % KEPT], blocks);
            free(oldest, number);
        }
    }
    sum
}

/// Frees a batch in an order that changes from one batch to the next.
fn free(mut blocks: Vec<Block>, number: u64) {
    match number % 3 {
        0 => drop(blocks), // first allocated, first freed
        1 => while blocks.pop().is_some() {},
        _ => {
            let mut blocks: Vec<Option<Block>> = blocks.into_iter().map(Some).collect();
            blocks.iter_mut().step_by(2).for_each(|block| *block = None);
            blocks.iter_mut().skip(1).step_by(2).for_each(|block| *block = None);
        }
    }
}
