//! Sides take turns; threads start together.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::{Cell, Times};

/// One side: a run of all its operations, which returns nanoseconds for one.
pub struct Side<'a> {
    /// Who.
    pub name: &'static str,
    /// Runs once.
    pub run: Box<dyn FnMut() -> f64 + 'a>,
}

impl<'a> Side<'a> {
    /// A side by its run.
    pub fn new(name: &'static str, run: impl FnMut() -> f64 + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// Runs each side once to warm up and then `rounds` times, each round from another side on.
pub fn turns(name: &str, threads: usize, rounds: usize, mut sides: Vec<Side<'_>>) -> Cell {
    let mut times: Vec<Times> = sides
        .iter()
        .map(|side| Times { side: side.name.to_owned(), nanos: Vec::with_capacity(rounds) })
        .collect();
    for side in &mut sides {
        (side.run)();
    }
    for round in 0..rounds {
        for turn in 0..sides.len() {
            let at = (round + turn) % sides.len();
            times[at].nanos.push((sides[at].run)());
        }
    }
    Cell { name: name.to_owned(), threads, sides: times }
}

/// Runs `work` on so many threads, which start together, and returns the nanoseconds of the slowest
/// for one of `operations`. Each thread prepares, then calls the function it is given around its work.
pub fn on_threads(
    threads: usize,
    operations: usize,
    work: impl Fn(usize, &dyn Fn(&mut dyn FnMut()) -> Duration) -> Duration + Sync,
) -> f64 {
    let start = Barrier::new(threads);
    let timed = |work: &mut dyn FnMut()| {
        start.wait();
        let begin = Instant::now();
        work();
        begin.elapsed()
    };
    let slowest = if threads == 1 {
        work(0, &timed)
    } else {
        std::thread::scope(|scope| {
            let (work, timed) = (&work, &timed);
            let workers: Vec<_> =
                (0..threads).map(|at| scope.spawn(move || work(at, timed))).collect();
            let times = workers.into_iter().map(|worker| worker.join().expect("no panic"));
            times.max().unwrap_or_default()
        })
    };
    slowest.as_nanos() as f64 / operations as f64
}
