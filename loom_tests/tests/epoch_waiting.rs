//! A task that waits for a grace period is woken, or sees by itself that it is over.
//!
//! One thread completes a period, the other leaves a waker for it. A waiter that was told to sleep has
//! been woken once both are done; loom explores the completion before, between and after.
//!
//! control: waiter_no_recheck: asleep for ever
#![cfg(flagstone_loom)]

use std::sync::Arc as StdArc;
use std::task::{Wake, Waker};

use flagstone_epoch::protocol::{Periods, Waiters};
use flagstone_loom_tests::{model, spawn};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};

/// The model's wakers are no part of the protocol, but loom's flag in them is: it is per execution.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: StdArc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn nobody_sleeps_through_the_end_of_a_period() {
    model("epoch_waiting", || {
        let shared = Arc::new((Periods::new(), Waiters::new()));
        let period = shared.0.try_launch().expect("none runs");
        let completer = {
            let shared = Arc::clone(&shared);
            spawn(move || shared.1.complete(&shared.0, period))
        };
        let flag = StdArc::new(Flag(AtomicBool::new(false)));
        let mut ticket = None;
        let waker = Waker::from(StdArc::clone(&flag));
        let is_over = shared.1.wait(&shared.0, period, &mut ticket, &waker);
        completer.join().unwrap();
        assert!(is_over || flag.0.load(Ordering::Relaxed), "asleep for ever");
        !is_over
    });
}
