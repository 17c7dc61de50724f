//! A class's high-water marks: most blocks in use ever, and since readers last asked for a new window.
//!
//! Owns the marks, and the sum of what shards have told of their blocks in use. Protocol: shards count
//! for themselves and tell of what changed now and then, each by an exchange on the sum; who told asks
//! all shards if the sum is above a mark. A reader that starts a window takes the mark down and then
//! takes part in the order of these exchanges too, so that for every note one of two things is true:
//!
//! * it told before the reader did: then the reader sees its blocks, and the new mark counts them;
//! * it told after: then it finds the mark down, and raises it.
//!
//! Several readers may do so at once; marks are raised by exchanges, so none takes down what another has
//! seen in use since. What was in use only before a window began is in no later mark.

use crate::sync::{AtomicU64, Ordering, const_off_loom, weakened};

/// The marks of one class. All figures are blocks.
pub struct HighWater {
    /// What shards have told of, modulo 2^64.
    told: AtomicU64,
    lifetime: AtomicU64,
    window: AtomicU64,
}

impl HighWater {
    const_off_loom! {
        /// Marks of a class of which nothing was ever in use.
        pub fn new() -> Self {
            Self {
                told: AtomicU64::new(0),
                lifetime: AtomicU64::new(0),
                window: AtomicU64::new(0),
            }
        }
    }

    /// Tells of a change in blocks in use, modulo 2^64; returns what was told in all.
    pub fn tell(&self, change: u64) -> u64 {
        let order =
            if weakened("marks_told_relaxed") { Ordering::Relaxed } else { Ordering::AcqRel };
        // Release and acquire pair among all who tell: of two the later sees the counters of the
        // earlier, and a mark that the earlier took down.
        self.told.fetch_add(change, order).wrapping_add(change)
    }

    /// Tells of a change, and raises the marks if they look too low: `elsewhere` is in use beside what
    /// was told, `room` is the most that can be, and `in_use` counts.
    pub fn note(&self, change: u64, elsewhere: u64, room: u64, in_use: impl FnOnce() -> u64) {
        let about = self.tell(change).wrapping_add(elsewhere) as i64;
        // Relaxed: ordered by the exchange above.
        let lifetime = self.lifetime.load(Ordering::Relaxed);
        let mark = lifetime.min(self.window.load(Ordering::Relaxed));
        if about > mark as i64 && room > mark {
            self.witness(in_use().min(room));
        }
    }

    /// Raises the marks to what was seen in use; returns them, the lifetime's first. Relaxed: an
    /// exchange works on the latest value, and what is raised stands for itself.
    pub fn witness(&self, in_use: u64) -> (u64, u64) {
        if weakened("marks_raised_by_store") {
            let raise = |mark: &AtomicU64| {
                let raised = mark.load(Ordering::Relaxed).max(in_use);
                mark.store(raised, Ordering::Relaxed);
                raised
            };
            return (raise(&self.lifetime), raise(&self.window));
        }
        let lifetime = self.lifetime.fetch_max(in_use, Ordering::Relaxed).max(in_use);
        (lifetime, self.window.fetch_max(in_use, Ordering::Relaxed).max(in_use))
    }

    /// Starts a new window with what is in use, which `in_use` counts.
    #[cfg(flagstone_loom)]
    pub fn start_window(&self, in_use: impl FnOnce() -> u64) {
        if weakened("marks_reset_by_store") {
            return self.window.store(in_use(), Ordering::Relaxed);
        }
        self.open_window();
        self.witness_in_window(in_use());
    }

    /// Takes the window's mark down. To be raised by [`witness_in_window`](Self::witness_in_window) to what is
    /// in use, counted from now on.
    pub fn open_window(&self) {
        // Relaxed: ordered by the exchange in `tell`. Itself an exchange, as all that happens to the mark.
        self.window.swap(0, Ordering::Relaxed);
        self.tell(0);
    }

    /// Raises the window's mark to what was counted since it was taken down. Relaxed, as in
    /// [`witness`](Self::witness).
    pub fn witness_in_window(&self, in_use: u64) {
        self.window.fetch_max(in_use, Ordering::Relaxed);
    }
}
