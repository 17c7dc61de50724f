//! Iteration over a database in steps, with clients writing in between.
//!
//! A cursor is a shard and a position below which the shard's table has not been visited. Shards are
//! visited in order, each table from its top position downwards. Positions of entries only ever go
//! down (a removal moves the last entry into the gap, nothing else moves), so an entry that is there
//! all the time and was not visited yet is still below the cursor: it will be visited. One that was
//! visited may move below the cursor and be visited again. That is the promise of `SCAN`: every key
//! that is present from start to end is returned, some perhaps twice.

use super::Db;
use super::expiry::Millis;
use super::shard::Entry;

/// Where a scan goes on. Zero is both the start and the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(u64);

impl Cursor {
    /// The cursor that a client sent back.
    pub fn from_wire(raw: u64) -> Self {
        Self(raw)
    }

    /// The number to send to a client.
    pub fn to_wire(self) -> u64 {
        self.0
    }

    /// Whether the scan is at its start, or through.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// `below`: positions under it are unvisited; `None` stands for all of the shard.
    fn new(shard: usize, below: Option<usize>, shard_bits: u32) -> Self {
        Self((below.unwrap_or(0) as u64) << shard_bits | shard as u64)
    }

    fn split(self, shard_bits: u32) -> (usize, Option<usize>) {
        let shard = (self.0 & ((1 << shard_bits) - 1)) as usize;
        let below = usize::try_from(self.0 >> shard_bits).unwrap_or(usize::MAX);
        (shard, (below != 0).then_some(below))
    }
}

impl Db {
    /// Visits about `count` keys (at least one) and returns where to go on. Each shard is locked for
    /// its part only; `visit` runs under that lock.
    pub fn scan(
        &self,
        cursor: Cursor,
        count: usize,
        now: Millis,
        mut visit: impl FnMut(&[u8], &Entry),
    ) -> Cursor {
        let bits = self.shard_bits();
        let (mut number, mut below) = cursor.split(bits);
        let mut left = count.max(1);
        while number < self.shard_count() {
            let shard = self.shard(number);
            let top = below.take().unwrap_or(usize::MAX).min(shard.len());
            let bottom = top.saturating_sub(left);
            for index in (bottom..top).rev() {
                if let Some((key, entry)) = shard.at(index)
                    && !entry.is_expired(now)
                {
                    visit(key, entry);
                }
            }
            left -= top - bottom;
            if bottom > 0 {
                return Cursor::new(number, Some(bottom), bits);
            }
            number += 1;
            if left == 0 {
                break;
            }
        }
        if number >= self.shard_count() { Cursor(0) } else { Cursor::new(number, None, bits) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Keyspace;
    use super::super::value::Value;
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn an_empty_database_is_through_at_once() {
        let keyspace = Keyspace::new(1, 64);
        let cursor = keyspace.db(0).scan(Cursor::default(), 10, 0, |_, _| panic!("no key"));
        assert!(cursor.is_zero());
    }

    #[test]
    fn any_number_is_a_cursor_that_ends() {
        let keyspace = Keyspace::new(1, 4);
        let db = keyspace.db(0);
        for i in 0..100u32 {
            let key = i.to_le_bytes();
            let key = db.key(&key);
            db.lock(&key).set(&key, Value::Int(0), None, 0);
        }
        for raw in [1, 3, 4, 5, 1 << 40, u64::MAX - 3, u64::MAX] {
            let mut cursor = Cursor::from_wire(raw);
            let mut steps = 0;
            while !cursor.is_zero() {
                cursor = db.scan(cursor, 10, 0, |_, _| {});
                steps += 1;
                assert!(steps < 100);
            }
        }
    }

    proptest! {
        /// The promise, with inserts and removals between the steps.
        #[test]
        fn keys_that_stay_are_returned(
            stay in prop::collection::hash_set(0u32..1000, 0..200),
            changes in prop::collection::vec((any::<bool>(), 0u32..1000), 0..600),
            count in 1usize..20,
            per_step in 0usize..30,
        ) {
            let keyspace = Keyspace::new(1, 4);
            let db = keyspace.db(0);
            let set = |n: u32| {
                let bytes = n.to_le_bytes();
                let key = db.key(&bytes);
                db.lock(&key).set(&key, Value::Int(0), None, 0);
            };
            let remove = |n: u32| {
                let bytes = n.to_le_bytes();
                let key = db.key(&bytes);
                db.lock(&key).remove(&key, 0);
            };
            for n in 0..500 {
                set(n);
            }
            stay.iter().for_each(|&n| set(n));
            let mut changes = changes.into_iter().filter(|(_, n)| !stay.contains(n));
            let mut seen = HashSet::new();
            let mut cursor = Cursor::default();
            loop {
                cursor = db.scan(cursor, count, 0, |key, _| {
                    seen.insert(u32::from_le_bytes(key.try_into().unwrap()));
                });
                if cursor.is_zero() {
                    break;
                }
                for (insert, n) in changes.by_ref().take(per_step) {
                    if insert { set(n) } else { remove(n) }
                }
            }
            prop_assert!(stay.is_subset(&seen), "missing: {:?}", stay.difference(&seen));
        }
    }
}
