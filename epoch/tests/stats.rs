//! What the snapshot says, and the identities between its figures.

mod common;

use std::thread;
use std::time::Duration;

use common::{Drops, Embedded, eventually};
use flagstone_epoch::{Domain, GRACE_BUCKETS, GraceSnapshot, Snapshot, Tally};

fn assert_identities(snapshot: &Snapshot) {
    assert_eq!(snapshot.retired, snapshot.reclaimed + snapshot.pending);
    assert!(snapshot.open.blocks <= snapshot.pending.blocks);
    assert!(snapshot.open.bytes <= snapshot.pending.bytes);
    assert!(snapshot.reserved_bytes >= snapshot.pending.bytes);
    assert!(snapshot.grace.started - snapshot.grace.completed <= 1);
    assert_eq!(snapshot.grace.histogram.iter().sum::<u64>(), snapshot.grace.completed);
}

// requirement: D9
#[test]
fn every_figure_follows_what_was_done() {
    let domain = Domain::builder().name("figures").batch_blocks(10).build().expect("in range");
    let drops = Drops::default();
    let (participant, other) = (domain.register(), domain.register());
    let fresh = domain.snapshot();
    assert_eq!((fresh.participants, fresh.pins, fresh.pinned), (2, 0, 0));
    assert_eq!(fresh.retired, Tally::default());
    assert!(fresh.oldest_guard.is_none() && fresh.hard_limit_bytes.is_none());

    let guard = other.pin();
    for _ in 0..25 {
        let object = Embedded::leak(&drops);
        // SAFETY: leaked just now, found by nobody.
        unsafe { participant.retire(Embedded::node(object), 100, Embedded::reclaim) };
    }
    let snapshot = domain.snapshot();
    assert_identities(&snapshot);
    assert_eq!(snapshot.domain, "figures");
    assert_eq!(snapshot.retired, Tally { blocks: 25, bytes: 2_500 });
    assert_eq!(snapshot.reclaimed, Tally::default());
    assert_eq!(snapshot.open, Tally { blocks: 5, bytes: 500 });
    assert_eq!((snapshot.batches, snapshot.in_flight_batches), (2, 2));
    assert_eq!((snapshot.pins, snapshot.pinned), (1, 1));
    assert!(snapshot.oldest_guard.is_some());
    assert!(snapshot.grace.completed <= snapshot.oldest_epoch + 1, "{snapshot:?}");
    assert!(Domain::all().contains(&domain));

    drop(guard);
    assert_eq!(participant.collect(), Tally { blocks: 25, bytes: 2_500 });
    let snapshot = domain.snapshot();
    assert_identities(&snapshot);
    assert_eq!(snapshot.reclaimed.blocks, drops.count() as u64);
    assert_eq!(snapshot.reclaimed, snapshot.retired);
    assert_eq!((snapshot.batches, snapshot.in_flight_batches), (3, 0));
    assert_eq!(snapshot.reserved_bytes, 0);
    assert_eq!(snapshot.pinned, 0);
    assert_eq!(snapshot.oldest_epoch, snapshot.grace.completed);
    assert!(snapshot.grace.completed > 0);
    assert!(snapshot.grace.max > Duration::ZERO && snapshot.grace.sum >= snapshot.grace.max);
}

#[test]
fn counters_outlive_their_participants_and_records_are_reused() {
    let domain = Domain::new();
    for round in 1..=100 {
        thread::scope(|scope| {
            scope.spawn(|| {
                let participant = domain.register();
                let _guard = participant.pin();
                participant.defer_drop(Box::new([0u8; 10]));
            });
        });
        let snapshot = domain.snapshot();
        assert_eq!(snapshot.retired, Tally { blocks: round, bytes: 10 * round });
        assert_eq!(snapshot.pins, round);
        assert_eq!(snapshot.participants, 0);
    }
}

/// A reader that looks all the time, while threads retire, come and go, never sees an identity broken
/// or a counter run backwards.
#[test]
fn identities_hold_while_writers_write() {
    let domain = Domain::builder().batch_blocks(7).build().expect("in range");
    let stop = Drops::default();
    thread::scope(|scope| {
        let writers = [(); 2].map(|()| {
            scope.spawn(|| {
                for _ in 0..20 {
                    let participant = domain.register();
                    for _ in 0..500 {
                        let _guard = participant.pin();
                        participant.defer_drop(Box::new([1u8; 24]));
                    }
                }
            })
        });
        let reader = scope.spawn(|| {
            let mut last = domain.snapshot();
            let mut looks = 0u64;
            while stop.count() == 0 || looks < 100 {
                let now = domain.snapshot();
                assert!(now.retired.blocks >= now.reclaimed.blocks);
                assert_eq!(now.retired.blocks, now.reclaimed.blocks + now.pending.blocks);
                for (before, after) in [
                    (last.retired.blocks, now.retired.blocks),
                    (last.retired.bytes, now.retired.bytes),
                    (last.reclaimed.blocks, now.reclaimed.blocks),
                    (last.reclaimed.bytes, now.reclaimed.bytes),
                    (last.pins, now.pins),
                    (last.grace.completed, now.grace.completed),
                ] {
                    assert!(before <= after, "a counter ran backwards: {before} to {after}");
                }
                last = now;
                looks += 1;
            }
        });
        let results = writers.map(|thread| thread.join());
        drop(stop.probe());
        for result in results {
            result.expect("no panic");
        }
        reader.join().expect("no panic");
    });
    eventually("everything is reclaimed", || {
        domain.collect();
        domain.snapshot().pending.blocks == 0
    });
    let end = domain.snapshot();
    assert_identities(&end);
    assert_eq!(end.retired, Tally { blocks: 20_000, bytes: 480_000 });
    assert_eq!(end.pins, 20_000);
    assert_eq!(end.reserved_bytes, 0);
}

#[test]
fn an_old_batch_is_handed_over_by_its_participant_and_on_request() {
    let domain = Domain::builder().batch_age(Duration::from_nanos(1)).build().expect("in range");
    let drops = Drops::default();
    let participant = domain.register();
    participant.defer_drop(Box::new(drops.probe()));
    eventually("the participant looks at the age by itself", || {
        drop(participant.pin());
        domain.snapshot().open.blocks == 0
    });

    participant.defer_drop(Box::new(drops.probe()));
    eventually("the request is made", || domain.maintain().asked == 1);
    assert_eq!(domain.snapshot().open.blocks, 1);
    drop(participant.pin());
    assert_eq!(domain.snapshot().open.blocks, 0, "handed over at the next leave");
    domain.collect();
    assert_eq!(drops.count(), 2);
}

#[test]
fn the_histogram_bounds_are_powers_of_two() {
    assert_eq!(GraceSnapshot::bound(0), Some(Duration::from_nanos(1024)));
    assert_eq!(GraceSnapshot::bound(1), Some(Duration::from_nanos(2048)));
    assert_eq!(GraceSnapshot::bound(GRACE_BUCKETS - 2), Some(Duration::from_nanos(1 << 36)));
    assert_eq!(GraceSnapshot::bound(GRACE_BUCKETS - 1), None);
}
