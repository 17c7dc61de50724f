//! Stalled guards: who holds them, where they were taken, reported once.

mod common;

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::{Drops, Gate, eventually};
use flagstone_epoch::{Domain, GuardReport};

type Reports = Arc<Mutex<Vec<GuardReport>>>;

fn watched(stall_after: Duration) -> (Domain, Reports) {
    let reports = Reports::default();
    let seen = Arc::clone(&reports);
    let domain = Domain::builder()
        .name("watched")
        .stall_after(stall_after)
        .on_stall(move |report| seen.lock().expect("no panic").push(report.clone()))
        .build()
        .expect("in range");
    (domain, reports)
}

#[test]
fn a_stalled_guard_is_reported_once_with_thread_and_place() {
    let (domain, reports) = watched(Duration::from_millis(1));
    let (taken, checked) = (Gate::new(2), Gate::new(2));
    thread::scope(|scope| {
        thread::Builder::new()
            .name("sleepy-reader".into())
            .spawn_scoped(scope, || {
                let participant = domain.register();
                let _guard = participant.pin();
                taken.wait();
                checked.wait();
            })
            .expect("a thread");
        taken.wait();
        eventually("the stall is noticed", || domain.check_stalls() == 1);
        thread::sleep(Duration::from_millis(2));
        assert_eq!(domain.check_stalls(), 0, "reported once");
        assert_eq!(domain.maintain().stalls, 0, "reported once");

        let oldest = domain.oldest_guard().expect("held");
        assert_eq!(&*oldest.thread, "sleepy-reader");
        assert!(oldest.place.file().ends_with("stalls.rs"));
        assert!(oldest.age >= Duration::from_millis(1));
        let text = oldest.to_string();
        assert!(text.contains("watched") && text.contains("sleepy-reader"), "{text}");
        checked.wait();
    });
    let reports = reports.lock().expect("no panic");
    assert_eq!(reports.len(), 1);
    assert_eq!(&*reports[0].thread, "sleepy-reader");
    assert_eq!(domain.snapshot().stalls, 1);
    assert!(domain.oldest_guard().is_none());
}

#[test]
fn each_new_guard_can_stall_again() {
    let (domain, reports) = watched(Duration::ZERO);
    let participant = domain.register();
    for round in 1..=3 {
        let mut guard = participant.pin();
        assert_eq!(domain.check_stalls(), 1);
        guard.repin();
        assert_eq!(domain.check_stalls(), 1, "taken anew");
        drop(guard);
        assert_eq!(domain.check_stalls(), 0, "nothing is held");
        assert_eq!(reports.lock().expect("no panic").len(), 2 * round);
    }
}

#[test]
fn short_guards_are_not_reported() {
    let (domain, reports) = watched(Duration::from_secs(3600));
    let participant = domain.register();
    for _ in 0..1_000 {
        let _guard = participant.pin();
        assert_eq!(domain.check_stalls(), 0);
    }
    assert!(reports.lock().expect("no panic").is_empty());
}

#[test]
fn the_oldest_of_several_guards_is_found() {
    let domain = Domain::new();
    let participants: Vec<_> = (0..3).map(|_| domain.register()).collect();
    let old = participants[1].pin();
    domain.snapshot();
    thread::sleep(Duration::from_millis(2));
    let _young = participants[0].pin();
    domain.snapshot();
    assert_eq!(domain.oldest_guard().expect("held").participant, 1);
    drop(old);
    assert_eq!(domain.oldest_guard().expect("held").participant, 0);
}

/// Without a scavenger, a thread that retires past the watermark notices.
#[test]
fn retiring_past_the_watermark_notices_a_stall() {
    let drops = Drops::default();
    let count = drops.clone();
    let domain = Domain::builder()
        .stall_after(Duration::ZERO)
        .watermark(1)
        .on_stall(move |_| drop(count.probe()))
        .build()
        .expect("in range");
    let (reader, writer) = (domain.register(), domain.register());
    let guard = reader.pin();
    writer.defer_drop(Box::new(0u64));
    writer.flush();
    assert_eq!(drops.count(), 1);
    drop(guard);
}

#[test]
fn a_panicking_callback_is_caught() {
    let domain = Domain::builder()
        .stall_after(Duration::ZERO)
        .on_stall(|_| panic!("callback (expected by the test)"))
        .build()
        .expect("in range");
    let participant = domain.register();
    let _guard = participant.pin();
    assert_eq!(domain.check_stalls(), 1);
}
