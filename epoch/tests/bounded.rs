//! Retired memory is bounded: watermark, hard limit, and what batches set aside.

mod common;

use common::{Drops, Embedded, eventually};
use flagstone_epoch::Domain;

/// With a guard stalled for good, `try_retire` fills up to the limit, gives everything else back, and
/// goes on when the guard is gone.
// requirement: D6
#[test]
fn a_stalled_guard_bounds_what_is_pending() {
    const LIMIT: u64 = 64 << 10;
    let domain =
        Domain::builder().hard_limit(LIMIT).watermark(LIMIT / 2).build().expect("in range");
    let drops = Drops::default();
    let stalled = domain.register();
    let guard = stalled.pin();

    let participants: Vec<_> = (0..4).map(|_| domain.register()).collect();
    let (mut taken, mut refused) = (0, 0);
    for round in 0..2_000 {
        let participant = &participants[round % participants.len()];
        let object = Embedded::leak(&drops);
        // SAFETY: leaked just now, found by nobody.
        match unsafe { participant.try_retire(Embedded::node(object), 1000, Embedded::reclaim) } {
            Ok(()) => taken += 1,
            Err(error) => {
                assert_eq!((error.bytes, error.limit), (1000, LIMIT));
                assert!(error.reserved + error.bytes > error.limit, "refused without need");
                assert_eq!(error.into_inner(), Embedded::node(object));
                // SAFETY: it was given back.
                unsafe { Embedded::reclaim(Embedded::node(object)) };
                refused += 1;
            }
        }
        let snapshot = domain.snapshot();
        assert!(snapshot.reserved_bytes <= LIMIT);
        assert!(snapshot.pending.bytes <= snapshot.reserved_bytes);
    }
    assert_eq!(taken + refused, 2_000);
    assert_eq!(drops.count(), refused);
    // What open batches set aside and did not use is an eighth of the limit each, at most.
    assert!(taken as u64 * 1000 > LIMIT / 3, "only {taken} taken");
    let snapshot = domain.snapshot();
    assert_eq!(snapshot.refusals, refused as u64);
    assert!(snapshot.helps > 0, "above the watermark, retiring threads help");

    drop(guard);
    for participant in &participants {
        participant.flush();
    }
    domain.collect();
    assert_eq!(drops.count(), 2_000);
    assert_eq!(domain.reserved_bytes(), 0);
    let object = Embedded::leak(&drops);
    // SAFETY: leaked just now, found by nobody.
    unsafe { participants[0].try_retire(Embedded::node(object), 1000, Embedded::reclaim) }
        .expect("there is room again");
}

#[test]
fn refused_boxes_come_back_whole() {
    let domain = Domain::builder().hard_limit(100).build().expect("in range");
    let participant = domain.register();
    let error = participant.try_defer_drop(Box::new([7u8; 101])).expect_err("over the limit");
    assert!(error.to_string().contains("cannot retire 101 bytes"), "{error}");
    assert_eq!(*error.into_inner(), [7u8; 101]);

    let drops = Drops::default();
    let reader = domain.register();
    let guard = reader.pin();
    participant.try_defer_drop(Box::new([0u8; 90])).expect("there is room");
    let linked = drops.linked();
    // SAFETY: leaked just now, found by nobody.
    let error = unsafe { participant.try_retire_linked(linked) }.expect_err("over the limit");
    assert_eq!(error.reserved, 90);
    let boxed = drops.boxed();
    // SAFETY: leaked just now, found by nobody.
    let other = unsafe { participant.try_retire_box(boxed) }.expect_err("over the limit");
    assert_eq!((error.into_inner(), other.into_inner()), (linked, boxed));

    drop(guard);
    // The refused attempt collects before it refuses, so now there is room.
    // SAFETY: both were given back.
    unsafe {
        participant.try_retire_linked(linked).expect("there is room");
        participant.collect();
        participant.try_retire_box(boxed).expect("there is room");
    }
    participant.collect();
    assert_eq!(drops.count(), 2);
}

#[test]
fn retire_takes_what_the_limit_would_refuse() {
    let domain = Domain::builder().hard_limit(1000).build().expect("in range");
    let drops = Drops::default();
    let (reader, writer) = (domain.register(), domain.register());
    let guard = reader.pin();
    for _ in 0..50 {
        let object = Embedded::leak(&drops);
        // SAFETY: leaked just now, found by nobody.
        unsafe { writer.retire(Embedded::node(object), 100, Embedded::reclaim) };
    }
    assert_eq!(domain.snapshot().pending.bytes, 5_000);
    assert!(domain.reserved_bytes() >= 5_000);
    drop(guard);
    writer.collect();
    assert_eq!(drops.count(), 50);
    assert_eq!(domain.reserved_bytes(), 0);
}

/// A writer that never collects by itself does not grow a backlog: handing over drives the collector.
#[test]
fn retiring_alone_keeps_the_backlog_small() {
    for per_guard in [1, 8, 64, 1_000] {
        let domain = Domain::builder().batch_blocks(16).build().expect("in range");
        let participant = domain.register();
        let mut most = 0;
        for _ in 0..40_000 / per_guard {
            let _guard = participant.pin();
            for _ in 0..per_guard {
                participant.defer_drop(Box::new(0u64));
            }
            most = most.max(domain.snapshot().pending.blocks);
        }
        let bound = 8 * 16 + 4 * per_guard as u64;
        assert!(most <= bound, "{most} pending at {per_guard} per guard, bound {bound}");
    }
}

/// The watermark alone bounds a single writer under short guards of others.
#[test]
fn helping_brings_pending_bytes_below_the_watermark() {
    let domain = Domain::builder().watermark(1 << 20).build().expect("in range");
    let drops = Drops::default();
    let participant = domain.register();
    let reader = domain.register();
    let guard = reader.pin();
    for _ in 0..64 {
        let object = Embedded::leak(&drops);
        // SAFETY: leaked just now, found by nobody.
        unsafe { participant.retire(Embedded::node(object), 64 << 10, Embedded::reclaim) };
    }
    assert_eq!(domain.snapshot().pending.bytes, 4 << 20);
    let helps = domain.snapshot().helps;
    assert!(helps > 0);
    drop(guard);
    eventually("one more retire finds the backlog and clears it", || {
        let object = Embedded::leak(&drops);
        // SAFETY: leaked just now, found by nobody.
        unsafe { participant.retire(Embedded::node(object), 64 << 10, Embedded::reclaim) };
        domain.reserved_bytes() <= 1 << 20
    });
    assert!(domain.snapshot().reclaimed.bytes >= 3 << 20);
}
