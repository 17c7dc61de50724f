//! The counted lock: a mutex that knows how often it was taken, waited for and held.
//!
//! Owns a `Mutex` and jemalloc's set of counters (requirement D7). Protocol: `try_lock` first; only
//! when that fails does the clock run for the wait. The counters are written under the held lock, so
//! they need no atomic read-modify-write; readers take no lock. Waits are exact; holds are measured
//! on one acquisition in [`HOLD_SAMPLE`] and scaled, because two clock calls would cost more than
//! most of the sections they time.
//!
//! The order of writes makes promises to readers: `acquisitions` is written before the waits, their sum
//! before the longest, that before `contended`, and they are read in the opposite order. So a snapshot
//! never shows more contended than acquired, no longest wait above the sum, and no contended
//! acquisition whose wait is not in the sum. Model: `slab_lock`.

use std::ops::{Deref, DerefMut};

use crate::counter::{Counter, OrderedCounter, SharedCounter};
use crate::stats::{LockSite, LockSnapshot};
use crate::sync::{Mutex, MutexGuard, TryLockError, const_off_loom};

/// One acquisition in this many has its hold time measured.
pub(crate) const HOLD_SAMPLE: u64 = if cfg!(flagstone_loom) { 2 } else { 16 };
/// A wait above this many nanoseconds counts as contended, unless configured.
pub(crate) const CONTENDED_NANOS: u64 = 1_000;

/// A mutex with counters.
pub(crate) struct CountedLock<T> {
    inner: Mutex<T>,
    stats: LockStats,
}

/// Counters of one lock. Written by the lock's holder.
#[derive(Debug)]
pub(crate) struct LockStats {
    acquisitions: OrderedCounter,
    contended: OrderedCounter,
    wait_nanos: OrderedCounter,
    max_wait_nanos: OrderedCounter,
    hold_nanos: Counter,
}

/// The waits above which locks count as contended; shared by the locks of a heap.
#[derive(Debug)]
pub(crate) struct ContentionThreshold(SharedCounter);

impl ContentionThreshold {
    /// Starts at [`CONTENDED_NANOS`]; zero stands for that so that it can live in a zeroed static.
    pub(crate) const fn new() -> Self {
        Self(SharedCounter::new())
    }

    fn nanos(&self) -> u64 {
        match self.0.get() {
            0 => CONTENDED_NANOS,
            n => n,
        }
    }

    /// Sets the threshold; zero brings the default back.
    pub(crate) fn set_nanos(&self, nanos: u64) {
        self.0.set(nanos);
    }
}

/// The lock, held.
pub(crate) struct Held<'a, T> {
    guard: MutexGuard<'a, T>,
    stats: &'a LockStats,
    /// When the hold began, if it is measured.
    since: Option<u64>,
}

impl<T> CountedLock<T> {
    const_off_loom! {
        pub(crate) fn new(value: T) -> Self {
            Self { inner: Mutex::new(value), stats: LockStats::new() }
        }
    }

    /// Takes the lock. A poisoned lock is taken like any other: the sections it guards do not
    /// panic, and if one did, refusing every later allocation would help nobody.
    #[inline]
    pub(crate) fn lock(&self, threshold: &ContentionThreshold) -> Held<'_, T> {
        let guard = match self.inner.try_lock() {
            Ok(guard) => {
                self.stats.acquisitions.add(1);
                guard
            }
            Err(TryLockError::Poisoned(poisoned)) => {
                self.stats.acquisitions.add(1);
                poisoned.into_inner()
            }
            Err(TryLockError::WouldBlock) => self.wait(threshold),
        };
        let sampled = self.stats.acquisitions.get().is_multiple_of(HOLD_SAMPLE);
        Held { guard, stats: &self.stats, since: sampled.then(now) }
    }

    /// Takes the lock if nobody has it, uncounted: for a signal handler.
    pub(crate) fn try_lock(&self) -> Option<Held<'_, T>> {
        let guard = match self.inner.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Held { guard, stats: &self.stats, since: None })
    }

    #[cold]
    fn wait(&self, threshold: &ContentionThreshold) -> MutexGuard<'_, T> {
        let start = now();
        let guard = self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let waited = now().saturating_sub(start);
        let stats = &self.stats;
        stats.acquisitions.add(1);
        stats.wait_nanos.add_after(waited);
        stats.max_wait_nanos.raise_after(waited);
        if waited > threshold.nanos() {
            stats.contended.add_after(1);
        }
        guard
    }

    /// The counters, without the lock.
    pub(crate) fn snapshot(&self, site: LockSite) -> LockSnapshot {
        self.stats.snapshot(site)
    }
}

impl LockStats {
    const_off_loom! {
        fn new() -> Self {
            Self {
                acquisitions: OrderedCounter::new(),
                contended: OrderedCounter::new(),
                wait_nanos: OrderedCounter::new(),
                max_wait_nanos: OrderedCounter::new(),
                hold_nanos: Counter::new(),
            }
        }
    }

    fn snapshot(&self, site: LockSite) -> LockSnapshot {
        // In this order: see the promises at the top.
        let contended = self.contended.get_before();
        let max_wait_nanos = self.max_wait_nanos.get_before();
        let wait_nanos = self.wait_nanos.get_before();
        LockSnapshot {
            contended,
            acquisitions: self.acquisitions.get(),
            wait_nanos,
            max_wait_nanos,
            hold_nanos: self.hold_nanos.get(),
            ..LockSnapshot::new(site)
        }
    }
}

impl<T> Held<'_, T> {
    /// The same hold, left out of the hold times.
    pub(crate) fn untimed(mut self) -> Self {
        self.since = None;
        self
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T> Drop for Held<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(since) = self.since {
            self.stats.hold_nanos.add(now().saturating_sub(since) * HOLD_SAMPLE);
        }
    }
}

#[cfg(not(flagstone_loom))]
fn now() -> u64 {
    crate::os::nanos()
}

/// In a model every look at the clock finds it further on, by more than the threshold.
#[cfg(flagstone_loom)]
fn now() -> u64 {
    use crate::sync::process::AtomicUsize;

    static LOOKS: AtomicUsize = AtomicUsize::new(0);
    LOOKS.fetch_add(1, crate::sync::Ordering::Relaxed) as u64 * (CONTENDED_NANOS + 1)
}

/// What models see of the lock's statistics.
#[cfg(flagstone_loom)]
pub struct StatedLock {
    lock: CountedLock<()>,
    threshold: ContentionThreshold,
}

#[cfg(flagstone_loom)]
#[allow(clippy::new_without_default, missing_docs, reason = "seen by models only")]
impl StatedLock {
    pub fn new() -> Self {
        Self { lock: CountedLock::new(()), threshold: ContentionThreshold::new() }
    }

    pub fn take_and_let_go(&self) {
        drop(self.lock.lock(&self.threshold));
    }

    pub fn snapshot(&self) -> LockSnapshot {
        self.lock.snapshot(LockSite::Segments)
    }
}

#[cfg(all(test, not(flagstone_loom)))]
mod tests {
    use super::*;

    // requirement: D7
    #[test]
    fn acquisitions_are_exact_and_a_long_wait_is_contended() {
        let lock = CountedLock::new(0u64);
        let threshold = ContentionThreshold::new();
        std::thread::scope(|scope| {
            let held = lock.lock(&threshold);
            let waiter = scope.spawn(|| *lock.lock(&threshold) += 1);
            // The waiter's first `try_lock` fails only while we hold the lock, so hold it until
            // the waiter has surely had the time to try.
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!waiter.is_finished());
            drop(held);
        });
        for _ in 0..98 {
            *lock.lock(&threshold) += 1;
        }
        let seen = lock.snapshot(LockSite::Segments);
        assert_eq!(seen.acquisitions, 100);
        assert_eq!(seen.contended, 1);
        assert!(seen.wait_nanos >= seen.max_wait_nanos && seen.max_wait_nanos > CONTENDED_NANOS);
        assert!(seen.hold_nanos > 0, "one acquisition in {HOLD_SAMPLE} is timed");
        threshold.set_nanos(u64::MAX);
        assert_eq!(threshold.nanos(), u64::MAX);
        threshold.set_nanos(0);
        assert_eq!(threshold.nanos(), CONTENDED_NANOS);
    }
}
