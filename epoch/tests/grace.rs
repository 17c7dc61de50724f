//! Grace tokens and barriers.

mod common;

use std::thread;
use std::time::Duration;

use common::{DEADLINE, Drops, Embedded, Gate, eventually};
use flagstone_epoch::{BarrierError, Domain, Grace};

#[test]
fn a_token_is_pending_while_an_earlier_guard_is_held() {
    let domain = Domain::new();
    let reader = domain.register();
    let guard = reader.pin();
    let token = domain.start_grace();
    for _ in 0..100 {
        assert_eq!(domain.poll_grace(token), Grace::Pending);
    }
    drop(guard);
    eventually("the token is over", || domain.poll_grace(token).is_over());
}

#[test]
fn a_token_ends_without_participants_and_without_anything_pending() {
    let domain = Domain::new();
    let first = domain.start_grace();
    let again = domain.start_grace();
    assert_eq!(first, again, "nothing was launched between the two");
    eventually("the token is over", || domain.poll_grace(first).is_over());
    assert!(domain.poll_grace(again).is_over());
    assert!(domain.start_grace() > first);
    assert!(domain.snapshot().grace.completed >= 1);
}

/// A guard taken before the token, while a period that does not know of it is running already.
#[test]
fn a_period_that_runs_already_does_not_count() {
    let domain = Domain::new();
    let (early, late) = (domain.register(), domain.register());
    // A handle's first pin moves the collector; after it, epochs move in `advance` alone, and the late
    // guard can be one epoch younger than the period.
    drop((early.pin(), late.pin()));
    let warm = domain.start_grace();
    eventually("the first period is over", || domain.poll_grace(warm).is_over());
    let early_guard = early.pin();
    let before = domain.snapshot().grace.completed;
    domain.advance();
    assert_eq!(domain.snapshot().grace.started, before + 1, "a period waits for the early guard");
    let late_guard = late.pin();
    let token = domain.start_grace();
    drop(early_guard);
    eventually("the first period completes", || domain.advance() > before);
    for _ in 0..100 {
        assert_eq!(domain.poll_grace(token), Grace::Pending);
    }
    drop(late_guard);
    eventually("the token is over", || domain.poll_grace(token).is_over());
}

#[test]
fn a_token_of_another_domain_is_told_apart() {
    let (one, other) = (Domain::new(), Domain::new());
    assert_eq!(one.poll_grace(other.start_grace()), Grace::Foreign);
}

/// Readers publish that they are inside; nobody who was inside at the token may still be at its end.
#[test]
fn tokens_wait_for_readers_on_other_threads() {
    let domain = Domain::new();
    let turns = Gate::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            let participant = domain.register();
            for _ in 0..200 {
                let guard = participant.pin();
                turns.wait();
                thread::yield_now();
                drop(guard);
                turns.wait();
                turns.wait();
            }
        });
        let mut last = None;
        for _ in 0..200 {
            turns.wait();
            let token = domain.start_grace();
            turns.wait();
            eventually("the token is over", || domain.poll_grace(token).is_over());
            assert!(last < Some(token), "tokens of one domain are ordered");
            last = Some(token);
            turns.wait();
        }
    });
}

#[test]
fn a_barrier_waits_for_every_batch_of_every_participant() {
    let domain = Domain::new();
    let drops = Drops::default();
    let (retired, done) = (Gate::new(5), Gate::new(5));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let participant = domain.register();
                for _ in 0..1_000 {
                    let _guard = participant.pin();
                    let object = Embedded::leak(&drops);
                    // SAFETY: leaked just now, found by nobody.
                    unsafe { participant.retire(Embedded::node(object), 8, Embedded::reclaim) };
                }
                participant.park();
                retired.wait();
                done.wait();
            });
        }
        retired.wait();
        domain.barrier(DEADLINE).expect("nobody holds a guard");
        assert_eq!(drops.count(), 4_000);
        assert_eq!(domain.snapshot().in_flight_batches, 0);
        done.wait();
    });
}

/// A participant that goes on working is asked for its open batch and hands it over.
#[test]
fn a_barrier_asks_for_open_batches() {
    let domain = Domain::builder().batch_age(Duration::from_secs(3600)).build().expect("in range");
    let drops = Drops::default();
    let (retired, stop) = (Gate::new(2), Drops::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            let participant = domain.register();
            participant.defer_drop(Box::new(drops.probe()));
            retired.wait();
            while stop.count() == 0 {
                drop(participant.pin());
                thread::yield_now();
            }
        });
        retired.wait();
        let result = domain.barrier(DEADLINE);
        drop(stop.probe());
        result.expect("the participant answers");
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn a_barrier_that_cannot_end_says_what_it_waits_for() {
    let domain = Domain::new();
    let drops = Drops::default();
    let (sleeper, reader) = (domain.register(), domain.register());
    let guard = reader.pin();
    sleeper.defer_drop(Box::new(drops.probe()));
    let error = domain.barrier(Duration::from_millis(5)).expect_err("the batch is open");
    assert!(matches!(error, BarrierError::TimedOut { open_blocks: 1, open_on: Some(_), .. }));
    assert!(error.to_string().contains("1 objects in open batches"), "{error}");

    sleeper.park();
    let error = domain.barrier(Duration::from_millis(5)).expect_err("a guard is held");
    let BarrierError::TimedOut { open_blocks, in_flight_batches, oldest_guard, .. } = error else {
        panic!("another error: {error}");
    };
    assert_eq!((open_blocks, in_flight_batches), (0, 1));
    assert!(oldest_guard.expect("held").place.file().ends_with("grace.rs"));

    assert!(matches!(reader.barrier(DEADLINE), Err(BarrierError::GuardHeld)));
    drop(guard);
    sleeper.barrier(DEADLINE).expect("the guard is gone");
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_barrier_from_a_reclaim_function_is_refused() {
    use std::sync::mpsc;
    thread_local! {
        static PARTICIPANT: std::cell::OnceCell<flagstone_epoch::Participant> =
            const { std::cell::OnceCell::new() };
    }
    struct Waits(mpsc::Sender<bool>);
    impl Drop for Waits {
        fn drop(&mut self) {
            PARTICIPANT.with(|participant| {
                let refused = participant.get().expect("set").barrier(DEADLINE);
                let _ = self.0.send(matches!(refused, Err(BarrierError::InReclaim)));
            });
        }
    }
    let domain = Domain::new();
    let (sender, receiver) = mpsc::channel();
    PARTICIPANT.with(|participant| {
        let participant = participant.get_or_init(|| domain.register());
        participant.defer_drop(Box::new(Waits(sender)));
        participant.collect();
    });
    assert_eq!(receiver.try_recv(), Ok(true));
}

/// Two barriers at once, and writers all the while: each ends, and each has waited.
#[test]
fn barriers_run_beside_each_other_and_beside_writers() {
    let domain = Domain::builder().batch_blocks(4).build().expect("in range");
    let stop = Drops::default();
    thread::scope(|scope| {
        let barriers = [(); 2].map(|()| {
            scope.spawn(|| {
                let participant = domain.register();
                for _ in 0..50 {
                    let drops = Drops::default();
                    for _ in 0..10 {
                        participant.defer_drop(Box::new(drops.probe()));
                    }
                    participant.barrier(DEADLINE).expect("nobody stalls");
                    assert_eq!(drops.count(), 10);
                }
            })
        });
        scope.spawn(|| {
            let participant = domain.register();
            while stop.count() == 0 {
                let _guard = participant.pin();
                participant.defer_drop(Box::new(1));
            }
        });
        let results = barriers.map(|thread| thread.join());
        drop(stop.probe());
        for result in results {
            result.expect("no panic");
        }
    });
}
