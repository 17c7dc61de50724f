//! A thread ends with a partial batch, against a reader.
//!
//! A real domain. One thread unlinks an object, retires it into a batch that has room for more, and ends
//! without having filled or flushed it; another may be reading the object under a guard. The batch waits
//! for the reader, is reclaimed by whoever collects afterwards, and is not lost (rules P3, R1, R4).
//!
//! needs: crossbeam_loom
//! control: batch_without_grace: Causality violation
//! control: batch_not_deferred: a partial batch was lost
#![cfg(all(flagstone_loom, crossbeam_loom))]

use flagstone_epoch::Domain;
use flagstone_loom_tests::{model_within, spawn};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};

struct World {
    linked: AtomicBool,
    object: UnsafeCell<u32>,
}

// SAFETY: `object` is what the protocol under test protects; loom checks every access to it.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

/// Stands for the object: its drop frees it.
struct Object(Arc<World>);

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: the claim under test: no reader is left.
        self.0.object.with_mut(|object| unsafe { *object = 0 });
    }
}

// requirement: D6
#[test]
fn what_an_ended_thread_retired_waits_and_is_reclaimed() {
    model_within(1, "epoch_exit", || {
        let world = Arc::new(World { linked: AtomicBool::new(true), object: UnsafeCell::new(1) });
        let domain = Domain::builder().batch_blocks(4).build().expect("in range");
        // Both threads' records exist before: loom does not see std's `OnceLock`, which publishes them.
        drop([domain.register(), domain.register()]);
        let ending = {
            let (world, domain) = (Arc::clone(&world), domain.clone());
            spawn(move || {
                let participant = domain.register();
                world.linked.store(false, Ordering::Relaxed);
                participant.defer_drop(Box::new(Object(Arc::clone(&world))));
                // The thread ends, and somebody collects.
                drop(participant);
                domain.collect().blocks
            })
        };
        let participant = domain.register();
        let guard = participant.pin();
        let found = world.linked.load(Ordering::Relaxed);
        if found {
            // SAFETY: the claim under test: it is not freed while the guard is held.
            world.object.with(|object| assert_eq!(unsafe { *object }, 1, "freed"));
        }
        drop(guard);
        drop(participant);
        let reclaimed = ending.join().unwrap();

        // Nobody is inside any more: the rest comes back in a few steps, or never.
        for _ in 0..3 {
            domain.collect();
        }
        // SAFETY: the reclaim is over.
        let object = world.object.with(|object| unsafe { *object });
        assert_eq!(object, 0, "a partial batch was lost");
        // The case that matters: the reader was there before.
        found && reclaimed == 1
    });
}
