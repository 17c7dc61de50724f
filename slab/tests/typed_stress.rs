//! Threads that insert, find, remove and walk, come and go, on one typed slab, for as long as asked.
//!
//! `FLAGSTONE_STRESS_SECONDS=30 cargo test -p flagstone-slab --release --test typed_stress -- --ignored`
#![allow(clippy::disallowed_types, reason = "a test of the interface as users meet it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flagstone_epoch::Domain;
use flagstone_slab::typed::{Key, Slab};

const LIVE: u64 = 0xA1A1_A1A1_A1A1_A1A1;
/// Keys that all threads know, some of them stale.
const SHARED: usize = 512;

struct Probe {
    live: AtomicU64,
    made: Arc<AtomicU64>,
}

impl Probe {
    fn new(made: &Arc<AtomicU64>) -> Self {
        made.fetch_add(1, Ordering::Relaxed);
        Self { live: AtomicU64::new(LIVE), made: Arc::clone(made) }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        assert_eq!(self.live.swap(0, Ordering::Relaxed), LIVE, "dropped twice");
        self.made.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "runs for FLAGSTONE_STRESS_SECONDS (default 10) on 5 threads: run by name"]
fn everything_at_once() {
    let seconds = std::env::var("FLAGSTONE_STRESS_SECONDS").ok();
    let seconds: u64 = seconds.map_or(10, |text| text.parse().expect("a number of seconds"));
    let end = Instant::now() + Duration::from_secs(seconds);
    let made = Arc::new(AtomicU64::new(0));
    let domain = Domain::builder().batch_blocks(64).build().expect("in range");
    let slab = Slab::builder().buckets(2).build(&domain);
    let shared: Vec<AtomicU64> = (0..SHARED).map(|_| AtomicU64::new(0)).collect();

    thread::scope(|scope| {
        for worker in 0..4u64 {
            let (domain, slab, shared, made) = (&domain, &slab, &shared, &made);
            scope.spawn(move || {
                let mut random = worker + 1;
                // Xorshift: enough to mix the workers.
                let mut next = move || {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random as usize
                };
                while Instant::now() < end {
                    // A participant now and then: shards change hands.
                    let participant = domain.register();
                    for _ in 0..500 {
                        let guard = participant.pin();
                        for _ in 0..next() % 16 {
                            let place = &shared[next() % SHARED];
                            // SAFETY: zero or the number of a key; anything else would be a miss.
                            let key = unsafe { Key::from_bits(place.load(Ordering::Relaxed)) };
                            match (key, next() % 4) {
                                (Some(key), 0) => {
                                    slab.remove(key, &guard);
                                }
                                (None, _) | (_, 1) => {
                                    let key = slab.insert(Probe::new(made), &guard);
                                    let old = place.swap(key.to_bits().get(), Ordering::Relaxed);
                                    // SAFETY: as above.
                                    if let Some(old) = unsafe { Key::from_bits(old) } {
                                        slab.remove(old, &guard);
                                    }
                                }
                                (Some(key), _) => {
                                    if let Some(probe) = slab.get(key, &guard) {
                                        let live = probe.live.load(Ordering::Relaxed);
                                        assert_eq!(live, LIVE, "read after its drop");
                                    }
                                }
                            }
                        }
                    }
                    // A burst now and then, so that pages come and go.
                    if next() % 8 == 0 {
                        let guard = participant.pin();
                        let burst: Vec<Key> =
                            (0..5000).map(|_| slab.insert(Probe::new(made), &guard)).collect();
                        drop(guard);
                        for key in burst {
                            assert!(slab.remove(key, &participant.pin()));
                        }
                    }
                }
            });
        }
        scope.spawn(|| {
            while Instant::now() < end {
                let participant = domain.register();
                let guard = participant.pin();
                for (_, probe) in slab.iter(&guard) {
                    assert_eq!(probe.live.load(Ordering::Relaxed), LIVE, "met after its drop");
                }
                drop(guard);
                drop(participant);
                let _ = slab.maintain();
                thread::yield_now();
            }
        });
    });

    let participant = domain.register();
    participant.collect();
    slab.park(&participant);
    let _ = slab.maintain();
    let stats = slab.stats();
    println!("{stats:?}");
    assert_eq!(stats.pending, 0);
    assert_eq!(made.load(Ordering::Relaxed), stats.len as u64, "values are in the slab or dropped");
    assert_eq!(slab.iter(&participant.pin()).count(), stats.len);
    assert_eq!(stats.slots, stats.len + stats.free, "no slot is lost: {stats:?}");
    assert!(stats.returned_pages > 0, "bursts' pages come back: {stats:?}");
    drop(slab);
    participant.collect();
    assert_eq!(made.load(Ordering::Relaxed), 0);
}
