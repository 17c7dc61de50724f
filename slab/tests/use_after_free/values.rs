//! Values of typed slabs and pools: gone when their grace period is over, and not before.

use std::ptr::NonNull;

use flagstone_epoch::{Domain, Participant};
use flagstone_slab::typed::{Key, Pool, Slab};

use crate::{reported, touch};

/// Until everything that was removed is reclaimed.
fn settle(domain: &Domain, participant: &Participant) {
    let gone = (0..1_000).any(|_| {
        participant.collect();
        domain.snapshot().pending.blocks == 0
    });
    assert!(gone, "{:?}", domain.snapshot());
}

/// The address of a value.
fn at<T>(value: &T) -> NonNull<u8> {
    NonNull::from(value).cast()
}

#[test]
fn values_that_are_there_may_be_touched() {
    assert!(!reported("values::values_that_are_there_may_be_touched", || {
        let domain = Domain::new();
        let participant = domain.register();
        // Small ones, of which two could share what the sanitizer knows as one; and pages that go.
        let (bytes, texts) = (Slab::<u8>::new(&domain), Slab::<String>::new(&domain));
        for round in 0..3u8 {
            let keys: Vec<(Key, Key)> = {
                let guard = participant.pin();
                let insert = |n: u32| {
                    let text = texts.vacant_entry(&guard);
                    let key = text.key();
                    text.insert(n.to_string());
                    (bytes.insert(n as u8, &guard), key)
                };
                (0..10_000).map(insert).collect()
            };
            let guard = participant.pin();
            for (n, (byte, text)) in (0..10_000u32).zip(keys) {
                assert_eq!(bytes.get(byte, &guard), Some(&(n as u8)));
                let found = texts.get(text, &guard).expect("there");
                let removed = round % 2 == 0 || n % 7 != 0;
                assert!(!removed || bytes.remove(byte, &guard) && texts.remove(text, &guard));
                // Under the guard it is there still.
                assert_eq!(*found, n.to_string());
            }
            drop(guard);
            settle(&domain, &participant);
            bytes.maintain();
            texts.maintain();
        }
        assert!(texts.stats().returned_pages > 0, "{:?}", texts.stats());
        let guard = participant.pin();
        assert_eq!(texts.iter(&guard).count(), texts.len());
    }));
}

#[test]
fn a_removed_value_under_a_guard_from_before() {
    assert!(!reported("values::a_removed_value_under_a_guard_from_before", || {
        let domain = Domain::new();
        let (slab, reader) = (Slab::<[u64; 4]>::new(&domain), domain.register());
        let guard = reader.pin();
        let key = slab.insert([1; 4], &guard);
        let value = slab.get(key, &guard).expect("there");
        let remover = domain.register();
        assert!(slab.remove(key, &remover.pin()));
        for _ in 0..10 {
            remover.collect();
        }
        assert_eq!(value, &[1; 4]);
    }));
}

#[test]
fn a_removed_value_after_its_grace_period() {
    assert!(reported("values::a_removed_value_after_its_grace_period", || {
        let domain = Domain::new();
        let (slab, participant) = (Slab::<[u64; 4]>::new(&domain), domain.register());
        let guard = participant.pin();
        let key = slab.insert([1; 4], &guard);
        let value = at(slab.get(key, &guard).expect("there"));
        slab.remove(key, &guard);
        drop(guard);
        settle(&domain, &participant);
        touch(value, 31);
    }));
}

#[test]
fn a_byte_beside_bytes_that_are_there() {
    assert!(reported("values::a_byte_beside_bytes_that_are_there", || {
        let domain = Domain::new();
        let (slab, participant) = (Slab::<u8>::new(&domain), domain.register());
        let guard = participant.pin();
        let keys: Vec<_> = (0..100).map(|n| slab.insert(n, &guard)).collect();
        let value = |n: usize| at(slab.get(keys[n], &guard).expect("there"));
        let (before, gone, behind) = (value(49), value(50), value(51));
        slab.remove(keys[50], &guard);
        drop(guard);
        settle(&domain, &participant);
        [before, behind].into_iter().for_each(|value| touch(value, 0));
        touch(gone, 0);
    }));
}

#[test]
fn a_slot_that_was_never_used() {
    assert!(reported("values::a_slot_that_was_never_used", || {
        let domain = Domain::new();
        let (slab, participant) = (Slab::<u64>::new(&domain), domain.register());
        let guard = participant.pin();
        let key = slab.insert(1, &guard);
        // The next slot of the page.
        touch(at(slab.get(key, &guard).expect("there")), Slab::<u64>::SLOT_BYTES);
    }));
}

#[test]
fn a_slot_that_went_back_without_a_value() {
    assert!(reported("values::a_slot_that_went_back_without_a_value", || {
        let domain = Domain::new();
        let (pool, participant) = (Pool::<Vec<u8>>::new(&domain), domain.register());
        let guard = participant.pin();
        let fresh = pool.create(&guard);
        let object = at(&*fresh);
        drop(fresh);
        touch(object, 0);
    }));
}

#[test]
fn an_object_that_was_cleared() {
    assert!(reported("values::an_object_that_was_cleared", || {
        let domain = Domain::new();
        let (pool, participant) = (Pool::<Vec<u8>>::new(&domain), domain.register());
        let guard = participant.pin();
        let key = pool.create_with(&guard, |object| object.push(1));
        let object = at(pool.get(key, &guard).expect("there"));
        pool.clear(key, &guard);
        drop(guard);
        settle(&domain, &participant);
        touch(object, 0);
    }));
}

#[test]
fn an_object_that_is_used_again_keeps_its_buffer() {
    assert!(!reported("values::an_object_that_is_used_again_keeps_its_buffer", || {
        let domain = Domain::new();
        let (pool, participant) = (Pool::<Vec<u8>>::new(&domain), domain.register());
        let mut kept = 0;
        for _ in 0..3 {
            let guard = participant.pin();
            let keys = [(); 2_000].map(|()| {
                let mut object = pool.create(&guard);
                kept += usize::from(object.capacity() > 0);
                object.push(1);
                object.publish()
            });
            assert!(keys.iter().all(|&key| pool.get(key, &guard).is_some_and(|o| o == &[1])));
            keys.iter().for_each(|&key| assert!(pool.clear(key, &guard)));
            drop(guard);
            settle(&domain, &participant);
        }
        assert!(kept > 0, "every object is a new one");
    }));
}
