//! Memory that runs out at any request: what can refuse refuses and gives the object back, what cannot
//! waits, and everything is reclaimed once.

mod common;
#[path = "common/refusing.rs"]
mod refusing;

use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use common::{Drops, Probe};
use flagstone_epoch::{Domain, Linked, Participant, RetireRefusal};
use refusing::{Refusing, arm, disarm, latest, outstanding, served};

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

/// # Safety
/// `object` is a leaked box of a probe; called once.
unsafe fn drop_probe(object: NonNull<u8>, _: usize) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(object.cast::<Probe>().as_ptr()) });
}

/// What a scenario did: objects that were refused, and whether it got to work at all.
#[derive(Debug, Default, PartialEq)]
struct Done {
    registered: bool,
    retired: usize,
    refused: usize,
}

/// Retires `count` objects in every way, with objects that were allocated before.
fn retire(domain: &Domain, participant: &Participant, objects: &mut Objects, done: &mut Done) {
    let refusals = |refusal: RetireRefusal| assert_eq!(refusal, RetireRefusal::OutOfMemory);
    let mut at = 0;
    while let (Some(linked), Some(boxed)) = (objects.linked.pop(), objects.boxed.pop()) {
        at += 1;
        let outcome = match at % 5 {
            0 => {
                // SAFETY: from boxes that nobody else knows.
                unsafe { participant.retire_linked(NonNull::from(Box::leak(linked))) };
                participant.try_defer_drop(boxed).map_err(|back| (back.refusal, back.into_inner()))
            }
            1 => {
                let linked = NonNull::from(Box::leak(linked));
                // SAFETY: as above; what is refused is ours again.
                if let Err(back) = unsafe { participant.try_retire_linked(linked) } {
                    refusals(back.refusal);
                    // SAFETY: refused, so it is still the box that was leaked.
                    drop(unsafe { Box::from_raw(back.into_inner().as_ptr()) });
                    done.refused += 1;
                }
                participant.try_defer_drop(boxed).map_err(|back| (back.refusal, back.into_inner()))
            }
            _ => {
                drop(linked);
                let boxed = NonNull::from(Box::leak(boxed)).cast();
                // SAFETY: a leaked probe that nobody else knows.
                unsafe { domain.try_retire_unlinked(boxed, 32, 0, drop_probe) }.map_err(|back| {
                    let refusal = back.refusal;
                    // SAFETY: refused, so it is still the box that was leaked.
                    (refusal, unsafe { Box::from_raw(back.into_inner().cast::<Probe>().as_ptr()) })
                })
            }
        };
        match outcome {
            Ok(()) => done.retired += 1,
            Err((refusal, back)) => {
                refusals(refusal);
                back.assert_live();
                done.refused += 1;
            }
        }
        match at % 16 {
            3 => drop(participant.pin()),
            7 => participant.flush(),
            9 => drop(participant.collect()),
            11 => drop(domain.advance()),
            12 => drop(domain.maintain()),
            13 => {
                participant.enter();
                participant.leave().expect("entered");
            }
            15 => participant.park(),
            _ => {}
        }
    }
}

/// Boxed, because they are retired as boxes, and allocated before memory runs out.
#[allow(clippy::vec_box, reason = "as above")]
struct Objects {
    linked: Vec<Box<Linked<Probe>>>,
    boxed: Vec<Box<Probe>>,
}

impl Objects {
    fn new(count: usize, drops: &Drops) -> Self {
        Self {
            linked: (0..count).map(|_| Linked::boxed(drops.probe())).collect(),
            boxed: (0..count).map(|_| Box::new(drops.probe())).collect(),
        }
    }
}

/// Two participants retire; one of them holds a guard meanwhile if `held`. All end without memory, or
/// with it if `healed`. Returns what was done and how many requests were refused.
fn scenario(first: u64, last: u64, held: bool, healed: bool) -> (Done, u64) {
    const COUNT: usize = 120;
    // The list of all domains keeps its room.
    drop(Domain::new());
    let before = outstanding();
    let drops = Drops::default();
    let mut done = Done::default();
    let mut refused = 0;
    {
        // Small batches, so that many are handed over.
        let domain = Domain::builder().batch_blocks(4).build().expect("in range");
        let (mut one, mut other) = (Objects::new(COUNT, &drops), Objects::new(COUNT, &drops));
        arm(first, last);
        if let (Ok(a), Ok(b)) = (domain.try_register(), domain.try_register()) {
            done.registered = true;
            let guard = held.then(|| b.pin());
            retire(&domain, &a, &mut one, &mut done);
            drop(guard);
            retire(&domain, &b, &mut other, &mut done);
            if healed {
                refused = disarm();
                drop((a, b));
                assert!(domain.collect().blocks <= 4 * COUNT as u64);
                let snapshot = domain.snapshot();
                assert_eq!((snapshot.pending.blocks, domain.reserved_bytes()), (0, 0));
                assert_eq!(drops.count(), 4 * COUNT, "with memory again, all is reclaimed");
            } else {
                drop((a, b));
            }
        }
        drop(domain);
        refused += disarm();
        drop((one, other));
    }
    assert_eq!(drops.count(), 4 * COUNT, "each once");
    drop(drops);
    assert_eq!(outstanding(), before, "requests {first} to {last} failed, guard held: {held}");
    (done, refused)
}

/// Fails each request of the scenario in turn, until there is none left. Returns how many there were.
fn sweep(held: bool, healed: bool, once: bool, stride: usize) -> usize {
    // What the domains of a process share is accounted to one thread at a time.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for (swept, first) in (1..).step_by(stride).enumerate() {
        let (done, refused) = scenario(first, if once { first } else { u64::MAX }, held, healed);
        if refused == 0 {
            assert!(done.registered && done.refused == 0, "{done:?}");
            return swept;
        }
    }
    unreachable!("the numbers have no end")
}

// requirement: G7
#[test]
fn every_request_from_the_nth_on_fails() {
    for (held, healed) in [(false, false), (false, true), (true, false), (true, true)] {
        let swept = sweep(held, healed, false, 1);
        assert!(swept > 20, "{swept} requests only");
    }
}

// requirement: G7
#[test]
fn one_request_fails() {
    for (held, healed) in [(false, true), (true, false)] {
        let swept = sweep(held, healed, true, 1);
        assert!(swept > 20, "{swept} requests only");
    }
}

/// What is asked for before crossbeam-epoch is called is what crossbeam-epoch then asks for.
#[test]
#[cfg(all(target_pointer_width = "64", not(miri)))]
fn the_layouts_asked_for_are_those_of_the_collector() {
    let domain = Domain::new();
    drop(domain.register());
    // The record is there now: what is left is the handle, the reserve, and the look at both.
    let participant = domain.try_register().expect("memory");
    let seen = latest();
    let times = |layout| seen.iter().filter(|&&found| found == layout).count();
    assert!(times((2304, 128)) >= 2, "{seen:?}");
    assert!(times((2072, 8)) >= 2, "{seen:?}");
    participant.defer_drop(Box::new(1));
    participant.flush();
    let seen = latest();
    assert_eq!(seen.iter().take(2).filter(|&&found| found == (2072, 8)).count(), 2, "{seen:?}");
}

/// Without memory for a bag the batch waits, under its own thread's guards too, and goes when there is.
#[test]
fn what_cannot_be_handed_over_waits() {
    let drops = Drops::default();
    let domain = Domain::builder().batch_blocks(4).build().expect("in range");
    let participant = domain.register();
    let objects: Vec<_> = (0..10_000).map(|_| drops.linked()).collect();
    arm(1, u64::MAX);
    for linked in objects {
        // SAFETY: from boxes that nobody else knows.
        unsafe { participant.retire_linked(linked) };
    }
    let refused = disarm();
    assert!(refused > 0);
    assert_eq!(drops.count(), 0, "nothing could be handed over");
    drop(participant.pin());
    participant.collect();
    assert_eq!(drops.count(), 10_000);
    assert_eq!(domain.reserved_bytes(), 0);
    served(|| drop(participant));
}
