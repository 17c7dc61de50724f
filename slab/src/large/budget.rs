//! How much free memory of the large space may stay populated.
//!
//! Owns the peak over a recent window. What was in use at the same time not long ago was needed, so
//! keeping that much spares its page faults and does not raise the peak; beyond it only a fixed
//! amount stays.

/// Free bytes that may stay populated whatever the peak was.
const FLOOR: u64 = 32 << 20;

/// The largest number of bytes in use lately.
pub(crate) struct Budget {
    /// Largest in the window that runs, and in the one before.
    now: u64,
    before: u64,
    /// When the running window began, in coarse milliseconds.
    began: u32,
}

impl Budget {
    pub(crate) const fn new() -> Self {
        Self { now: 0, before: 0, began: 0 }
    }

    /// Notes what is in use; a window lasts as long as the decay.
    pub(crate) fn note(&mut self, used: u64, now: u32, window: u32) {
        let age = now.wrapping_sub(self.began);
        if age >= window {
            // After a pause of more than a window nothing of before counts.
            self.before = if age / 2 >= window { used } else { self.now };
            self.now = used;
            self.began = now;
        }
        self.now = self.now.max(used);
    }

    /// Free bytes that may stay populated beside `used` ones.
    pub(crate) fn allows(&self, used: u64) -> u64 {
        self.now.max(self.before).saturating_sub(used) + FLOOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_counts_for_its_window_and_the_next() {
        let mut budget = Budget::new();
        budget.note(1 << 30, 5_000, 1_000);
        budget.note(0, 5_500, 1_000);
        assert_eq!(budget.allows(0), (1 << 30) + FLOOR);
        assert_eq!(budget.allows(1 << 29), (1 << 29) + FLOOR);
        budget.note(1 << 20, 6_100, 1_000);
        assert_eq!(budget.allows(1 << 20), (1 << 30) - (1 << 20) + FLOOR);
        budget.note(0, 7_200, 1_000);
        assert_eq!(budget.allows(0), (1 << 20) + FLOOR);
        budget.note(0, 8_300, 1_000);
        assert_eq!(budget.allows(0), FLOOR);
    }

    #[test]
    fn a_peak_before_a_long_pause_does_not_count() {
        let mut budget = Budget::new();
        budget.note(1 << 30, 5_000, 1_000);
        budget.note(0, 9_000, 1_000);
        assert_eq!(budget.allows(0), FLOOR);
        // Nor does the clock's turning over keep one for ever.
        budget.note(1 << 30, u32::MAX - 10, 1_000);
        budget.note(0, 2_500, 1_000);
        assert_eq!(budget.allows(0), FLOOR);
    }
}
