//! The whole of it: a reader inside a real [`Domain`], on crossbeam-epoch's own loom support.
//!
//! One thread reads an object under a guard if it is still linked; the other unlinks it, retires it
//! and collects. The object's drop is the reclaim, and loom checks it against the read. The collector's
//! own atomics make this a large model, so its bound on preemptions is lower than elsewhere; the reader
//! is the model's first thread, so that the one preemption falls where it matters. Loom's leak check
//! covers the domain's own end.
//!
//! needs: crossbeam_loom
//! control: batch_without_grace: Causality violation
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
fn a_reader_inside_never_sees_the_reclaim() {
    model_within(1, "epoch_domain", || {
        let world = Arc::new(World { linked: AtomicBool::new(true), object: UnsafeCell::new(1) });
        let domain = Domain::new();
        // Both threads' records exist before: loom does not see std's `OnceLock`, which publishes them.
        drop([domain.register(), domain.register()]);
        let retirer = {
            let (world, domain) = (Arc::clone(&world), domain.clone());
            spawn(move || {
                let participant = domain.register();
                world.linked.store(false, Ordering::Relaxed);
                participant.defer_drop(Box::new(Object(Arc::clone(&world))));
                participant.collect().blocks
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
        // The case that matters: the reader was there before.
        retirer.join().unwrap() == 1 && found
    });
}
