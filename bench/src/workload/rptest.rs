//! Sweeps over sizes up to 64 KiB with hand-over between threads.
//!
//! After rptest, the benchmark of rpmalloc: each thread allocates a series of blocks whose sizes
//! sweep over the whole range, frees a part of its older blocks, and passes a part on to the next
//! thread, which frees it. Exercises many size classes at once, up to those that are no longer
//! small for anybody.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use super::{Outcome, Param, Params, Workload, join, param};
use crate::block::Block;
use crate::measure::Section;
use crate::rng::Rng;

const PARAMS: &[Param] = &[
    param("threads", 2, "threads"),
    param("min", 16, "smallest block in bytes"),
    param("max", 65_536, "largest block in bytes"),
    param("blocks", 1_000, "blocks allocated per sweep"),
    param("sweeps", 1_500, "sweeps per thread"),
    param("handed", 4, "one block in this many is freed by the next thread; 0: none"),
];

/// The workload.
pub const WORKLOAD: Workload = Workload {
    name: "rptest",
    about: "sweeps over sizes to 64 KiB with cross-thread hand-over",
    params: PARAMS,
    work: "sweeps",
    tiny: &[("blocks", 60), ("sweeps", 6)],
    run,
};

const SEED: u64 = 0x7270_7465;
/// Series under way to a thread; a fuller one makes the sender free its series itself.
const UNDER_WAY: usize = 4;
/// Step of the sweep, coprime to every range used, so that a sweep meets sizes all over it.
const STRIDE: usize = 7_919;

fn run(params: &Params) -> Outcome {
    let threads = params.count("threads");
    let section = Section::start();
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..threads).map(|_| sync_channel::<Vec<Block>>(UNDER_WAY)).unzip();
    let running: Vec<_> = receivers
        .into_iter()
        .enumerate()
        .map(|(number, from)| {
            let to = senders[(number + 1) % threads].clone();
            let params = params.clone();
            thread::spawn(move || work(&params, number, &to, &from))
        })
        .collect();
    drop(senders);
    let checksum = running.into_iter().map(join).fold(0, u64::wrapping_add);
    Outcome {
        measured: section.stop(),
        operations: threads as u64 * params.get("sweeps") * params.get("blocks"),
        checksum,
        ..Outcome::default()
    }
}

fn work(
    params: &Params,
    number: usize,
    to: &SyncSender<Vec<Block>>,
    from: &Receiver<Vec<Block>>,
) -> u64 {
    let (min, max) = (params.count("min"), params.count("max"));
    let (blocks, handed) = (params.count("blocks"), params.count("handed"));
    let mut rng = Rng::part(SEED, number as u64);
    let mut sum = 0u64;
    let mut size = rng.range(min, max);
    let mut held: Vec<Option<Block>> = Vec::new();
    held.resize_with(2 * blocks, || None);
    for sweep in 0..params.get("sweeps") {
        let mut leaving = Vec::with_capacity(blocks / handed.max(1) + 1);
        for index in 0..blocks {
            size = min + (size - min + STRIDE) % (max - min + 1);
            // Most blocks of a sweep are small, as in programs; each octave gets its share.
            let size = (size >> rng.below(8)).max(min);
            let block = Block::new(size, sweep as u32);
            sum = sum.wrapping_add(size as u64);
            if handed != 0 && index % handed == 0 {
                leaving.push(block);
            } else {
                let slot = rng.below(held.len());
                held[slot] = Some(block);
            }
        }
        if handed != 0 {
            // Never waits: two threads waiting for each other would never end.
            match to.try_send(leaving) {
                Ok(()) => {}
                Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => drop(back),
            }
            while let Ok(arrived) = from.try_recv() {
                drop(arrived);
            }
        }
    }
    sum
}
