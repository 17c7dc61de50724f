//! Changes of several keys that readers see as a whole or not at all: `MSET`, `DEL` of several keys.
//!
//! The writer holds the locks of all shards. Every new entry leads to the change while it is *pending*, and
//! says what the key held before; readers who meet such an entry take what was before. One word then ends
//! it for all keys at once: the flag that all of them lead to. Deletions are entries that say so, until
//! they are seen; then they are taken out.

use std::collections::TryReserveError;
use std::sync::Arc;

use flagstone::epoch::Guard;
use flagstone::typed::Key as SlotKey;

use super::entry::{Entry, Pending};
use super::expiry::Millis;
use super::shard::{Key, Locked, pause};
use super::store::New;
use super::{Db, LockedMany};
use crate::sync::Flag;

/// A change under way.
struct Change<'a> {
    db: &'a Db,
    guard: &'a Guard<'a>,
    done: Arc<Flag>,
    entries: Vec<(SlotKey, &'a Entry)>,
}

impl Db {
    /// Puts a string under each key, all at once. Of several for one key the last counts.
    ///
    /// # Errors
    /// There is no memory for the copies. Nothing has changed.
    pub fn set_many<'a>(
        &'a self,
        pairs: &[(Key<'_>, &[u8])],
        now: Millis,
        guard: &'a Guard<'a>,
    ) -> Result<(), TryReserveError> {
        let keys: Vec<Key<'_>> = pairs.iter().map(|(key, _)| *key).collect();
        let last = last_of_each(&keys);
        let entry = |at: usize| Entry::try_string(&pairs[at].0, pairs[at].1, None);
        if let [only] = last[..] {
            self.set(&keys[only], entry(only)?, now, guard);
            return Ok(());
        }
        // Before locking: the copies are the expensive part, and may be refused.
        let entries = last.iter().map(|at| entry(*at)).collect::<Result<Vec<Entry>, _>>()?;
        let entries: Vec<New<'a>> =
            entries.into_iter().map(|entry| self.store.insert(entry, guard)).collect();
        let mut shards = self.lock_many(&keys, guard);
        let mut change = Change::new(self, guard);
        for (at, new) in last.into_iter().zip(entries) {
            change.put(shards.of(&keys[at]), &keys[at], new, now);
        }
        change.finish();
        Ok(())
    }

    /// Takes the keys out, all at once. Returns how many were there.
    pub fn remove_many<'a>(&'a self, keys: &[Key<'_>], now: Millis, guard: &'a Guard<'a>) -> usize {
        if let [key] = keys {
            return usize::from(self.lock(key, guard).remove(key, now).is_some());
        }
        let mut shards = self.lock_many(keys, guard);
        let mut there = last_of_each(keys);
        there.retain(|at| shards.of(&keys[*at]).live(&keys[*at], now).is_some());
        if there.len() > 1 {
            let mut change = Change::new(self, guard);
            for at in &there {
                let new = self.store.insert(Entry::gone(&keys[*at]), guard);
                change.put(shards.of(&keys[*at]), &keys[*at], new, now);
            }
            change.finish();
        }
        for at in &there {
            remove_from(&mut shards, &keys[*at], now);
        }
        there.len()
    }
}

fn remove_from(shards: &mut LockedMany<'_>, key: &Key<'_>, now: Millis) {
    let shard = shards.of(key);
    if let Some(found) = shard.live(key, now) {
        shard.take(found);
    }
}

impl<'a> Change<'a> {
    fn new(db: &'a Db, guard: &'a Guard<'a>) -> Self {
        Self { db, guard, done: Arc::default(), entries: Vec::new() }
    }

    fn put(&mut self, shard: &mut Locked<'a>, key: &Key<'_>, new: New<'a>, now: Millis) {
        let found = shard.live(key, now);
        let pending =
            Pending { done: Arc::clone(&self.done), before: found.map(|found| found.slot) };
        let pending = self.db.store.pending.insert(pending, self.guard);
        new.entry.pending.store(Some(pending));
        shard.put(key, new, found);
        self.entries.push((pending, new.entry));
    }

    /// From here on the change is seen. The entries lead nowhere any more before the links are removed:
    /// who finds a link gone finds the entry without it.
    fn finish(self) {
        pause::here();
        self.done.raise();
        pause::here();
        for (pending, entry) in self.entries {
            entry.pending.store(None);
            self.db.store.pending.remove(pending, self.guard);
        }
    }
}

/// Positions of the last of equal keys, in no particular order.
fn last_of_each(keys: &[Key<'_>]) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..keys.len()).collect();
    positions.sort_unstable_by_key(|at| (keys[*at].hash, keys[*at].bytes, std::cmp::Reverse(*at)));
    positions.dedup_by_key(|at| (keys[*at].hash, keys[*at].bytes));
    positions
}
