//! Grace tokens: nobody who was inside when a token was made is inside when it is over.
//!
//! The real [`Periods`], a reader as crossbeam-epoch's pin orders it (publish, fence, read), and a
//! collector reduced to what it promises: a period completes once its readers have been seen outside.
//! The writer unlinks an object, takes a token, and frees the object when the token is over, while
//! another thread drives periods of its own.
//!
//! control: grace_no_fence: Causality violation
//! control: grace_running_period: Causality violation
#![cfg(flagstone_loom)]

use flagstone_epoch::protocol::Periods;
use flagstone_loom_tests::{model, spawn};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering, fence};

struct World {
    periods: Periods,
    inside: AtomicBool,
    linked: AtomicBool,
    object: UnsafeCell<u32>,
}

// SAFETY: `object` is what the protocol under test protects; loom checks every access to it.
unsafe impl Sync for World {}

impl World {
    fn read_once(&self) {
        self.inside.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.linked.load(Ordering::Relaxed) {
            // SAFETY: the claim under test: it is not freed while this reader is inside.
            self.object.with(|object| assert_eq!(unsafe { *object }, 1, "read after free"));
        }
        self.inside.store(false, Ordering::Release);
    }

    /// Launches a period, or finds out whether the readers of the one that runs are gone.
    fn drive(&self) {
        if let Some(period) = self.periods.try_launch() {
            self.try_complete(period);
        }
    }

    fn try_complete(&self, period: u64) {
        if !self.inside.load(Ordering::Acquire) {
            self.periods.complete(period);
        }
    }
}

#[test]
fn a_token_waits_for_every_reader_that_was_inside() {
    model("epoch_grace", || {
        let world = Arc::new(World {
            periods: Periods::new(),
            inside: AtomicBool::new(false),
            linked: AtomicBool::new(true),
            object: UnsafeCell::new(1),
        });
        let reader = {
            let world = Arc::clone(&world);
            spawn(move || world.read_once())
        };
        let driver = {
            let world = Arc::clone(&world);
            spawn(move || world.drive())
        };

        world.linked.store(false, Ordering::Relaxed);
        let token = world.periods.awaited();
        // The period that runs, if the driver launched one, and the token's.
        for _ in 0..2 {
            if world.periods.completed() < token {
                world.drive();
            }
        }
        let over = world.periods.completed() >= token;
        if over {
            // SAFETY: the claim under test: no reader is left.
            world.object.with_mut(|object| unsafe { *object = 0 });
        }

        reader.join().unwrap();
        driver.join().unwrap();
        over
    });
}
