//! Iteration over a database in steps, with clients writing in between.
//!
//! A cursor is a shard and a place in the order of hashes: the entries of that shard whose hashes come
//! before it have been visited. Shards are visited in order. A table of any size has its entries in this
//! order by home, so a cursor means the same whatever became of the table meanwhile. That is the promise of
//! `SCAN`: every key that is present from start to end is returned. It is returned once, unless it was
//! removed and set again.
//!
//! A step holds a guard and takes no lock.

use flagstone::epoch::Guard;

use super::Db;
use super::entry::Entry;
use super::expiry::Millis;

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

    fn new(shard: usize, from: u32, shard_bits: u32) -> Self {
        Self(u64::from(from) << shard_bits | shard as u64)
    }

    fn split(self, shard_bits: u32) -> (usize, u32) {
        let shard = (self.0 & ((1 << shard_bits) - 1)) as usize;
        (shard, u32::try_from(self.0 >> shard_bits).unwrap_or(u32::MAX))
    }
}

impl Db {
    /// Visits about `count` keys (at least one) and returns where to go on.
    pub fn scan(
        &self,
        cursor: Cursor,
        count: usize,
        now: Millis,
        guard: &Guard<'_>,
        mut visit: impl FnMut(&[u8], &Entry),
    ) -> Cursor {
        let bits = self.parts.len().trailing_zeros();
        let (mut number, mut from) = cursor.split(bits);
        let mut left = count.max(1);
        while number < self.parts.len() {
            let (entries, next) = self.scan_part(number, from, left, guard);
            for entry in &entries {
                if !entry.is_expired(now) {
                    visit(entry.name(), entry);
                }
            }
            left = left.saturating_sub(entries.len());
            match next {
                Some(next) => return Cursor::new(number, next, bits),
                None => (number, from) = (number + 1, 0),
            }
            if left == 0 {
                break;
            }
        }
        if number >= self.parts.len() { Cursor(0) } else { Cursor::new(number, 0, bits) }
    }

    /// About `count` entries of a shard, and where to go on there.
    fn scan_part<'g>(
        &'g self,
        number: usize,
        from: u32,
        count: usize,
        guard: &'g Guard<'_>,
    ) -> (Vec<&'g Entry>, Option<u32>) {
        let store = &*self.store;
        loop {
            let Some(table) = self.parts[number].table(store, &self.flushes, guard) else {
                return (Vec::new(), None);
            };
            let mut entries = Vec::new();
            let mut over = false;
            let visited =
                table.visit(&store.entries, from, count, guard, |slot, entry| {
                    match store.seen(slot, entry, guard) {
                        Ok(seen) => entries.extend(seen.map(|(_, entry)| entry)),
                        Err(_) => over = true,
                    }
                });
            match visited {
                Ok(visited) if !over => return (entries, visited.next),
                _ => std::hint::spin_loop(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Keyspace;
    use super::super::entry::Entry;
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn set(keyspace: &Keyspace, n: u32) {
        let (db, bytes) = (keyspace.db(0), n.to_le_bytes());
        let key = db.key(&bytes);
        let entry = Entry::integer(&key, 0, None);
        keyspace.with_participant(|p| db.lock(&key, &p.pin()).set(&key, entry, 0));
    }

    fn step(keyspace: &Keyspace, from: Cursor, count: usize, mut see: impl FnMut(u32)) -> Cursor {
        keyspace.with_participant(|p| {
            keyspace.db(0).scan(from, count, 0, &p.pin(), |key, _| {
                see(u32::from_le_bytes(key.try_into().unwrap()));
            })
        })
    }

    #[test]
    fn an_empty_database_is_through_at_once() {
        let keyspace = Keyspace::new(1, 64);
        let cursor = step(&keyspace, Cursor::default(), 10, |_| panic!("no key"));
        assert!(cursor.is_zero());
    }

    #[test]
    fn any_number_is_a_cursor_that_ends() {
        let keyspace = Keyspace::new(1, 4);
        for i in 0..100u32 {
            set(&keyspace, i);
        }
        for raw in [1, 3, 4, 5, 1 << 40, u64::MAX - 3, u64::MAX] {
            let mut cursor = Cursor::from_wire(raw);
            let mut steps = 0;
            while !cursor.is_zero() {
                cursor = step(&keyspace, cursor, 10, |_| {});
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
            let set = |n: u32| set(&keyspace, n);
            let remove = |n: u32| {
                let (db, bytes) = (keyspace.db(0), n.to_le_bytes());
                let key = db.key(&bytes);
                keyspace.with_participant(|p| db.lock(&key, &p.pin()).remove(&key, 0).is_some());
            };
            for n in 0..500 {
                set(n);
            }
            stay.iter().for_each(|&n| set(n));
            let mut changes = changes.into_iter().filter(|(_, n)| !stay.contains(n));
            let mut seen = HashSet::new();
            let mut cursor = Cursor::default();
            loop {
                cursor = step(&keyspace, cursor, count, |n| {
                    assert!(seen.insert(n) || !stay.contains(&n), "{n} came twice");
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
