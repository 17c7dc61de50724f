//! Slabs that are attached to their domain: threads that sleep keep no slots, a scavenger returns pages;
//! what a value holds besides its slot counts as pending.

use std::sync::Arc;
use std::thread;

use flagstone_epoch::Domain;
use flagstone_slab::typed::{Pool, Slab};

#[test]
fn a_thread_that_sleeps_keeps_no_slots() {
    let domain = Domain::new();
    let slab: Arc<Slab<u64>> = Slab::builder().build_shared(&domain);
    thread::scope(|scope| {
        scope.spawn(|| {
            let participant = domain.local().expect("a living thread");
            let key = slab.insert(1, &participant.pin());
            assert!(slab.remove(key, &participant.pin()));
            participant.collect();
            let before = slab.stats();
            assert!(before.free + (before.pending as usize) < before.slots, "{before:?}");
            flagstone_slab::thread::park();
            let after = slab.stats();
            assert_eq!(after.slots, after.free + after.pending as usize, "{after:?}");
        });
    });
}

#[test]
fn whoever_maintains_the_domain_returns_pages() {
    let domain = Domain::new();
    let slab: Arc<Slab<[u64; 8]>> = Slab::builder().buckets(1).build_shared(&domain);
    let pool: Arc<Pool<Vec<u8>>> = Arc::new(Slab::builder().buckets(1).build_pool(&domain));
    pool.attach();
    thread::scope(|scope| {
        scope.spawn(|| {
            let participant = domain.local().expect("a living thread");
            let guard = participant.pin();
            let keys: Vec<_> = (0..3000).map(|_| slab.insert([1; 8], &guard)).collect();
            let kept: Vec<_> = (0..3000).map(|_| pool.create_with(&guard, |v| v.push(1))).collect();
            assert!(keys.into_iter().all(|key| slab.remove(key, &guard)));
            assert!(kept.into_iter().all(|key| pool.clear(key, &guard)));
        });
    });
    let peak = slab.stats().pages + pool.stats().pages;
    assert!(peak > 10, "{peak} pages");
    // The first pass may only make the slots free.
    for _ in 0..3 {
        domain.maintain();
    }
    // All but the pages whose slots are still being handed out for the first time.
    let stats = slab.stats();
    assert!(stats.pages <= 1 && pool.stats().pages <= 1, "{stats:?}, {:?}", pool.stats());
    let weak = Arc::downgrade(&slab);
    drop(slab);
    assert_eq!(weak.strong_count(), 0, "the domain does not keep it");
}

#[test]
fn what_a_value_holds_counts_as_pending() {
    let domain = Domain::new();
    let slab = Slab::new(&domain);
    let participant = domain.register();
    let guard = participant.pin();
    let keys: Vec<_> = (0..10).map(|_| slab.insert(vec![0u8; 1000], &guard)).collect();
    for key in keys {
        assert!(slab.remove_sized(key, 1000, &guard));
        assert!(!slab.remove_sized(key, 1000, &guard), "once");
    }
    let slots = 10 * Slab::<Vec<u8>>::SLOT_BYTES as u64;
    assert_eq!(domain.snapshot().pending.bytes, 10_000 + slots);
    // More than a batch holds is a batch of its own, and reclaimed like any other.
    let large = slab.insert(vec![0u8; 1 << 20], &guard);
    assert!(slab.remove_sized(large, 1 << 20, &guard));
    drop(guard);
    participant.collect();
    assert_eq!(domain.snapshot().pending.bytes, 0);
}
