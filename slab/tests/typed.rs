//! The typed slab as its users see it: what goes in comes out, once, and is dropped, once.
#![allow(clippy::disallowed_types, reason = "loom does not run these tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flagstone_epoch::{Domain, Participant};
use flagstone_slab::typed::{Key, NoSlot, Slab};

/// Counts its drops.
struct Probe(Arc<AtomicUsize>, u64);

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// As many, or few enough for Miri.
fn many(count: u64) -> u64 {
    if cfg!(miri) { count.min(100) } else { count }
}

struct World {
    domain: Domain,
    participant: Participant,
    slab: Slab<Probe>,
    drops: Arc<AtomicUsize>,
}

impl World {
    fn new() -> Self {
        let domain = Domain::new();
        let participant = domain.register();
        let slab = Slab::new(&domain);
        Self { domain, participant, slab, drops: Arc::default() }
    }

    fn probe(&self, value: u64) -> Probe {
        Probe(Arc::clone(&self.drops), value)
    }

    fn drops(&self) -> usize {
        self.drops.load(Ordering::SeqCst)
    }
}

#[test]
fn a_value_is_found_until_it_is_removed() {
    let world = World::new();
    let guard = world.participant.pin();
    let key = world.slab.insert(world.probe(7), &guard);
    assert_eq!(world.slab.get(key, &guard).map(|probe| probe.1), Some(7));
    assert!(world.slab.contains(key, &guard));
    assert_eq!(world.slab.len(), 1);
    assert!(world.slab.remove(key, &guard));
    assert!(!world.slab.remove(key, &guard), "removed once");
    assert!(world.slab.get(key, &guard).is_none());
    assert!(world.slab.is_empty());
}

#[test]
fn a_key_stays_a_miss_when_its_slot_is_used_again() {
    let world = World::new();
    let old = world.slab.insert(world.probe(1), &world.participant.pin());
    assert!(world.slab.remove(old, &world.participant.pin()));
    world.participant.collect();
    let guard = world.participant.pin();
    for value in 0..many(1000) {
        assert_ne!(world.slab.insert(world.probe(value), &guard), old);
        assert!(!world.slab.contains(old, &guard) && !world.slab.remove(old, &guard));
    }
}

// requirement: D6
#[test]
fn a_value_is_dropped_after_the_grace_period_and_its_slot_not_used_before() {
    let world = World::new();
    let key = world.slab.insert(world.probe(1), &world.participant.pin());
    let reader = world.domain.register();
    let guard = reader.pin();
    let seen = world.slab.get(key, &guard).expect("inserted");
    assert!(world.slab.remove(key, &world.participant.pin()));
    // Many more come and go than there are slots in a page.
    let others = many(5000);
    for value in 0..others {
        let key = world.slab.insert(world.probe(value), &world.participant.pin());
        assert!(world.slab.remove(key, &world.participant.pin()));
    }
    world.participant.collect();
    assert_eq!((seen.1, world.drops()), (1, 0), "a reader is inside");
    assert_eq!(world.slab.stats().pending, others + 1);
    drop(guard);
    world.participant.collect();
    assert_eq!((world.drops() as u64, world.slab.stats().pending), (others + 1, 0));
}

#[test]
fn what_is_removed_counts_in_the_domain() {
    let world = World::new();
    let guard = world.participant.pin();
    for value in 0..10 {
        let key = world.slab.insert(world.probe(value), &guard);
        assert!(world.slab.remove(key, &guard));
    }
    let snapshot = world.domain.snapshot();
    assert_eq!(snapshot.pending.blocks, 10);
    assert_eq!(snapshot.pending.bytes, 10 * Slab::<Probe>::SLOT_BYTES as u64);
    drop(guard);
    // A barrier covers removed values like anything retired.
    world.participant.barrier(std::time::Duration::from_secs(60)).expect("nobody is inside");
    assert_eq!(world.drops(), 10);
}

#[test]
fn dropping_the_slab_drops_what_is_in_it_and_what_is_pending_later() {
    let mut world = World::new();
    let guard = world.participant.pin();
    let keys: Vec<Key> =
        (0..300).map(|value| world.slab.insert(world.probe(value), &guard)).collect();
    for key in &keys[..100] {
        assert!(world.slab.remove(*key, &guard));
    }
    drop(guard);
    world.slab = Slab::new(&world.domain);
    assert_eq!(world.drops(), 200, "those in the slab at once");
    world.participant.collect();
    assert_eq!(world.drops(), 300, "those pending after their grace period");
}

#[test]
fn nothing_is_lost_when_slab_and_domain_go_first() {
    let drops = Arc::new(AtomicUsize::new(0));
    let domain = Domain::new();
    let slab = Slab::new(&domain);
    let participant = domain.register();
    for value in 0..10 {
        let key = slab.insert(Probe(Arc::clone(&drops), value), &participant.pin());
        assert!(slab.remove(key, &participant.pin()));
    }
    drop(slab);
    drop(domain);
    drop(participant);
    assert_eq!(drops.load(Ordering::SeqCst), 10, "the last participant ends the domain");
}

#[test]
fn a_vacant_entry_knows_its_key_and_gives_its_slot_back() {
    let world = World::new();
    let guard = world.participant.pin();
    let entry = world.slab.vacant_entry(&guard);
    let key = entry.key();
    assert!(world.slab.get(key, &guard).is_none(), "not before it has a value");
    let value = entry.insert(world.probe(5));
    assert_eq!(value.1, 5);
    assert!(std::ptr::eq(value, world.slab.get(key, &guard).expect("inserted")));

    let given_up = world.slab.vacant_entry(&guard);
    let key = given_up.key();
    drop(given_up);
    assert!(world.slab.get(key, &guard).is_none());
    assert_eq!(world.slab.insert(world.probe(6), &guard), key, "the slot is the next one");
    assert_eq!(world.slab.len(), 2);

    // Many at a time, given back in any order.
    let entries: Vec<_> = (0..500).map(|_| world.slab.vacant_entry(&guard)).collect();
    let before = world.slab.stats().slots;
    drop(entries);
    let keys: Vec<Key> =
        (0..500).map(|value| world.slab.insert(world.probe(value), &guard)).collect();
    assert_eq!(keys.len(), 500);
    assert_eq!(world.slab.stats().slots, before, "no slot was lost");
}

#[test]
fn iteration_meets_every_value_once() {
    let mut world = World::new();
    let guard = world.participant.pin();
    let mut keys: Vec<(Key, u64)> = (0..many(2500))
        .map(|value| (world.slab.insert(world.probe(value), &guard), value))
        .collect();
    for (key, _) in keys.extract_if(.., |(_, value)| *value % 3 == 0) {
        assert!(world.slab.remove(key, &guard));
    }
    let mut met: Vec<(Key, u64)> =
        world.slab.iter(&guard).map(|(key, probe)| (key, probe.1)).collect();
    met.sort_unstable();
    keys.sort_unstable();
    assert_eq!(met, keys);
    drop(guard);

    for (_, probe) in world.slab.iter_mut() {
        probe.1 += 10_000;
    }
    let (key, value) = keys[7];
    assert_eq!(world.slab.get_mut(key).map(|probe| probe.1), Some(value + 10_000));
}

#[test]
fn a_limit_is_kept_and_the_value_comes_back() {
    let domain = Domain::new();
    let participant = domain.register();
    let slab: Slab<String> = Slab::builder().limit(1000).build(&domain);
    let guard = participant.pin();
    let keys: Vec<Key> = (0..1000).map(|at| slab.insert(at.to_string(), &guard)).collect();
    let refused = slab.try_insert(String::from("one too many"), &guard).expect_err("full");
    assert!(matches!(refused.reason, NoSlot::Full { limit: 1000, .. }));
    assert_eq!(refused.to_string(), "all 1000 slots of the slab are taken");
    assert_eq!(refused.into_inner(), "one too many");
    assert!(slab.try_vacant_entry(&guard).is_err());
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        slab.insert(String::new(), &guard)
    }));
    assert!(panic.is_err(), "insert panics where try_insert refuses");
    assert!(slab.remove(keys[0], &guard));
    assert!(slab.try_insert(String::new(), &guard).is_err(), "its grace period is not over");
    drop(guard);
    participant.collect();
    slab.try_insert(String::new(), &participant.pin()).expect("now it is");
}

#[test]
fn a_full_slab_finds_slots_whose_grace_period_is_over() {
    let domain = Domain::new();
    let participant = domain.register();
    let slab: Slab<u64> = Slab::builder().limit(64).build(&domain);
    // Nobody collects but the insertion that finds no slot.
    for at in 0..many(10_000) {
        let key = loop {
            match slab.try_insert(at, &participant.pin()) {
                Ok(key) => break key,
                Err(_) => participant.flush(),
            }
        };
        assert!(slab.remove(key, &participant.pin()));
    }
    assert!(slab.stats().slots <= 64);
}

#[test]
fn a_drop_that_panics_loses_nothing_else() {
    struct Bad(Arc<AtomicUsize>, bool);
    impl Drop for Bad {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            assert!(!self.1, "a bad drop");
        }
    }
    let drops = Arc::new(AtomicUsize::new(0));
    let domain = Domain::new();
    let participant = domain.register();
    let slab = Slab::new(&domain);
    let guard = participant.pin();
    for at in 0..200 {
        let key = slab.insert(Bad(Arc::clone(&drops), at % 50 == 3), &guard);
        assert!(slab.remove(key, &guard));
    }
    drop(guard);
    participant.collect();
    assert_eq!(drops.load(Ordering::SeqCst), 200);
    assert!(domain.snapshot().reclaim_panics > 0, "panics are counted");
    assert_eq!(slab.stats().pending, 0);
    // And in the slab's own drop: all are dropped, and the first panic goes on.
    for at in 0..100 {
        slab.insert(Bad(Arc::clone(&drops), at % 50 == 3), &participant.pin());
    }
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(slab))).is_err());
    assert_eq!(drops.load(Ordering::SeqCst), 300);
}

#[test]
fn memory_comes_back_after_a_peak() {
    let world = World::new();
    let count = many(100_000);
    let guard = world.participant.pin();
    let mut keys: Vec<Key> =
        (0..count).map(|value| world.slab.insert(world.probe(value), &guard)).collect();
    let peak = world.slab.stats();
    let kept = keys.pop().expect("not empty");
    for key in keys {
        assert!(world.slab.remove(key, &guard));
    }
    drop(guard);
    world.participant.collect();
    world.slab.park(&world.participant);
    let returned = world.slab.maintain();
    let after = world.slab.stats();
    assert!(returned.pages > 0);
    assert_eq!(after.pages + after.returned_pages as usize, peak.pages, "{after:?}");
    assert!(after.pages <= 2, "one survivor: {after:?}");
    assert_eq!(
        world.slab.get(kept, &world.participant.pin()).map(|probe| probe.1),
        Some(count - 1)
    );
    // And it grows again.
    let guard = world.participant.pin();
    for value in 0..count {
        let key = world.slab.insert(world.probe(value), &guard);
        assert!(world.slab.contains(key, &guard));
    }
}

#[test]
fn a_slab_in_use_returns_pages_by_itself() {
    let world = World::new();
    let mut keys = Vec::new();
    for value in 0..many(200_000) {
        keys.push(world.slab.insert(world.probe(value), &world.participant.pin()));
    }
    let peak = world.slab.stats().pages;
    for key in keys {
        assert!(world.slab.remove(key, &world.participant.pin()));
    }
    world.participant.collect();
    // A few more operations, as of a server that goes on.
    for value in 0..many(500) {
        let key = world.slab.insert(world.probe(value), &world.participant.pin());
        assert!(world.slab.remove(key, &world.participant.pin()));
    }
    let stats = world.slab.stats();
    assert!(stats.pages < peak / 2, "{peak} pages at the peak, now {stats:?}");
}

#[test]
fn values_of_any_size() {
    fn try_size<T: Send + PartialEq + std::fmt::Debug + Clone + 'static>(value: T) {
        let domain = Domain::new();
        let participant = domain.register();
        let slab = Slab::new(&domain);
        let guard = participant.pin();
        let keys: Vec<Key> = (0..20).map(|_| slab.insert(value.clone(), &guard)).collect();
        for key in &keys {
            assert_eq!(slab.get(*key, &guard), Some(&value));
        }
        assert!(keys.iter().all(|key| slab.remove(*key, &guard)));
    }
    #[derive(Clone, Debug, PartialEq)]
    #[repr(align(256))]
    struct Aligned(u8);
    try_size(());
    try_size(1u8);
    try_size([7u64; 5]);
    try_size(Aligned(9));
    try_size(Box::new([3u8; 40_000]));
    try_size([3u8; 40_000]);
}

#[test]
fn a_slab_is_shared_and_sent_if_its_values_are() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Slab<String>>();
    shared::<Slab<std::sync::Mutex<std::cell::Cell<u8>>>>();
    sent::<Slab<std::cell::Cell<u8>>>();
    shared::<Key>();
}

// requirement: D9
#[test]
fn the_summary_of_shards_adds_up() {
    let world = World::new();
    let guard = world.participant.pin();
    let keys: Vec<Key> =
        (0..1000).map(|value| world.slab.insert(world.probe(value), &guard)).collect();
    for key in &keys[..400] {
        assert!(world.slab.remove(*key, &guard));
    }
    let stats = world.slab.stats();
    assert_eq!(stats.shards, 1);
    assert_eq!(stats.hits + stats.misses, 1000);
    assert!(stats.misses > 0 && stats.hits > stats.misses, "{stats:?}");
    assert_eq!((stats.deferred, stats.pending, stats.len), (400, 400, 600));
    drop(guard);
    let period = world.slab.stats().completed_period;
    world.participant.collect();
    let stats = world.slab.stats();
    assert!(stats.completed_period > period && stats.current_period >= stats.completed_period);
    assert_eq!((stats.deferred, stats.pending), (400, 0));
    assert!(stats.bytes >= stats.slots * Slab::<Probe>::SLOT_BYTES);
}
