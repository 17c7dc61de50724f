//! `FLUSHALL` and `FLUSHDB`: every key of a database gone at one moment.
//!
//! One word says so: the number of flushes, which every table has from the time it was made. The writer
//! who raises it holds all locks of the database and then takes the tables out; readers who still find
//! one see that it is too old. The entries are retired afterwards, with no lock held and in steps, so
//! that no guard is held for long.

use std::sync::Arc;

use flagstone::epoch::Guard;
use flagstone::typed::Key as SlotKey;

use super::Db;
use super::shard::{Locked, pause};
use super::store::Store;

/// Entries that are retired under one guard.
const STEP: usize = 1024;

/// Tables that nobody finds any more. Dropping it retires their entries.
#[derive(Debug)]
#[must_use = "dropping it takes time: the entries are retired one by one"]
pub struct Flushed {
    store: Arc<Store>,
    tables: Vec<SlotKey>,
}

impl Db {
    /// Takes every key out of all shards at one moment and returns what was there, for the caller to
    /// drop where that may take its time.
    pub fn take_all(&self, guard: &Guard<'_>) -> Flushed {
        let lock = |part| super::Part::lock(part, self.shared(guard));
        let mut locked: Vec<Locked<'_>> = self.parts.iter().map(lock).collect();
        self.flushes.set(self.flushes.get() + 1);
        pause::here();
        let mut tables = Vec::new();
        for shard in &mut locked {
            tables.extend(shard.take_table());
            pause::here();
        }
        Flushed { store: Arc::clone(&self.store), tables }
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        let Self { store, tables } = self;
        // A participant of its own: this may run on a thread of the blocking pool.
        let participant = store.domain.register();
        for slot in tables.drain(..) {
            let mut next = Vec::new();
            {
                let guard = participant.pin();
                if let Some(table) = store.tables.get(slot, &guard) {
                    next.extend(table.slots().map(|(_, slot)| slot));
                }
                store.retire_table(slot, &guard);
            }
            for step in next.chunks(STEP) {
                let guard = participant.pin();
                for slot in step {
                    let bytes = store.entries.get(*slot, &guard).map_or(0, |e| e.heap_bytes());
                    store.retire(*slot, bytes, &guard);
                }
            }
        }
        // What no reader holds is freed now.
        participant.collect();
    }
}
