//! Several threads on one typed slab: nothing is lost, nothing is read after its drop, memory is bounded.
#![allow(clippy::disallowed_types, reason = "loom does not run these tests")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Barrier};
use std::thread;

use flagstone_epoch::Domain;
use flagstone_slab::typed::{Key, Pool, Slab};

const LIVE: u64 = 0xA1A1_A1A1_A1A1_A1A1;

/// Notices when it is read after its drop, and counts its drops.
struct Probe {
    live: AtomicU64,
    value: u64,
    drops: Arc<AtomicU64>,
}

impl Probe {
    fn new(value: u64, drops: &Arc<AtomicU64>) -> Self {
        Self { live: AtomicU64::new(LIVE), value, drops: Arc::clone(drops) }
    }

    fn read(&self) -> u64 {
        assert_eq!(self.live.load(Ordering::Relaxed), LIVE, "read after its drop");
        self.value
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        assert_eq!(self.live.swap(0, Ordering::Relaxed), LIVE, "dropped twice");
        self.drops.fetch_add(1, Ordering::SeqCst);
    }
}

fn many(count: u64) -> u64 {
    if cfg!(miri) { count.min(60) } else { count }
}

#[test]
fn one_thread_inserts_and_another_removes() {
    let drops = Arc::new(AtomicU64::new(0));
    let domain = Domain::new();
    let slab = Slab::new(&domain);
    let items = many(50_000);
    let (send, receive) = sync_channel::<Key>(256);
    thread::scope(|scope| {
        let (domain, slab, drops) = (&domain, &slab, &drops);
        scope.spawn(move || {
            let participant = domain.register();
            for value in 0..items {
                let key = slab.insert(Probe::new(value, drops), &participant.pin());
                send.send(key).expect("the other side is there");
            }
        });
        scope.spawn(move || {
            let participant = domain.register();
            for (value, key) in receive.iter().enumerate() {
                let guard = participant.pin();
                assert_eq!(slab.get(key, &guard).map(Probe::read), Some(value as u64));
                assert!(slab.remove(key, &guard));
            }
        });
    });
    domain.register().collect();
    assert_eq!(drops.load(Ordering::SeqCst), items);
    let stats = slab.stats();
    assert_eq!((stats.len, stats.pending), (0, 0));
    // What one thread removes finds its way back to the one that inserts.
    assert!(stats.slots < items as usize || cfg!(miri), "{stats:?}");
}

#[test]
fn one_of_many_gets_to_remove_each_value() {
    let drops = Arc::new(AtomicU64::new(0));
    let domain = Domain::new();
    let slab = Slab::new(&domain);
    let keys: Vec<Key> = {
        let participant = domain.register();
        let guard = participant.pin();
        (0..many(2000)).map(|value| slab.insert(Probe::new(value, &drops), &guard)).collect()
    };
    let start = Barrier::new(4);
    let removed: usize = thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let participant = domain.register();
                    start.wait();
                    keys.iter().filter(|key| slab.remove(**key, &participant.pin())).count()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("no panic")).sum()
    });
    assert_eq!(removed, keys.len());
    domain.register().collect();
    assert_eq!(drops.load(Ordering::SeqCst), keys.len() as u64);
}

// requirement: D4
#[test]
fn many_more_threads_than_buckets_come_and_go() {
    let drops = Arc::new(AtomicU64::new(0));
    let domain = Domain::new();
    let slab = Slab::builder().buckets(2).build(&domain);
    let (waves, threads, values) = (many(5), if cfg!(miri) { 4 } else { 80 }, many(100));
    let mut kept = Vec::new();
    for wave in 0..waves {
        let keys: Vec<Vec<Key>> = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        let participant = domain.register();
                        let guard = participant.pin();
                        (0..values)
                            .map(|value| slab.insert(Probe::new(value, &drops), &guard))
                            .collect::<Vec<Key>>()
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
        });
        // Others than the inserters remove, all but one of each thread's.
        let participant = domain.register();
        for mut keys in keys {
            kept.push((keys.pop().expect("not empty"), values - 1));
            keys.iter().for_each(|key| assert!(slab.remove(*key, &participant.pin())));
        }
        drop(participant);
        let _ = slab.maintain();
        let stats = slab.stats();
        assert_eq!(stats.len, kept.len(), "wave {wave}");
        assert!(stats.shards <= threads + 2, "shards are used again: {stats:?}");
    }
    let participant = domain.register();
    let guard = participant.pin();
    for (key, value) in &kept {
        assert_eq!(slab.get(*key, &guard).map(Probe::read), Some(*value));
    }
    let unique: std::collections::HashSet<_> = kept.iter().map(|(key, _)| key).collect();
    assert_eq!(unique.len(), kept.len());
}

#[test]
fn threads_that_grow_one_bucket_at_once_all_get_a_slot() {
    // A page of one slot each, so that threads take the pages that others add.
    let domain = Domain::new();
    let slab: Slab<[u8; 20_000]> = Slab::builder().buckets(1).build(&domain);
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let participant = domain.register();
                start.wait();
                for _ in 0..many(200) {
                    slab.insert([0; 20_000], &participant.pin());
                }
            });
        }
    });
    assert_eq!(slab.len() as u64, 4 * many(200));
}

#[test]
fn what_ended_threads_had_at_hand_comes_back() {
    let domain = Domain::new();
    let slab: Slab<u64> = Slab::builder().buckets(1).build(&domain);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let participant = domain.register();
                let key = slab.insert(1, &participant.pin());
                assert!(slab.remove(key, &participant.pin()));
            });
        }
    });
    let _ = slab.maintain();
    let stats = slab.stats();
    assert_eq!(stats.slots, stats.free, "nothing is held by threads that are gone: {stats:?}");
}

#[test]
fn a_pool_keeps_buffers_and_drops_them_with_their_pages() {
    let domain = Domain::new();
    let participant = domain.register();
    let pool: Pool<Vec<u8>> = Pool::new(&domain);
    let key = pool.create_with(&participant.pin(), |line| line.extend_from_slice(&[1; 5000]));
    assert!(pool.clear(key, &participant.pin()));
    participant.collect();
    pool.park(&participant);
    // The slot comes back with its buffer; which create gets it is the pool's matter.
    let guard = participant.pin();
    let fresh: Vec<_> = (0..many(2000)).map(|_| pool.create(&guard)).collect();
    assert!(fresh.iter().all(|line| line.is_empty()));
    assert!(fresh.iter().any(|line| line.capacity() >= 5000), "the buffer was kept");
    drop(fresh);
    drop(guard);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        pool.create_with(&participant.pin(), |line| {
            line.push(1);
            panic!("while it is filled");
        })
    }));
    assert!(panic.is_err());
    assert_eq!(pool.len(), 0);
    assert!(pool.create(&participant.pin()).is_empty(), "went back cleared");
    pool.park(&participant);
    assert!(pool.maintain().pages > 0);
}
