//! What counts against a domain's hard limit: bytes reserved by open and handed-over batches.
//!
//! Owns one word. The protocol: bytes are reserved *before* an object joins a batch and released
//! *after* its batch has been reclaimed, so the sum of pending bytes never passes the limit, whatever
//! the interleaving (rule L1). A participant reserves a whole batch's worth at once, which keeps the
//! read-modify-write off the path of a single retire; what a batch did not use goes back when it is
//! handed over.

use crate::sync::{AtomicU64, Ordering, weakened};

/// The account of reserved bytes.
#[derive(Debug)]
pub struct Ledger {
    reserved: AtomicU64,
    limit: u64,
}

impl Ledger {
    /// An empty account that [`try_reserve`](Self::try_reserve) keeps at or below `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { reserved: AtomicU64::new(0), limit }
    }

    /// Bytes reserved now.
    pub fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    /// The limit in bytes; `u64::MAX` when there is none.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Reserves `bytes`, or says how many are reserved when that would pass the limit.
    pub fn try_reserve(&self, bytes: u64) -> Result<(), u64> {
        let mut reserved = self.reserved.load(Ordering::Relaxed);
        loop {
            let sum = match reserved.checked_add(bytes) {
                Some(sum) if sum <= self.limit => sum,
                _ => return Err(reserved),
            };
            if weakened("ledger_check_then_store") {
                self.reserved.store(sum, Ordering::Relaxed);
                return Ok(());
            }
            // Relaxed: the word guards a number, not memory. The check and the update are one
            // compare-exchange, so two reservations cannot both take the last bytes.
            match self.reserved.compare_exchange_weak(
                reserved,
                sum,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(()),
                Err(now) => reserved = now,
            }
        }
    }

    /// Reserves `bytes` whatever the limit: for the retire that may not refuse.
    pub fn reserve(&self, bytes: u64) {
        // Relaxed: as in `try_reserve`.
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back `bytes` reserved earlier.
    pub fn release(&self, bytes: u64) {
        // Relaxed: as in `try_reserve`.
        let before = self.reserved.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "released {bytes} of {before} reserved bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_past_the_limit_and_takes_up_to_it() {
        let ledger = Ledger::new(100);
        assert_eq!(ledger.try_reserve(60), Ok(()));
        assert_eq!(ledger.try_reserve(41), Err(60));
        assert_eq!(ledger.try_reserve(40), Ok(()));
        ledger.release(100);
        assert_eq!(ledger.reserved(), 0);
    }

    #[test]
    fn a_sum_that_overflows_is_refused() {
        let ledger = Ledger::new(u64::MAX);
        assert_eq!(ledger.try_reserve(u64::MAX), Ok(()));
        assert_eq!(ledger.try_reserve(1), Err(u64::MAX));
    }

    #[test]
    fn reserve_passes_the_limit() {
        let ledger = Ledger::new(10);
        ledger.reserve(25);
        assert_eq!(ledger.reserved(), 25);
        assert_eq!(ledger.try_reserve(0), Err(25));
        ledger.release(25);
        assert_eq!(ledger.try_reserve(10), Ok(()));
    }
}
