//! The scavenger: a thread that returns free memory while the program does something else.
//!
//! Every pass begins with every epoch domain of the process ([`Domain::maintain`]), whose stalled guards
//! it reports and whose retired objects it reclaims where no guard keeps them; some are blocks, which
//! the pass can give back then. The rest is one [`Heap::scavenge`]: it claims parked and idle shards, drains their inboxes,
//! returns empty slabs and purges what has been free for longer than the heap's decay. Without it
//! the slow paths of the heap do the same, but only for threads that allocate; with it an idle
//! program shrinks, too.
//!
//! It is a thread of its own and not a Tokio task, so that memory comes back even while every
//! worker is stuck in blocking code, the blocking pool is full, or a current-thread runtime is not
//! being driven: moments in which a program holds the most. The thread sleeps between passes and
//! gives its shard back before it does.
//!
//! How often: see [`Config::interval`]. `Pace` holds the rules.

mod pace;

use std::io;
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flagstone_epoch::Domain;
use flagstone_slab::{Heap, thread};
use flagstone_telemetry::{ScavengerSnapshot, did_something};

use crate::heap_ref::HeapRef;
use pace::Pace;

/// Starts a scavenger for the global heap at the default interval.
///
/// # Errors
/// If its thread cannot be started.
///
/// ```
/// let scavenger = flagstone::scavenger::spawn()?;
/// scavenger.wake();
/// scavenger.stop();
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn spawn() -> io::Result<Scavenger> {
    Config::default().spawn()
}

/// Settings of a scavenger.
#[derive(Clone, Debug, Default)]
#[must_use = "a configuration does nothing until it is spawned"]
pub struct Config {
    interval: Option<Duration>,
    heap: HeapRef,
}

impl Config {
    /// Time between two passes, between 1 ms and 1 hour; by default half the heap's decay, read
    /// anew before every pass, and between 10 ms and 10 s.
    ///
    /// After a pass that found nothing the next one comes after twice this time, so that free
    /// memory is back within two decay times; and passes never take more than about a twentieth of
    /// one core.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// The heap to look after; by default the global one.
    pub fn heap(mut self, heap: impl Deref<Target = Heap> + Send + Sync + 'static) -> Self {
        self.heap = HeapRef::new(heap);
        self
    }

    /// Starts the scavenger.
    ///
    /// # Errors
    /// If its thread cannot be started.
    pub fn spawn(self) -> io::Result<Scavenger> {
        let shared = Arc::new(Shared::default());
        let pace = Pace::new(self.interval);
        let thread = std::thread::Builder::new().name("flagstone-scav".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || run(&shared, &self.heap, pace)
        })?;
        Ok(Scavenger { shared, thread: Some(thread) })
    }
}

/// A running scavenger. Dropping it stops it, waiting for a running pass to end.
#[derive(Debug)]
#[must_use = "dropping a scavenger stops it"]
pub struct Scavenger {
    shared: Arc<Shared>,
    /// `None` once it is joined.
    thread: Option<JoinHandle<()>>,
}

impl Scavenger {
    /// A reader of its figures, which stays valid after it has stopped.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures { shared: Arc::clone(&self.shared) }
    }

    /// Asks for a pass now instead of at the next interval. Does not wait for it.
    pub fn wake(&self) {
        self.shared.lock().woken = true;
        self.shared.changed.notify_one();
    }

    /// Stops it, waiting for a running pass to end.
    pub fn stop(self) {}
}

impl Drop for Scavenger {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the scavenger had ended by a panic");
        }
    }
}

/// A reader of a scavenger's figures.
#[derive(Clone, Debug)]
pub struct Figures {
    shared: Arc<Shared>,
}

impl Figures {
    /// What the scavenger has done so far.
    #[must_use]
    pub fn snapshot(&self) -> ScavengerSnapshot {
        self.shared.lock().figures
    }
}

/// What the scavenger's thread and its handles share. The lock is held only to copy or set these
/// fields, never during a pass.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Signalled when `stopping` or `woken` becomes true.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopping: bool,
    woken: bool,
    figures: ScavengerSnapshot,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock; the state is plain values either way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps for `interval` or until woken. False when the scavenger shall end.
    fn sleep(&self, interval: Duration) -> bool {
        let mut state = self.lock();
        state.figures.interval = interval;
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, interval, |s| !s.stopping && !s.woken)
            .unwrap_or_else(PoisonError::into_inner);
        state.woken = false;
        !state.stopping
    }
}

fn run(shared: &Shared, heap: &Heap, mut pace: Pace) {
    while shared.sleep(pace.interval(heap.decay())) {
        let start = Instant::now();
        for domain in Domain::all() {
            domain.maintain();
        }
        let report = heap.scavenge();
        let took = start.elapsed();
        pace.after_pass(took, did_something(&report));
        shared.lock().figures.record(&report, took);
        // What the pass itself allocated must not keep a shard leased while the thread sleeps.
        thread::give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until `is_so`, far longer than it can take.
    fn wait_until(is_so: impl Fn() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < Duration::from_secs(60), "waited for a minute");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn it_passes_again_and_again_until_stopped() {
        let scavenger =
            Config::default().interval(Duration::from_millis(1)).spawn().expect("spawn");
        let figures = scavenger.figures();
        wait_until(|| figures.snapshot().passes >= 3);
        scavenger.stop();
        let stopped = figures.snapshot();
        assert!(stopped.interval >= Duration::from_millis(1));
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(figures.snapshot(), stopped);
    }

    #[test]
    fn waking_brings_the_next_pass_forward() {
        let scavenger =
            Config::default().interval(Duration::from_secs(3600)).spawn().expect("spawn");
        let figures = scavenger.figures();
        for pass in 1..=3 {
            scavenger.wake();
            wait_until(|| figures.snapshot().passes == pass);
        }
    }

    #[test]
    fn a_pass_reclaims_what_no_guard_keeps_in_any_domain() {
        let domain = Domain::new();
        let participant = domain.register();
        let guard = participant.pin();
        participant.defer_drop(Box::new([0u64; 4]));
        participant.flush();
        let scavenger =
            Config::default().interval(Duration::from_millis(1)).spawn().expect("spawn");
        let figures = scavenger.figures();
        wait_until(|| figures.snapshot().passes >= 5);
        assert_eq!(domain.snapshot().pending.blocks, 1);
        drop(guard);
        wait_until(|| domain.snapshot().pending.blocks == 0);
    }

    #[test]
    fn stopping_does_not_wait_for_the_interval() {
        let scavenger =
            Config::default().interval(Duration::from_secs(3600)).spawn().expect("spawn");
        let start = Instant::now();
        drop(scavenger);
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}
