//! Memory that runs out at any request of a typed slab or a pool: a refused value comes back, one that
//! cannot be removed stays, and every value is dropped once.

#[path = "../../epoch/tests/common/refusing.rs"]
mod refusing;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use flagstone_epoch::Domain;
use flagstone_slab::typed::{Clear, InsertError, Key, NoSlot, Pool, Slab};
use refusing::{Refusing, arm, disarm, outstanding, served};

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

/// A value that counts its drops. Of one page's slots or so, so that the work needs several.
struct Value {
    number: usize,
    drops: Drops,
    _rest: [u64; 60],
}

#[derive(Clone, Default)]
struct Drops(Rc<Cell<usize>>);

// SAFETY: the tests of this file use one thread.
unsafe impl Send for Drops {}
// SAFETY: as above.
unsafe impl Sync for Drops {}

impl Drop for Value {
    fn drop(&mut self) {
        self.drops.0.set(self.drops.0.get() + 1);
    }
}

/// A buffer of a pool.
#[derive(Default)]
struct Line(Vec<u8>);

impl Clear for Line {
    fn clear(&mut self) {
        self.0.clear();
    }
}

const VALUES: usize = 260;

/// What a run did.
#[derive(Debug, Default)]
struct Done {
    registered: bool,
    refused: usize,
}

/// Inserts, finds and removes with two participants while requests fail; heals if `healed`, and then
/// nothing may be left that works less well than before.
fn slab_scenario(first: u64, last: u64, healed: bool) -> (Done, u64) {
    // The list of all domains keeps its room.
    drop(Domain::new());
    let before = outstanding();
    let (mut done, mut refused) = (Done::default(), 0);
    let drops = Drops::default();
    {
        let domain = Domain::builder().batch_blocks(16).build().expect("in range");
        let slab: Slab<Value> = Slab::builder().buckets(2).build(&domain);
        let mut values: Vec<Value> = (0..VALUES)
            .map(|number| Value { number, drops: drops.clone(), _rest: [0; 60] })
            .collect();
        let mut keys: Vec<(Key, usize)> = Vec::with_capacity(VALUES);
        arm(first, last);
        if let (Ok(one), Ok(other)) = (domain.try_register(), domain.try_register()) {
            done.registered = true;
            while let Some(value) = values.pop() {
                let number = value.number;
                let guard = if number.is_multiple_of(3) { one.pin() } else { other.pin() };
                match slab.try_insert(value, &guard) {
                    Ok(key) => keys.push((key, number)),
                    Err(InsertError { rejected, reason, .. }) => {
                        assert_eq!((rejected.number, reason), (number, NoSlot::OutOfMemory));
                        done.refused += 1;
                    }
                }
                if number.is_multiple_of(7)
                    && let Ok(entry) = slab.try_vacant_entry(&guard)
                {
                    drop(entry);
                }
                if number.is_multiple_of(2)
                    && let Some((key, number)) = keys.pop()
                {
                    match slab.try_remove(key, &guard) {
                        Ok(removed) => assert!(removed && slab.get(key, &guard).is_none()),
                        Err(_) => {
                            done.refused += 1;
                            keys.push((key, number));
                        }
                    }
                }
                for (key, number) in &keys {
                    assert_eq!(slab.get(*key, &guard).map(|value| value.number), Some(*number));
                }
                drop(guard);
                match number % 40 {
                    11 => slab.park(&one),
                    21 => one.park(),
                    31 => drop(slab.maintain()),
                    _ => {}
                }
            }
            assert_eq!(slab.len(), keys.len());
            if healed {
                refused = disarm();
                for (key, _) in keys.drain(..) {
                    assert_eq!(slab.try_remove(key, &one.pin()), Ok(true));
                }
                one.collect();
                other.collect();
                assert_eq!(drops.0.get(), VALUES);
                let value = Value { number: 0, drops: drops.clone(), _rest: [0; 60] };
                let key = slab.insert(value, &other.pin());
                assert!(slab.remove(key, &one.pin()));
                drops.0.set(drops.0.get() - 1);
            }
        }
        drop(slab);
        drop(domain);
        refused += disarm();
    }
    assert_eq!(drops.0.get(), VALUES, "each once");
    drop(drops);
    assert_eq!(outstanding(), before, "requests {first} to {last} failed");
    (done, refused)
}

/// The same for a pool, whose objects keep their buffers.
fn pool_scenario(first: u64, last: u64, healed: bool) -> (Done, u64) {
    drop(Domain::new());
    let before = outstanding();
    let (mut done, mut refused) = (Done::default(), 0);
    {
        let domain = Domain::builder().batch_blocks(16).build().expect("in range");
        let pool: Pool<Line> = Pool::new(&domain);
        let mut keys: Vec<(Key, usize)> = Vec::with_capacity(VALUES);
        arm(first, last);
        if let Ok(participant) = domain.try_register() {
            done.registered = true;
            for number in 0..VALUES {
                let guard = participant.pin();
                match pool.try_create(&guard) {
                    Ok(mut line) => {
                        assert!(line.0.is_empty(), "cleared");
                        // The user's own memory: it may run out as well.
                        if line.0.try_reserve(number).is_ok() {
                            line.0.resize(number, 7);
                            keys.push((line.publish(), number));
                        } else {
                            done.refused += 1;
                        }
                    }
                    Err(reason) => {
                        assert_eq!(reason, NoSlot::OutOfMemory);
                        done.refused += 1;
                    }
                }
                if number.is_multiple_of(2)
                    && let Some((key, number)) = keys.pop()
                {
                    assert_eq!(pool.get(key, &guard).map(|line| line.0.len()), Some(number));
                    if pool.try_clear(key, &guard).is_err() {
                        done.refused += 1;
                        assert!(pool.contains(key, &guard));
                        keys.push((key, number));
                    }
                }
                drop(guard);
                if number % 50 == 49 {
                    pool.maintain();
                }
            }
            assert_eq!(pool.len(), keys.len());
            if healed {
                refused = disarm();
                for (key, _) in keys.drain(..) {
                    assert_eq!(pool.try_clear(key, &participant.pin()), Ok(true));
                }
                participant.collect();
                assert!(pool.is_empty());
                let guard = participant.pin();
                assert!(pool.create(&guard).0.is_empty());
            }
        }
        drop(pool);
        drop(domain);
        refused += disarm();
    }
    assert_eq!(outstanding(), before, "requests {first} to {last} failed");
    (done, refused)
}

/// Fails each request of a scenario in turn, until there is none left.
fn sweep(scenario: fn(u64, u64, bool) -> (Done, u64), stride: usize) {
    // What the domains of a process share is accounted to one thread at a time.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for (once, healed) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut swept = 0;
        for first in (1..).step_by(stride) {
            let (done, refused) = scenario(first, if once { first } else { u64::MAX }, healed);
            if refused == 0 {
                assert!(done.registered && done.refused == 0, "{done:?}");
                break;
            }
            swept += 1;
        }
        assert!(swept > 10, "{swept} requests only");
    }
    served(|| ());
}

// requirement: G7
#[test]
fn a_slab_whose_requests_fail_loses_no_value() {
    sweep(slab_scenario, 1);
}

// requirement: G7
#[test]
fn a_pool_whose_requests_fail_loses_no_object() {
    sweep(pool_scenario, 1);
}
