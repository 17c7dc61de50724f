//! Riders are retired with their carrier: they wait for readers, count, and go with the batch.
#![allow(clippy::disallowed_types, reason = "loom does not run these tests")]

mod common;

use std::cell::UnsafeCell;
use std::ptr::NonNull;

use flagstone_epoch::{Carrier, Domain, Participant, RetireNode};

use crate::common::{Drops, Probe};

const BYTES: usize = 16;

/// A carrier of probes.
#[repr(C)]
struct Array {
    node: RetireNode,
    probes: UnsafeCell<Vec<Probe>>,
}

impl Array {
    fn with(probe: Probe) -> NonNull<Array> {
        let probes = UnsafeCell::new(vec![probe]);
        NonNull::from(Box::leak(Box::new(Array { node: RetireNode::new(), probes })))
    }

    /// # Safety
    /// `node` is the front of a leaked array; called once.
    unsafe fn reclaim(node: NonNull<RetireNode>) {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(node.cast::<Array>().as_ptr()) });
    }
}

fn carry(participant: &Participant, array: NonNull<Array>) -> Carrier {
    // SAFETY: the array was leaked for this, and nobody else knows it.
    unsafe { participant.retire_carrier(array.cast(), BYTES, Array::reclaim) }
}

/// Adds a probe if the carrier still takes it.
fn ride(participant: &Participant, array: NonNull<Array>, carrier: Carrier, probe: Probe) -> bool {
    let Some(seat) = participant.seat(carrier, BYTES) else { return false };
    // SAFETY: the batch is open, so the array is alive, and this thread alone knows it.
    unsafe { (*array.as_ref().probes.get()).push(probe) };
    // SAFETY: asked just above; the probe is in the array, whose drop is the reclaim.
    unsafe { participant.ride(seat) };
    true
}

#[test]
fn riders_wait_for_readers_and_are_counted_one_by_one() {
    let (domain, drops) = (Domain::new(), Drops::default());
    let (participant, reader) = (domain.register(), domain.register());
    let guard = reader.pin();
    let array = Array::with(drops.probe());
    let carrier = carry(&participant, array);
    assert!(ride(&participant, array, carrier, drops.probe()));
    assert!(ride(&participant, array, carrier, drops.probe()));
    let snapshot = domain.snapshot();
    assert_eq!((snapshot.retired.blocks, snapshot.retired.bytes), (3, 3 * BYTES as u64));
    participant.collect();
    assert_eq!(drops.count(), 0, "a reader is inside");
    drop(guard);
    participant.collect();
    assert_eq!(drops.count(), 3);
    let snapshot = domain.snapshot();
    assert_eq!((snapshot.pending.blocks, snapshot.reserved_bytes), (0, 0));
}

#[test]
fn a_carrier_whose_batch_is_handed_over_takes_nobody() {
    let (domain, drops) = (Domain::new(), Drops::default());
    let participant = domain.register();
    assert!(participant.seat(Carrier::NONE, BYTES).is_none());
    let array = Array::with(drops.probe());
    let carrier = carry(&participant, array);
    assert!(participant.seat(carrier, BYTES).is_some());
    participant.flush();
    assert!(!ride(&participant, array, carrier, drops.probe()));
    // Nor does the next batch take it for its own.
    let second = Array::with(drops.probe());
    let second_carrier = carry(&participant, second);
    assert!(participant.seat(carrier, BYTES).is_none());
    assert!(ride(&participant, second, second_carrier, drops.probe()));
}

#[test]
fn a_carrier_of_an_earlier_participant_of_the_number_takes_nobody() {
    let (domain, drops) = (Domain::new(), Drops::default());
    let first = domain.register();
    let number = first.number();
    let carrier = carry(&first, Array::with(drops.probe()));
    drop(first);
    let second = domain.register();
    assert_eq!(second.number(), number);
    assert!(second.seat(carrier, BYTES).is_none());
    carry(&second, Array::with(drops.probe()));
    assert!(second.seat(carrier, BYTES).is_none());
}

#[test]
fn riders_fill_the_batch_and_respect_its_bytes() {
    let drops = Drops::default();
    let domain = Domain::builder().batch_blocks(3).build().expect("in range");
    let participant = domain.register();
    let array = Array::with(drops.probe());
    let carrier = carry(&participant, array);
    assert!(ride(&participant, array, carrier, drops.probe()));
    assert!(ride(&participant, array, carrier, drops.probe()), "fills the batch");
    assert_eq!(domain.snapshot().batches, 1, "handed over when full");
    assert!(participant.seat(carrier, BYTES).is_none());

    let limit = 8 * BYTES as u64;
    let domain = Domain::builder().hard_limit(limit).batch_bytes(limit).build().expect("in range");
    let participant = domain.register();
    let reader = domain.register();
    let guard = reader.pin();
    let mut accepted = 0;
    while accepted < 100 {
        let array = Array::with(drops.probe());
        // SAFETY: the array was leaked for this, and nobody else knows it.
        let tried = unsafe { participant.try_retire_carrier(array.cast(), BYTES, Array::reclaim) };
        let Ok(carrier) = tried else {
            // SAFETY: refused, so it is ours still.
            drop(unsafe { Box::from_raw(array.as_ptr()) });
            break;
        };
        accepted += 1;
        while ride(&participant, array, carrier, drops.probe()) {
            accepted += 1;
        }
        assert!(domain.reserved_bytes() <= limit);
    }
    assert!((1..=8).contains(&accepted), "{accepted} of 8");
    drop(guard);
}
