//! Which keys of a shard are due next.
//!
//! A heap of (deadline, key hash), 16 bytes each. An entry is a hint, not a fact: the key may have
//! been deleted, or have another deadline by now, and the shard checks before it removes anything.
//! Stale hints are swept when they outnumber the keys that have a deadline, so the heap stays within
//! twice their number. Two keys with the same 64-bit hash share a hint; the one that a lookup by hash
//! does not find expires when it is next touched.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Milliseconds since the Unix epoch.
pub type Millis = u64;

/// Heaps of at most this many hints are not swept.
const SWEEP_FROM: usize = 64;

/// Deadlines of one shard.
#[derive(Debug, Default)]
pub struct Deadlines {
    hints: BinaryHeap<Reverse<(Millis, u64)>>,
}

impl Deadlines {
    /// Remembers that the key with this hash has a deadline.
    pub fn add(&mut self, at: Millis, hash: u64) {
        self.hints.push(Reverse((at, hash)));
    }

    /// Takes the hash of a key whose deadline may have passed.
    pub fn pop_due(&mut self, now: Millis) -> Option<u64> {
        let Reverse((at, _)) = self.hints.peek()?;
        if *at > now {
            return None;
        }
        self.hints.pop().map(|Reverse((_, hash))| hash)
    }

    /// Sweeps stale hints if they are more than the `live` keys that have a deadline.
    pub fn sweep(&mut self, live: usize, is_true: impl Fn(Millis, u64) -> bool) {
        if self.hints.len() <= SWEEP_FROM.max(2 * live) {
            return;
        }
        self.hints.retain(|Reverse((at, hash))| is_true(*at, *hash));
        self.hints.shrink_to(2 * self.hints.len());
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.hints = BinaryHeap::new();
    }

    /// Bytes of the heap that the hints take.
    pub fn heap_bytes(&self) -> usize {
        self.hints.capacity() * size_of::<(Millis, u64)>()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.hints.len()
    }
}
