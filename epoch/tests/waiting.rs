//! Waiting for a grace period in a task, and the check that no guard is held across an await.

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use common::{DEADLINE, Gate, eventually};
use flagstone_epoch::{Domain, Grace, no_guard_across_await, warn_if_guard_held};

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A runtime of one task on one thread. It polls only when woken; panics after the deadline.
fn run<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    let start = std::time::Instant::now();
    loop {
        if let Poll::Ready(out) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return out;
        }
        assert!(start.elapsed() < DEADLINE, "never woken");
        thread::park_timeout(DEADLINE);
        assert!(start.elapsed() < DEADLINE, "never woken");
    }
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

// requirement: D6
#[test]
fn a_task_waits_for_the_guards_of_its_token_and_no_others() {
    let domain = Domain::new();
    let (reader, later) = (domain.register(), domain.register());
    let guard = reader.pin();
    let token = domain.start_grace();
    let mut wait = pin!(domain.wait_grace(token));
    for _ in 0..3 {
        assert_eq!(poll_once(wait.as_mut()), Poll::Pending);
    }
    drop(guard);
    let _later = later.pin();
    eventually("the guard is gone", || poll_once(wait.as_mut()) == Poll::Ready(Grace::Over));
}

/// Nobody drives the domain but the participant that leaves.
#[test]
fn the_guard_that_leaves_last_wakes_the_task() {
    for readers in [1, 3] {
        let domain = Domain::new();
        let gate = Gate::new(readers + 1);
        thread::scope(|scope| {
            for _ in 0..readers {
                scope.spawn(|| {
                    let participant = domain.register();
                    let guard = participant.pin();
                    gate.wait();
                    // Until the task is asleep, most times.
                    thread::sleep(std::time::Duration::from_millis(2));
                    drop(guard);
                    // Takes no other guard and stays registered until the task is through.
                    gate.wait();
                });
            }
            gate.wait();
            let token = domain.start_grace();
            assert_eq!(run(domain.wait_grace(token)), Grace::Over);
            gate.wait();
        });
    }
}

#[test]
fn many_tasks_wait_and_some_give_up() {
    let domain = Domain::new();
    let reader = domain.register();
    let guard = reader.pin();
    let token = domain.start_grace();
    let mut waits: Vec<_> = (0..10).map(|_| Box::pin(domain.wait_grace(token))).collect();
    for wait in &mut waits {
        assert_eq!(poll_once(wait.as_mut()), Poll::Pending);
    }
    waits.truncate(5);
    drop(guard);
    for wait in waits {
        assert_eq!(run(wait), Grace::Over);
    }
    assert_eq!(run(domain.wait_grace(domain.start_grace())), Grace::Over);
}

#[test]
fn maintaining_drives_what_tasks_wait_for() {
    let domain = Domain::new();
    let reader = domain.register();
    let guard = reader.pin();
    let mut wait = pin!(domain.wait_grace(domain.start_grace()));
    assert_eq!(poll_once(wait.as_mut()), Poll::Pending);
    let before = domain.snapshot().grace.completed;
    drop(guard);
    eventually("completes periods", || {
        domain.maintain();
        domain.snapshot().grace.completed > before
    });
    eventually("and the token's", || {
        domain.maintain();
        poll_once(wait.as_mut()).is_ready()
    });
}

#[test]
fn a_token_of_another_domain_is_told_at_once() {
    let (domain, other) = (Domain::new(), Domain::new());
    assert_eq!(run(domain.wait_grace(other.start_grace())), Grace::Foreign);
}

#[test]
#[cfg(debug_assertions)]
fn a_guard_held_across_an_await_is_found() {
    let domain = Domain::new();
    let participant = domain.register();
    // A guard of the caller's is the caller's matter.
    let _outer = participant.pin();
    let second = domain.register();
    run(no_guard_across_await(async {
        drop(second.pin());
        std::future::ready(()).await;
        let _within_one_poll = second.pin();
    }));

    let mut held = Box::pin(no_guard_across_await(async {
        let _guard = second.pin();
        std::future::pending::<()>().await;
    }));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = poll_once(held.as_mut());
    }));
    let message = panicked.expect_err("a guard was held");
    let message = message.downcast_ref::<String>().expect("a message");
    assert!(message.contains("waiting.rs"), "{message}");
}

#[test]
#[cfg(debug_assertions)]
fn a_guard_held_into_sleep_is_warned_of_once() {
    let domain = Domain::new();
    let participant = domain.register();
    assert!(!warn_if_guard_held());
    for _ in 0..2 {
        let guard = participant.pin();
        assert!(warn_if_guard_held());
        assert!(!warn_if_guard_held(), "once per guard");
        drop(guard);
        assert!(!warn_if_guard_held());
    }
}
