//! Which handed-over batches a barrier waits for: counts of batches in flight, kept for two eras.
//!
//! Owns the current era and one count for each parity. A batch enters the current era when it is
//! handed over and leaves the same era when it has been reclaimed. Protocol of a barrier: it waits
//! until each parity has been zero at some moment after the barrier began (rule B1); the flip between
//! the two waits sends new batches to the parity that is already done, so the waits end (rule B2).
//! The two counters and the flip are those of sleepable RCU (SRCU, McKenney 2006).

use crate::sync::{AtomicU64, Ordering, weakened};

/// The parity of the era that a batch entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Era(u8);

impl Era {
    /// The parity of an era number, or of the bit that a batch carries.
    pub fn of(number: u64) -> Self {
        Self((number & 1) as u8)
    }

    /// The parity as a number, 0 or 1.
    pub fn parity(self) -> u64 {
        u64::from(self.0)
    }

    fn other(self) -> Self {
        Self(self.0 ^ 1)
    }

    fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Counts of batches in flight.
#[derive(Debug)]
pub struct Eras {
    current: AtomicU64,
    in_flight: [AtomicU64; 2],
}

impl Eras {
    /// No batch in flight.
    pub fn new() -> Self {
        Self { current: AtomicU64::new(0), in_flight: [AtomicU64::new(0), AtomicU64::new(0)] }
    }

    /// Counts a batch in, and says which era it has to leave.
    pub fn enter(&self) -> Era {
        // Relaxed: a stale era is allowed. The batch is then counted under the other parity, and
        // rule B1 waits for both.
        let era = Era::of(self.current.load(Ordering::Relaxed));
        // Relaxed: whoever must see this batch learns of it through `Record::handed` (release) or
        // through synchronisation of its own, and coherence shows it this addition then.
        self.in_flight[era.index()].fetch_add(1, Ordering::Relaxed);
        era
    }

    /// Counts a batch out, after the last of its objects has been reclaimed.
    pub fn leave(&self, era: Era) {
        // Release: pairs with the acquire load in `is_drained`. When the barrier reads zero, every
        // reclaim has happened before it returns; when it reads more, it goes on waiting.
        let before = self.in_flight[era.index()].fetch_sub(1, Ordering::Release);
        debug_assert!(before > 0, "a batch left an era that it had not entered");
    }

    /// Batches in flight, both eras together.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn is_drained(&self, era: Era) -> bool {
        // Acquire: pairs with the release in `leave`; the read-modify-writes between the two carry
        // its release sequence on.
        self.in_flight[era.index()].load(Ordering::Acquire) == 0
    }
}

/// One barrier's way through the two waits. One at a time per [`Eras`]: a second one's flips could
/// keep the first waiting (it would stay correct).
#[derive(Debug)]
pub struct Drain {
    era: Era,
    flipped: bool,
}

impl Drain {
    /// Begins a barrier: batches that entered before this call are waited for.
    pub fn start(eras: &Eras) -> Self {
        Self { era: Era::of(eras.current.load(Ordering::Relaxed)), flipped: false }
    }

    /// True once every batch that entered before [`start`](Self::start) has left.
    pub fn poll(&mut self, eras: &Eras) -> bool {
        if !self.flipped {
            let skip = weakened("barrier_one_parity");
            if !skip && !eras.is_drained(self.era.other()) {
                return false;
            }
            // Relaxed: only steers new batches (rule B2); no memory is published by it.
            eras.current.fetch_add(1, Ordering::Relaxed);
            self.flipped = true;
        }
        eras.is_drained(self.era)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(drain: &mut Drain, eras: &Eras) -> bool {
        drain.poll(eras)
    }

    #[test]
    fn waits_for_a_batch_of_either_parity() {
        let eras = Eras::new();
        let first = eras.enter();
        let mut drain = Drain::start(&eras);
        assert!(!drained(&mut drain, &eras), "the flip is made, the batch is still there");
        let second = eras.enter();
        assert_ne!(first, second, "new batches go to the other parity");
        eras.leave(first);
        assert!(drained(&mut drain, &eras), "a batch that came later is not waited for");

        let mut next = Drain::start(&eras);
        assert!(!drained(&mut next, &eras));
        eras.leave(second);
        assert!(drained(&mut next, &eras));
    }

    #[test]
    fn a_batch_counted_under_a_stale_parity_is_waited_for() {
        let eras = Eras::new();
        // Flip once with nothing in flight, then enter as one who read the era before the flip.
        assert!(drained(&mut Drain::start(&eras), &eras));
        eras.in_flight[0].fetch_add(1, Ordering::Relaxed);
        let mut drain = Drain::start(&eras);
        assert!(!drained(&mut drain, &eras));
        eras.leave(Era::of(0));
        assert!(drained(&mut drain, &eras));
    }
}
