//! Guards and retirement by themselves: ours, crossbeam-epoch's, seize's, haphazard's, sdd's.
//!
//! Not all do the same. A hazard pointer protects one object and is taken, pointed and given back for
//! it; sdd's collector is one for the process; seize's guards wait for batches, not epochs. Here stands
//! what a reader pays before it may read, and what a writer pays to get rid of a box.

use std::hint::black_box;
use std::ptr::NonNull;
use std::time::Instant;

use crossbeam_epoch as cb;
use flagstone_epoch::{Domain, Linked};

use super::turns::{Side, turns};
use super::{Backlog, CONTROL, CROSSBEAM, Cell, FLAGSTONE, Times};
use crate::epochs;

/// Retired under one guard.
const REQUEST: usize = 64;

/// Enter and leave.
pub fn guard(rounds: usize) -> Cell {
    const TIMES: usize = 50_000;
    let domains = [Domain::new(), Domain::new()];
    let [one, two] = domains.each_ref().map(Domain::register);
    let collector = cb::Collector::new();
    let handle = collector.register();
    let seize = seize::Collector::new();
    let mut object = 1u64;
    let hazards = haphazard::Domain::new(&());
    let sides = vec![
        Side::new(FLAGSTONE, || each(TIMES, || drop(black_box(one.pin())))),
        Side::new(CONTROL, || each(TIMES, || drop(black_box(two.pin())))),
        Side::new(CROSSBEAM, || each(TIMES, || drop(black_box(handle.pin())))),
        Side::new("seize", || each(TIMES, || drop(black_box(seize.enter())))),
        Side::new("haphazard", || {
            each(TIMES, || {
                let mut hazard = haphazard::HazardPointer::new_in_domain(&hazards);
                hazard.protect_raw(black_box(&raw mut object));
                drop(black_box(hazard));
            })
        }),
        Side::new("sdd", || each(TIMES, || drop(black_box(sdd::Guard::new())))),
    ];
    turns("guard", 1, rounds, sides)
}

/// Eight bytes whose drop the compiler cannot leave out.
struct Counted(u64);

impl Drop for Counted {
    fn drop(&mut self) {
        black_box(self.0);
    }
}

/// A box made, retired and, some time, freed.
pub fn retire(rounds: usize) -> Cell {
    const GUARDS: usize = 500;
    let domains = [Domain::new(), Domain::new()];
    let participants = domains.each_ref().map(Domain::register);
    let ours = |at: usize| {
        let participant = &participants[at];
        requests(GUARDS, || {
            let _guard = participant.pin();
            for _ in 0..REQUEST {
                let object = NonNull::from(Box::leak(Linked::boxed(Counted(1))));
                // SAFETY: from a box, and nobody else knows it.
                unsafe { participant.retire_linked(object) };
            }
        })
    };
    let collector = cb::Collector::new();
    let handle = collector.register();
    let seize = seize::Collector::new();
    let hazards = haphazard::Domain::new(&());
    let sides = vec![
        Side::new(FLAGSTONE, || ours(0)),
        Side::new(CONTROL, || ours(1)),
        Side::new(CROSSBEAM, || {
            requests(GUARDS, || {
                let guard = handle.pin();
                for _ in 0..REQUEST {
                    let object = cb::Owned::new(Counted(1)).into_shared(&guard);
                    // SAFETY: nobody else knows it.
                    unsafe { guard.defer_destroy(object) };
                }
            })
        }),
        Side::new("seize", || {
            requests(GUARDS, || {
                let guard = seize.enter();
                for _ in 0..REQUEST {
                    let object = Box::into_raw(Box::new(Counted(1)));
                    // SAFETY: from a box, and nobody else knows it.
                    unsafe {
                        seize::Guard::defer_retire(&guard, object, seize::reclaim::boxed);
                    }
                }
            })
        }),
        Side::new("haphazard", || {
            requests(GUARDS, || {
                for _ in 0..REQUEST {
                    let object = Box::into_raw(Box::new(Counted(1)));
                    // SAFETY: from a box, and nobody else knows it.
                    unsafe { hazards.retire_ptr::<_, Box<_>>(object) };
                }
            })
        }),
        Side::new("sdd", || {
            requests(GUARDS, || {
                let _guard = sdd::Guard::new();
                for _ in 0..REQUEST {
                    drop(sdd::Owned::new(Counted(1)));
                }
            })
        }),
    ];
    turns("retire", 1, rounds, sides)
}

fn each(times: usize, mut operation: impl FnMut()) -> f64 {
    let begin = Instant::now();
    for _ in 0..times {
        operation();
    }
    begin.elapsed().as_nanos() as f64 / times as f64
}

fn requests(guards: usize, request: impl FnMut()) -> f64 {
    each(guards, request) / REQUEST as f64
}

/// Our retiring beside crossbeam-epoch's `defer`, 64 under each guard, without an allocator: see
/// [`epochs::retire`]. The figures are medians.
pub fn retire_or_defer(rounds: usize) -> Cell {
    let compared = epochs::retire(REQUEST, 10 * rounds + 1);
    let sides = [FLAGSTONE, CONTROL, CROSSBEAM].iter().zip(compared.nanos);
    let sides = sides.map(|(side, nanos)| Times { side: (*side).to_owned(), nanos: vec![nanos] });
    Cell { name: String::from("retire or defer"), threads: 1, sides: sides.collect() }
}

/// Objects that wait at most while 200,000 are retired.
pub fn backlogs() -> Vec<Backlog> {
    let backlog = |per_guard| {
        let [ours, _, crossbeam] = epochs::backlog(per_guard, 200_000);
        Backlog { per_guard, ours, crossbeam }
    };
    [1, 8, 64, 1000].map(backlog).into()
}
