//! Guards and retiring beside crossbeam-epoch's own, which is what they stand on.
//!
//! One thread, one domain and one collector, each with a handle of its own. What is compared:
//!
//! - *pin*: an outermost guard taken and dropped; *enter*: the same without a value to hold; *nested*:
//!   a guard inside a guard.
//! - *retire*: 8 B objects from a ring, `per_guard` of them under each guard, with all that comes after:
//!   handing over, waiting, reclaiming. Reclaiming adds to a counter and nothing else, so that no
//!   allocator is part of the comparison. crossbeam-epoch defers a closure of one word for each.
//! - *unlinked*: the same with links out of line, for objects that have no room for one.
//! - *backlog*: how many retired objects wait at most, against the same.
//!
//! Sides take turns, and the first stands there twice ([`Side::Again`]): the ratio of the two is the
//! noise of the run (A/A), and a ratio inside it says nothing.

use std::cell::Cell;
use std::hint::black_box;
use std::ptr::NonNull;
use std::time::Instant;

use crossbeam_epoch as cb;
use flagstone_epoch::{Domain, Participant, Reclaim, RetireNode};

/// Whose guard or batch is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `flagstone-epoch`.
    Flagstone,
    /// The same once more, for the noise of the run.
    Again,
    /// `crossbeam-epoch` by itself.
    Crossbeam,
}

/// In the order of [`Compared`]'s figures.
pub const SIDES: [Side; 3] = [Side::Flagstone, Side::Again, Side::Crossbeam];

/// One comparison: nanoseconds for one operation, the median of all rounds, by [`SIDES`].
#[derive(Clone, Debug)]
pub struct Compared {
    /// What was done.
    pub what: String,
    /// Nanoseconds by side.
    pub nanos: [f64; 3],
}

impl Compared {
    /// crossbeam-epoch's time by ours: above 1, we are faster.
    pub fn ratio(&self) -> f64 {
        self.nanos[2] / self.nanos[0]
    }

    /// Our time less crossbeam-epoch's, in nanoseconds.
    pub fn above(&self) -> f64 {
        self.nanos[0] - self.nanos[2]
    }

    /// Our time by our time: what noise alone does.
    pub fn control(&self) -> f64 {
        self.nanos[1] / self.nanos[0]
    }
}

impl std::fmt::Display for Compared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [ours, _, theirs] = self.nanos;
        write!(
            f,
            "{:<18} {ours:7.2} ns  crossbeam {theirs:7.2} ns  {:+6.2} ns  {:5.2}x  A/A {:.3}",
            self.what,
            self.above(),
            self.ratio(),
            self.control()
        )
    }
}

/// Every comparison of this module, `rounds` times each.
pub fn all(rounds: usize) -> Vec<Compared> {
    let mut out = vec![pin(rounds), enter(rounds), nested(rounds)];
    out.extend([1, 8, 64, 1000].map(|per_guard| retire(per_guard, rounds)));
    out.push(unlinked(64, rounds));
    out
}

/// An outermost guard taken and dropped.
pub fn pin(rounds: usize) -> Compared {
    let (domain, collector) = (Domain::new(), cb::Collector::new());
    let (participant, handle) = (domain.register(), collector.register());
    compare("pin", rounds, 20_000, |side, times| match side {
        Side::Crossbeam => pin_crossbeam(&handle, times),
        _ => pin_flagstone(&participant, times),
    })
}

/// The guard that is no value; crossbeam-epoch has none, its guard stands in.
pub fn enter(rounds: usize) -> Compared {
    let (domain, collector) = (Domain::new(), cb::Collector::new());
    let (participant, handle) = (domain.register(), collector.register());
    compare("enter + leave", rounds, 20_000, |side, times| match side {
        Side::Crossbeam => pin_crossbeam(&handle, times),
        _ => enter_flagstone(&participant, times),
    })
}

/// A guard inside a guard.
pub fn nested(rounds: usize) -> Compared {
    let (domain, collector) = (Domain::new(), cb::Collector::new());
    let (participant, handle) = (domain.register(), collector.register());
    let _outer = (participant.pin(), handle.pin());
    compare("nested pin", rounds, 50_000, |side, times| match side {
        Side::Crossbeam => pin_crossbeam(&handle, times),
        _ => pin_flagstone(&participant, times),
    })
}

// Functions of their own, so that each loop is compiled alike wherever it is called. The owner of the
// guard goes through `black_box`, so that a guard's writes are made; the guard itself stays in a
// register, as it does in programs.

#[inline(never)]
fn pin_flagstone(participant: &Participant, times: usize) {
    for _ in 0..times {
        let guard = participant.pin();
        black_box(participant);
        drop(guard);
    }
}

#[inline(never)]
fn enter_flagstone(participant: &Participant, times: usize) {
    for _ in 0..times {
        participant.enter();
        black_box(participant);
        participant.leave().expect("entered");
    }
}

#[inline(never)]
fn pin_crossbeam(handle: &cb::LocalHandle, times: usize) {
    for _ in 0..times {
        let guard = handle.pin();
        black_box(handle);
        drop(guard);
    }
}

#[inline(never)]
fn retire_flagstone(participant: &Participant, ring: &mut Ring, guards: usize, per_guard: usize) {
    for _ in 0..guards {
        let guard = participant.pin();
        for _ in 0..per_guard {
            let object = ring.next();
            // SAFETY: the node's last batch is long over (the ring is longer than any backlog, as
            // `backlog` shows), nobody reads it, and the ring outlives the domain's use.
            unsafe { guard.participant().retire(object, 64, RECLAIM) };
        }
    }
}

#[inline(never)]
fn retire_unlinked(participant: &Participant, ring: &mut Ring, guards: usize, per_guard: usize) {
    unsafe fn count(object: NonNull<u8>, _: usize) {
        reclaim(object.cast());
    }
    for _ in 0..guards {
        let guard = participant.pin();
        for _ in 0..per_guard {
            let object = ring.next().cast();
            // SAFETY: reclaiming touches nothing but this thread's counter.
            unsafe { guard.participant().retire_unlinked(object, 64, 0, count) };
        }
    }
}

#[inline(never)]
fn retire_crossbeam(handle: &cb::LocalHandle, ring: &mut Ring, guards: usize, per_guard: usize) {
    for _ in 0..guards {
        let guard = handle.pin();
        for _ in 0..per_guard {
            let object = ring.next();
            // SAFETY: the closure touches nothing but this thread's counter: the collector's handles
            // are all on this thread.
            unsafe { guard.defer_unchecked(move || reclaim(object)) };
        }
    }
}

/// One object retired, at `per_guard` under each guard.
pub fn retire(per_guard: usize, rounds: usize) -> Compared {
    let (domain, collector) = (Domain::new(), cb::Collector::new());
    let (participant, handle) = (domain.register(), collector.register());
    // More than ever wait at once; then a node is free again when its turn comes.
    let mut ring = Ring::new(1 << 16);
    let times = 64_000 / per_guard;
    let mut compared =
        compare(&format!("retire {per_guard}/guard"), rounds, times, |side, times| match side {
            Side::Crossbeam => retire_crossbeam(&handle, &mut ring, times, per_guard),
            _ => retire_flagstone(&participant, &mut ring, times, per_guard),
        });
    compared.nanos.iter_mut().for_each(|nanos| *nanos /= per_guard as f64);
    participant.collect();
    compared
}

/// The same with links kept out of line, as for blocks of a heap: their readers may look at every byte.
pub fn unlinked(per_guard: usize, rounds: usize) -> Compared {
    let (domain, collector) = (Domain::new(), cb::Collector::new());
    let (participant, handle) = (domain.register(), collector.register());
    let mut ring = Ring::new(1 << 16);
    let times = 64_000 / per_guard;
    let what = format!("unlinked {per_guard}/guard");
    let mut compared = compare(&what, rounds, times, |side, times| match side {
        Side::Crossbeam => retire_crossbeam(&handle, &mut ring, times, per_guard),
        _ => retire_unlinked(&participant, &mut ring, times, per_guard),
    });
    compared.nanos.iter_mut().for_each(|nanos| *nanos /= per_guard as f64);
    participant.collect();
    compared
}

/// Objects that waited at most while `total` were retired, by [`SIDES`].
pub fn backlog(per_guard: usize, total: usize) -> [u64; 3] {
    SIDES.map(|side| {
        let (domain, collector) = (Domain::new(), cb::Collector::new());
        let (participant, handle) = (domain.register(), collector.register());
        let mut nodes: Vec<RetireNode> = Vec::new();
        nodes.resize_with(total, RetireNode::new);
        let before = RECLAIMED.get();
        let (mut retired, mut most) = (0, 0);
        let mut nodes = nodes.iter().map(NonNull::from);
        while retired < total as u64 {
            if side == Side::Crossbeam {
                let guard = handle.pin();
                for object in nodes.by_ref().take(per_guard) {
                    retired += 1;
                    // SAFETY: as in `retire`.
                    unsafe { guard.defer_unchecked(move || reclaim(object)) };
                }
            } else {
                let guard = participant.pin();
                for object in nodes.by_ref().take(per_guard) {
                    retired += 1;
                    // SAFETY: each node is retired once; the nodes outlive the participant's drop,
                    // the collect below, and with both the last batch.
                    unsafe { guard.participant().retire(object, 64, RECLAIM) };
                }
            }
            most = most.max(retired - (RECLAIMED.get() - before));
        }
        drop((participant, domain));
        drop((handle, collector));
        most
    })
}

thread_local! {
    static RECLAIMED: Cell<u64> = const { Cell::new(0) };
}

fn reclaim(object: NonNull<RetireNode>) {
    black_box(object);
    RECLAIMED.set(RECLAIMED.get() + 1);
}

const RECLAIM: Reclaim = {
    unsafe fn count(node: NonNull<RetireNode>) {
        reclaim(node);
    }
    count
};

/// Nodes in turn.
struct Ring {
    nodes: Vec<RetireNode>,
    at: usize,
}

impl Ring {
    fn new(len: usize) -> Self {
        let mut nodes = Vec::new();
        nodes.resize_with(len, RetireNode::new);
        Self { nodes, at: 0 }
    }

    #[inline]
    fn next(&mut self) -> NonNull<RetireNode> {
        self.at = (self.at + 1) & (self.nodes.len() - 1);
        NonNull::from(&self.nodes[self.at])
    }
}

/// `rounds` rounds of `times` operations on each side in turn, each time from another side on.
fn compare(what: &str, rounds: usize, times: usize, mut run: impl FnMut(Side, usize)) -> Compared {
    for side in SIDES {
        run(side, times);
    }
    let mut nanos: [Vec<f64>; 3] = Default::default();
    for round in 0..rounds {
        for turn in 0..SIDES.len() {
            let i = (round + turn) % SIDES.len();
            let start = Instant::now();
            run(SIDES[i], times);
            nanos[i].push(start.elapsed().as_nanos() as f64 / times as f64);
        }
    }
    let nanos = nanos.map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    });
    Compared { what: what.to_owned(), nanos }
}
