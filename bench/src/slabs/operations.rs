//! The slab's own operations, beside sharded-slab's.

use std::hint::black_box;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use flagstone_epoch::{Domain, Participant};
use flagstone_slab::typed::{Key, Slab};

use super::turns::{Side, on_threads, turns};
use super::{CONTROL, Cell, FLAGSTONE, SHARDED_SLAB};
use crate::rng::Rng;

/// Keys that lookups choose from: they and their slots stay in a core's own caches.
const KEYS: usize = 4096;
/// Operations under one guard: a request's worth.
const REQUEST: usize = 64;
/// Keys that go over the channel together.
const PARCEL: usize = 256;
/// Parcels on their way at most.
const PARCELS: usize = 16;

/// A guard for each operation, or for a request of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guards {
    /// One for 64 operations.
    Request,
    /// One for each.
    Own,
}

/// Lookups of random keys.
pub fn get(threads: usize, rounds: usize, guards: Guards) -> Cell {
    const TIMES: usize = 16;
    let (one, two) = (OurSlab::filled(), OurSlab::filled());
    let theirs = sharded_slab::Slab::new();
    let their_keys: Vec<usize> =
        (0..KEYS).map(|at| theirs.insert(at as u64).expect("not full")).collect();
    let (name, look): (_, fn(&OurSlab, &Participant, &[Key])) = match guards {
        Guards::Request => ("get", look_ours),
        Guards::Own => ("get own guard", look_ours_own),
    };
    let ours = |slab: &OurSlab| {
        on_threads(threads, TIMES * KEYS, |at, timed| {
            let participant = slab.domain.register();
            let keys = shuffled(&slab.keys, at);
            timed(&mut || (0..TIMES).for_each(|_| look(slab, &participant, &keys)))
        })
    };
    let run_theirs = || {
        on_threads(threads, TIMES * KEYS, |at, timed| {
            let keys = shuffled(&their_keys, at);
            timed(&mut || (0..TIMES).for_each(|_| look_theirs(&theirs, &keys)))
        })
    };
    let sides = vec![
        Side::new(FLAGSTONE, || ours(&one)),
        Side::new(CONTROL, || ours(&two)),
        Side::new(SHARDED_SLAB, run_theirs),
    ];
    turns(name, threads, rounds, sides)
}

/// A random value of 4,096 out and another in.
pub fn pairs(threads: usize, rounds: usize, guards: Guards) -> Cell {
    let name = match guards {
        Guards::Request => "insert+remove",
        Guards::Own => "insert+remove own guard",
    };
    churn(name, threads, rounds, guards, KEYS)
}

/// A value in and out again at once.
pub fn at_once(threads: usize, rounds: usize, guards: Guards) -> Cell {
    churn("insert+remove at once", threads, rounds, guards, 1)
}

/// Each thread keeps `live` values, and takes a random one out and puts another in.
fn churn(name: &str, threads: usize, rounds: usize, guards: Guards, live: usize) -> Cell {
    const PAIRS: usize = 1 << 16;
    let (one, two) = (OurSlab::empty(), OurSlab::empty());
    let theirs = sharded_slab::Slab::new();
    let per_guard = if guards == Guards::Own { 1 } else { REQUEST };
    let ours = |slab: &OurSlab| {
        on_threads(threads, PAIRS, |at, timed| {
            let participant = slab.domain.register();
            let mut keys: Vec<Key> =
                (0..live).map(|at| slab.slab.insert(at as u64, &participant.pin())).collect();
            let order = places(live, at);
            let took = timed(&mut || {
                pairs_ours(slab, &participant, &mut keys, &order, PAIRS / per_guard, per_guard);
            });
            keys.iter().for_each(|key| assert!(slab.slab.remove(*key, &participant.pin())));
            participant.collect();
            took
        })
    };
    let run_theirs = || {
        on_threads(threads, PAIRS, |at, timed| {
            let mut keys: Vec<usize> =
                (0..live).map(|at| theirs.insert(at as u64).expect("not full")).collect();
            let order = places(live, at);
            let took = timed(&mut || pairs_theirs(&theirs, &mut keys, &order, PAIRS));
            keys.iter().for_each(|key| assert!(theirs.remove(*key)));
            took
        })
    };
    let sides = vec![
        Side::new(FLAGSTONE, || ours(&one)),
        Side::new(CONTROL, || ours(&two)),
        Side::new(SHARDED_SLAB, run_theirs),
    ];
    turns(name, threads, rounds, sides)
}

/// Places of `live` keys in a random order, a power of two of them.
fn places(live: usize, thread: usize) -> Vec<u32> {
    shuffled(&(0..live as u32).collect::<Vec<_>>(), thread)
}

/// A value in on one thread and out on another.
pub fn remote(rounds: usize) -> Cell {
    const ITEMS: usize = 1 << 17;
    let (one, two) = (OurSlab::empty(), OurSlab::empty());
    let theirs = sharded_slab::Slab::new();
    let ours = |slab: &OurSlab| {
        handed_over(
            ITEMS,
            |parcel, participant: &Participant| {
                for keys in parcel.chunks_mut(REQUEST) {
                    let guard = participant.pin();
                    keys.iter_mut().for_each(|key| *key = Some(slab.slab.insert(1, &guard)));
                }
            },
            |parcel, participant| {
                for keys in parcel.chunks(REQUEST) {
                    let guard = participant.pin();
                    keys.iter().flatten().for_each(|key| {
                        assert!(slab.slab.remove(*key, &guard));
                    });
                }
            },
            || slab.domain.register(),
        )
    };
    let run_theirs = || {
        handed_over(
            ITEMS,
            |parcel: &mut [Option<usize>], ()| {
                parcel.iter_mut().for_each(|key| *key = theirs.insert(1));
            },
            |parcel, ()| {
                parcel.iter().flatten().for_each(|key| assert!(theirs.remove(*key)));
            },
            || (),
        )
    };
    let sides = vec![
        Side::new(FLAGSTONE, || ours(&one)),
        Side::new(CONTROL, || ours(&two)),
        Side::new(SHARDED_SLAB, run_theirs),
    ];
    turns("remote remove", 2, rounds, sides)
}

/// Nanoseconds for one of `items` that one thread puts in and another takes out.
fn handed_over<K: Copy + Send, P>(
    items: usize,
    fill: impl Fn(&mut [Option<K>], &P) + Send,
    empty: impl Fn(&[Option<K>], &P) + Send,
    take_part: impl Fn() -> P + Sync,
) -> f64 {
    type Parcels<K> = (Receiver<Vec<Option<K>>>, Receiver<Vec<Option<K>>>);
    let (send_full, receive_full) = sync_channel(PARCELS);
    let (send_empty, receive_empty) = sync_channel(PARCELS);
    for _ in 0..PARCELS {
        send_empty.send(vec![None; PARCEL]).expect("there is room");
    }
    let (full, empties): Parcels<K> = (receive_full, receive_empty);
    let take_part = &take_part;
    let begin = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let part = take_part();
            for _ in 0..items / PARCEL {
                let mut parcel = empties.recv().expect("the other side is there");
                fill(&mut parcel, &part);
                send_full.send(parcel).expect("the other side is there");
            }
        });
        scope.spawn(move || {
            let part = take_part();
            while let Ok(parcel) = full.recv() {
                empty(&parcel, &part);
                // The other side may be done and gone.
                let _ = send_empty.send(parcel);
            }
        });
    });
    begin.elapsed().as_nanos() as f64 / items as f64
}

/// Our slab, its domain, and the keys in it.
struct OurSlab {
    domain: Domain,
    slab: Slab<u64>,
    keys: Vec<Key>,
}

impl OurSlab {
    fn empty() -> Self {
        let domain = Domain::new();
        let slab = Slab::new(&domain);
        Self { domain, slab, keys: Vec::new() }
    }

    fn filled() -> Self {
        let mut this = Self::empty();
        let participant = this.domain.register();
        let guard = participant.pin();
        this.keys = (0..KEYS).map(|at| this.slab.insert(at as u64, &guard)).collect();
        drop(guard);
        this
    }
}

fn shuffled<K: Copy>(keys: &[K], thread: usize) -> Vec<K> {
    let mut rng = Rng::part(0x5_1ab5, thread as u64);
    let mut keys = keys.to_vec();
    for last in (1..keys.len()).rev() {
        keys.swap(last, rng.below(last + 1));
    }
    keys
}

// Functions of their own, so that each loop is compiled alike wherever it is called.

#[inline(never)]
fn look_ours(ours: &OurSlab, participant: &Participant, keys: &[Key]) {
    let mut sum = 0;
    for keys in keys.chunks(REQUEST) {
        let guard = participant.pin();
        for key in keys {
            sum += ours.slab.get(*key, &guard).expect("nobody removes");
        }
    }
    black_box(sum);
}

#[inline(never)]
fn look_ours_own(ours: &OurSlab, participant: &Participant, keys: &[Key]) {
    let mut sum = 0;
    for key in keys {
        sum += ours.slab.get(*key, &participant.pin()).expect("nobody removes");
    }
    black_box(sum);
}

#[inline(never)]
fn look_theirs(theirs: &sharded_slab::Slab<u64>, keys: &[usize]) {
    let mut sum = 0;
    for key in keys {
        sum += *theirs.get(*key).expect("nobody removes");
    }
    black_box(sum);
}

#[inline(never)]
fn pairs_ours(
    ours: &OurSlab,
    participant: &Participant,
    keys: &mut [Key],
    order: &[u32],
    guards: usize,
    per_guard: usize,
) {
    let mut turn = order.iter().cycle();
    for _ in 0..guards {
        let guard = participant.pin();
        for at in 0..per_guard as u64 {
            let key = &mut keys[*turn.next().expect("not empty") as usize];
            assert!(ours.slab.remove(*key, &guard));
            *key = ours.slab.insert(at, &guard);
        }
    }
}

#[inline(never)]
fn pairs_theirs(theirs: &sharded_slab::Slab<u64>, keys: &mut [usize], order: &[u32], pairs: usize) {
    let mut turn = order.iter().cycle();
    for at in 0..pairs as u64 {
        let key = &mut keys[*turn.next().expect("not empty") as usize];
        assert!(theirs.remove(*key));
        *key = theirs.insert(at).expect("not full");
    }
}
