//! The statistics of a lock: what a reader sees of them is something that can have been.
//!
//! The real counted lock, on a clock that makes every wait a contended one. Two threads take it, one of
//! them twice, while a reader without it takes two snapshots.
//!
//! control: counter_written_relaxed: one wait longer than all
//! control: counter_read_relaxed: one wait longer than all
#![cfg(flagstone_loom)]

use flagstone_loom_tests::{Crossing, model, spawn};
use flagstone_slab::model::StatedLock;
use loom::sync::Arc;

/// A wait that counts as contended takes longer than this many nanoseconds.
const THRESHOLD: u64 = 1_000;

#[test]
fn a_snapshot_shows_no_more_contended_than_acquired() {
    model("slab_lock", || {
        // The crossing is where a reader's loads are worth trying early: see there.
        let world = Arc::new((StatedLock::new(), Crossing::new()));
        let takers = [1, 2].map(|times| {
            let world = Arc::clone(&world);
            spawn(move || {
                for _ in 0..times {
                    world.0.take_and_let_go();
                    world.1.pass();
                }
            })
        });
        let (mut contended, mut acquisitions) = (0, 0);
        for _ in 0..2 {
            world.1.look();
            let seen = world.0.snapshot();
            assert!(seen.contended <= seen.acquisitions, "more contended than acquired");
            assert!(seen.max_wait_nanos <= seen.wait_nanos, "one wait longer than all");
            assert!(seen.contended * THRESHOLD <= seen.wait_nanos, "contended without a wait");
            assert!(seen.contended >= contended && seen.acquisitions >= acquisitions, "backwards");
            (contended, acquisitions) = (seen.contended, seen.acquisitions);
        }
        takers.into_iter().for_each(|taker| taker.join().unwrap());
        let after = world.0.snapshot();
        assert_eq!(after.acquisitions, 3, "acquisitions are exact");
        assert!(after.contended < 3, "the first to come does not wait");
        // The case that matters: a reader that saw somebody who had waited.
        contended > 0
    });
}
