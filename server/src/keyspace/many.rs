//! Reads of several keys at one moment: `MGET`, `EXISTS`.
//!
//! The keys are looked up twice. If every one of them holds the same entry both times, then all held
//! these at any moment between the two, for an entry's name in the slab is given once. An integer that
//! changes in place counts as the same if its shard's count of such changes has not moved either.
//!
//! Else it looks again; only writers who get on can make it do so. Where they do so again and again, it
//! takes the locks, for which it then waits no longer than those writers do. A writer that is held in the
//! middle of a write changes nothing, and keeps no reader waiting.

use flagstone::epoch::Guard;
use flagstone::typed::Key as SlotKey;

use super::Db;
use super::entry::Entry;
use super::expiry::Millis;
use super::shard::Key;
use super::value::Value;

/// Looks after which the locks are taken.
const MOST_LOOKS: usize = 64;

/// What a key held.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'g> {
    slot: SlotKey,
    entry: &'g Entry,
    number: Option<i64>,
    version: u64,
}

impl<'g> Seen<'g> {
    /// The number, of a value that is kept as one.
    pub fn number(&self) -> Option<i64> {
        self.number
    }

    /// The entry. The number in it may be a later one.
    pub fn entry(&self) -> &'g Entry {
        self.entry
    }

    fn is_as_in(&self, other: &Self) -> bool {
        (self.slot, self.number) == (other.slot, other.number)
            && (self.number.is_none() || self.version == other.version)
    }
}

impl Db {
    /// What the keys held at one moment.
    pub fn read_many<'g>(
        &'g self,
        keys: &[Key<'_>],
        now: Millis,
        guard: &'g Guard<'g>,
    ) -> Vec<Option<Seen<'g>>> {
        let mut seen = self.look(keys, now, guard);
        let mut looks = 1;
        while keys.len() > 1 {
            let again = self.look(keys, now, guard);
            if is_same(&seen, &again) {
                break;
            }
            seen = again;
            looks += 1;
            if looks == MOST_LOOKS {
                let _shards = self.lock_many(keys, guard);
                seen = self.look(keys, now, guard);
                break;
            }
        }
        seen
    }

    fn look<'g>(
        &'g self,
        keys: &[Key<'_>],
        now: Millis,
        guard: &'g Guard<'_>,
    ) -> Vec<Option<Seen<'g>>> {
        let look = |key: &Key<'_>| {
            let part = self.part(key);
            // Before the number.
            let version = part.version.get();
            let (slot, entry) = part.find(&self.store, &self.flushes, key, guard)?;
            let number = match entry.value() {
                Value::Int(number) => Some(number.get()),
                _ => None,
            };
            (!entry.is_expired(now)).then_some(Seen { slot, entry, number, version })
        };
        keys.iter().map(look).collect()
    }
}

fn is_same(one: &[Option<Seen<'_>>], other: &[Option<Seen<'_>>]) -> bool {
    one.iter().zip(other).all(|(one, other)| match (one, other) {
        (Some(one), Some(other)) => one.is_as_in(other),
        (None, None) => true,
        _ => false,
    })
}
