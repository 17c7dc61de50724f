//! One shard of a database: a table of keys, their deadlines, and who waits for them.
//!
//! The table is an `IndexMap`: entries lie in one dense vector, a removal moves the last entry into
//! the gap, everything else stays where it is. So an entry's position only ever goes down, which is
//! what makes a scan from the top downwards complete (see [`super::scan`]).
//!
//! Keys are hashed once, by the keyspace; all lookups here take the finished hash.
//!
//! Equations that hold between two calls:
//! - `bytes` is the sum of `entry_bytes` over the table;
//! - `volatile` is the number of entries with a deadline, and each has a hint in `deadlines` (up to
//!   keys with the same 64-bit hash);
//! - no list in the table is empty.

use std::hash::{BuildHasher, RandomState};

use indexmap::IndexMap;
use indexmap::map::RawEntryApiV1;
use indexmap::map::raw_entry_v1::RawEntryMut;

use super::expiry::{Deadlines, Millis};
use super::list::{End, List};
use super::value::Value;
use super::waiters::{Popped, Waiters};
use crate::allocator::block_bytes;

/// Tables of at most this many slots are not shrunk.
const TABLE_KEPT: usize = 64;

/// A key with its hash.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// The key's bytes.
    pub bytes: &'a [u8],
    /// Their hash under the keyspace's secret.
    pub hash: u64,
}

/// What a key holds and until when.
#[derive(Debug)]
pub struct Entry {
    value: Value,
    /// 0: no deadline.
    expires_at: Millis,
}

impl Entry {
    /// The value.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The value, taken out.
    pub fn into_value(self) -> Value {
        self.value
    }

    /// When the key expires, if it does.
    pub fn expires_at(&self) -> Option<Millis> {
        (self.expires_at != 0).then_some(self.expires_at)
    }

    /// Whether its time is over.
    pub fn is_expired(&self, now: Millis) -> bool {
        self.expires_at != 0 && self.expires_at <= now
    }
}

type Table = IndexMap<Box<[u8]>, Entry, RandomState>;

/// What a shard has counted since the server started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardCounts {
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Keys removed because their time was over.
    pub expired: u64,
}

/// One shard. See the module's page for what holds between calls.
#[derive(Debug)]
pub struct Shard {
    table: Table,
    deadlines: Deadlines,
    volatile: usize,
    bytes: usize,
    /// Change of `bytes` that the keyspace's account has not seen yet.
    pub(super) drift: i64,
    /// Clients that wait for keys of this shard.
    pub waiters: Waiters,
    /// What was counted here.
    pub counts: ShardCounts,
}

impl Shard {
    /// An empty shard of a keyspace with this hasher.
    pub fn new(hasher: RandomState) -> Self {
        Self {
            table: Table::with_hasher(hasher),
            deadlines: Deadlines::default(),
            volatile: 0,
            bytes: 0,
            drift: 0,
            waiters: Waiters::default(),
            counts: ShardCounts::default(),
        }
    }

    /// The entry of `key`, for a command that reads: counts a hit or a miss.
    pub fn read(&mut self, key: &Key<'_>, now: Millis) -> Option<&Entry> {
        match self.live(key, now) {
            Some(index) => {
                self.counts.hits += 1;
                self.table.get_index(index).map(|(_, entry)| entry)
            }
            None => {
                self.counts.misses += 1;
                None
            }
        }
    }

    /// The entry of `key`, uncounted.
    pub fn peek(&mut self, key: &Key<'_>, now: Millis) -> Option<&Entry> {
        let index = self.live(key, now)?;
        self.table.get_index(index).map(|(_, entry)| entry)
    }

    /// Puts `value` under `key`, with a deadline or without one, whatever was there before. Returns
    /// what was there, so that the caller can drop it after unlocking.
    pub fn set(
        &mut self,
        key: &Key<'_>,
        value: Value,
        expires_at: Option<Millis>,
        now: Millis,
    ) -> Option<Entry> {
        let fresh = Entry { value, expires_at: expires_at.unwrap_or(0) };
        let old = match self.live(key, now) {
            Some(index) => {
                let after = fresh.value.heap_bytes() as i64;
                let (_, entry) = self.table.get_index_mut(index).expect("a live index");
                let old = std::mem::replace(entry, fresh);
                self.charge(after - old.value.heap_bytes() as i64);
                self.volatile -= usize::from(old.expires_at != 0);
                Some(old)
            }
            None => {
                let key_block: Box<[u8]> = key.bytes.into();
                self.charge(entry_bytes(&key_block, &fresh) as i64);
                match self.table.raw_entry_mut_v1().from_key_hashed_nocheck(key.hash, key.bytes) {
                    RawEntryMut::Vacant(vacant) => {
                        vacant.insert_hashed_nocheck(key.hash, key_block, fresh);
                    }
                    RawEntryMut::Occupied(_) => unreachable!("the key was just not found"),
                }
                None
            }
        };
        if let Some(at) = expires_at {
            self.volatile += 1;
            self.add_deadline(at, key.hash);
        }
        old
    }

    /// Takes the entry of `key` out.
    pub fn remove(&mut self, key: &Key<'_>, now: Millis) -> Option<Entry> {
        let index = self.live(key, now)?;
        Some(self.take(index))
    }

    /// Changes the value of `key` in place; `None` if there is no such key. A list that `change`
    /// leaves empty goes with its key.
    pub fn modify<R>(
        &mut self,
        key: &Key<'_>,
        now: Millis,
        change: impl FnOnce(&mut Value) -> R,
    ) -> Option<R> {
        let index = self.live(key, now)?;
        let (_, entry) = self.table.get_index_mut(index).expect("a live index");
        let before = entry.value.heap_bytes() as i64;
        let result = change(&mut entry.value);
        let after = entry.value.heap_bytes() as i64;
        let spent = entry.value.is_spent();
        self.charge(after - before);
        if spent {
            drop(self.take(index));
        }
        Some(result)
    }

    /// Gives `key` a deadline, or none. False if there is no such key.
    pub fn set_deadline(&mut self, key: &Key<'_>, at: Option<Millis>, now: Millis) -> bool {
        let Some(index) = self.live(key, now) else { return false };
        let (_, entry) = self.table.get_index_mut(index).expect("a live index");
        self.volatile -= usize::from(entry.expires_at != 0);
        entry.expires_at = at.unwrap_or(0);
        if let Some(at) = at {
            self.volatile += 1;
            self.add_deadline(at, key.hash);
        }
        true
    }

    /// Adds elements to the list of `key`, made if it is not there, and serves who waits for it.
    /// Returns the length that the list had before anybody was served, or `None` if the key holds
    /// another type.
    pub fn push(
        &mut self,
        key: &Key<'_>,
        end: End,
        now: Millis,
        elements: impl Iterator<Item = Box<[u8]>>,
    ) -> Option<usize> {
        let mut elements = elements;
        if self.live(key, now).is_none() {
            let first = elements.next()?;
            let mut list = List::new();
            list.push_owned(end, first);
            self.set(key, Value::List(Box::new(list)), None, now);
        }
        let len = self.modify(key, now, |value| {
            let list = value.as_list_mut()?;
            for element in elements {
                list.push_owned(end, element);
            }
            Some(list.len())
        })??;
        self.serve(key, now);
        Some(len)
    }

    /// Takes an element off a list for a client.
    pub fn pop(&mut self, key: &Key<'_>, end: End, now: Millis) -> Option<Popped> {
        let element = self.modify(key, now, |value| value.as_list_mut()?.pop(end))??;
        Some(Popped { key: key.bytes.into(), element, end })
    }

    /// Removes keys whose time is over, at most `limit`, into `removed`. True if more are due.
    pub fn expire_due(&mut self, now: Millis, limit: usize, removed: &mut Vec<Entry>) -> bool {
        for _ in 0..limit {
            let Some(hash) = self.deadlines.pop_due(now) else { return false };
            let Some(index) = find_hash(&self.table, hash) else { continue };
            let (_, entry) = self.table.get_index(index).expect("a found index");
            if entry.is_expired(now) {
                self.counts.expired += 1;
                removed.push(self.take(index));
            }
        }
        true
    }

    /// Takes everything out, for the caller to drop after unlocking. Waiting clients go on waiting.
    #[must_use]
    pub fn take_all(&mut self) -> impl Send + use<> {
        self.charge(-(self.bytes as i64));
        self.volatile = 0;
        self.deadlines.clear();
        let empty = Table::with_hasher(self.table.hasher().clone());
        std::mem::replace(&mut self.table, empty)
    }

    /// Keys, those included whose time is over and that nothing has touched since.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Keys that have a deadline.
    pub fn volatile(&self) -> usize {
        self.volatile
    }

    /// Bytes of the heap that keys and values take.
    pub fn dataset_bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the heap that the table and the deadlines take.
    pub fn overhead_bytes(&self) -> usize {
        self.table.capacity() * SLOT_BYTES + self.deadlines.heap_bytes()
    }

    /// The entry at a position of the table, for scans.
    pub(super) fn at(&self, index: usize) -> Option<(&[u8], &Entry)> {
        self.table.get_index(index).map(|(key, entry)| (&**key, entry))
    }

    /// Bytes of the heap that one key accounts for: key, value and its slot in the table.
    pub fn usage(&mut self, key: &Key<'_>, now: Millis) -> Option<usize> {
        let index = self.live(key, now)?;
        let (key_block, entry) = self.table.get_index(index)?;
        let hint = if entry.expires_at == 0 { 0 } else { size_of::<(Millis, u64)>() };
        Some(entry_bytes(key_block, entry) + SLOT_BYTES + hint)
    }

    /// Hands elements of `key` to those who wait for it.
    fn serve(&mut self, key: &Key<'_>, now: Millis) {
        if self.waiters.is_empty() {
            return;
        }
        let mut waiters = std::mem::take(&mut self.waiters);
        // Both closures need the shard, one after the other.
        let shard = std::cell::RefCell::new(&mut *self);
        waiters.serve(
            key.bytes,
            || shard.borrow_mut().live(key, now).is_some(),
            |end| shard.borrow_mut().pop(key, end, now).expect("a list is never empty"),
        );
        self.waiters = waiters;
    }

    /// Position of `key`, if it is there and its time is not over. Removes it if its time is over.
    fn live(&mut self, key: &Key<'_>, now: Millis) -> Option<usize> {
        let index = self.table.raw_entry_v1().index_from_hash(key.hash, |k| **k == *key.bytes)?;
        let (_, entry) = self.table.get_index(index).expect("a found index");
        if entry.is_expired(now) {
            self.counts.expired += 1;
            drop(self.take(index));
            return None;
        }
        Some(index)
    }

    fn take(&mut self, index: usize) -> Entry {
        let (key, entry) = self.table.swap_remove_index(index).expect("a live index");
        self.charge(-(entry_bytes(&key, &entry) as i64));
        self.volatile -= usize::from(entry.expires_at != 0);
        if self.table.capacity() > TABLE_KEPT && self.table.len() < self.table.capacity() / 8 {
            self.table.shrink_to(2 * self.table.len());
        }
        entry
    }

    fn charge(&mut self, bytes: i64) {
        self.bytes = self.bytes.checked_add_signed(bytes as isize).expect("bytes add up");
        self.drift += bytes;
    }

    fn add_deadline(&mut self, at: Millis, hash: u64) {
        self.deadlines.add(at, hash);
        let table = &self.table;
        self.deadlines.sweep(self.volatile, |at, hash| {
            find_hash(table, hash).is_some_and(|index| table[index].expires_at == at)
        });
    }
}

/// Bytes of one slot of the table: the dense entry with its hash, and its share of the index, whose
/// buckets are a position and a control byte at a load of at most 7/8.
const SLOT_BYTES: usize = size_of::<u64>()
    + size_of::<Box<[u8]>>()
    + size_of::<Entry>()
    + (size_of::<usize>() + 1) * 8 / 7;

/// Position of a key with this hash. The index compares a few bits of it only, so keys that agree in
/// those are hashed again.
fn find_hash(table: &Table, hash: u64) -> Option<usize> {
    table.raw_entry_v1().index_from_hash(hash, |key| table.hasher().hash_one(&**key) == hash)
}

fn entry_bytes(key: &[u8], entry: &Entry) -> usize {
    key_bytes(key) + entry.value.heap_bytes()
}

fn key_bytes(key: &[u8]) -> usize {
    block_bytes(key.as_ptr(), key.len())
}

#[cfg(test)]
#[path = "shard_tests.rs"]
mod tests;
