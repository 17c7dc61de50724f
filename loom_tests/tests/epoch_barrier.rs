//! Barriers: when one returns, everything retired before it has been reclaimed, and shows.
//!
//! A participant hands a batch over (era, then the handed count) and the batch is reclaimed, while one
//! barrier flips eras and another waits for that very batch. The waiting one begins with the handed
//! count, as `Domain::barrier` does, because the batch may still be open when it starts.
//!
//! control: handed_relaxed: Causality violation
//! control: barrier_one_parity: Causality violation
#![cfg(flagstone_loom)]

use flagstone_epoch::protocol::{Drain, Eras, Registry};
use flagstone_loom_tests::{Crossing, model, spawn};
use loom::cell::UnsafeCell;
use loom::sync::Arc;

struct World {
    registry: Registry,
    eras: Eras,
    object: UnsafeCell<u32>,
    handed: Crossing,
}

// SAFETY: `object` is what the protocol under test protects; loom checks every access to it.
unsafe impl Sync for World {}

/// A barrier's second stage, which gives up after a few polls.
fn drain(eras: &Eras) -> bool {
    let mut drain = Drain::start(eras);
    (0..3).any(|_| drain.poll(eras))
}

fn check(name: &str, second_barrier: bool) {
    model(name, move || {
        let world = Arc::new(World {
            registry: Registry::new(),
            eras: Eras::new(),
            object: UnsafeCell::new(1),
            handed: Crossing::new(),
        });
        let record = world.registry.claim("retirer");
        record.retired(8);

        let retirer = {
            let world = Arc::clone(&world);
            spawn(move || {
                let record = world.registry.iter().next().expect("claimed above");
                let era = world.eras.enter();
                record.handed(1, 8);
                world.handed.pass();
                // SAFETY: the claim under test: the barrier does not touch it yet.
                world.object.with_mut(|object| unsafe { *object = 0 });
                world.eras.leave(era);
            })
        };
        let other = second_barrier.then(|| {
            let world = Arc::clone(&world);
            spawn(move || {
                let _ = drain(&world.eras);
            })
        });

        let (target, _) = record.retired_so_far();
        world.handed.look();
        let over = record.handed_blocks() >= target && drain(&world.eras);
        if over {
            // SAFETY: the claim under test: the reclaim is over, and seen.
            world.object.with(|object| assert_eq!(unsafe { *object }, 0, "not reclaimed yet"));
        }

        retirer.join().unwrap();
        if let Some(other) = other {
            other.join().unwrap();
        }
        over
    });
}

#[test]
fn a_barrier_waits_for_a_batch_that_was_open() {
    check("epoch_barrier", false);
}

#[test]
fn a_barrier_waits_although_another_flips_the_era() {
    check("epoch_barrier_two", true);
}
