//! What all shards of a keyspace share: the epoch domain, and the slabs of entries, tables and changes.
//!
//! Entries are values of a typed slab, tables hold their keys. What leaves a table or a slab is retired: a
//! reader that holds a guard keeps what it found, and whoever finds the grace period over frees it. The
//! slabs are attached to the domain, so the runtime's parks and its scavenger give their memory back.

use std::sync::Arc;

use flagstone::epoch::{Domain, Guard};
use flagstone::typed::{Key as SlotKey, Slab, VacantEntry};

use super::block::Block;
use super::entry::{Entry, Pending};
use super::expiry::Millis;
use super::index::{Found, Table};
use super::list::List;
use super::shard::Key;
use crate::fallible::NoMemory;

/// Slabs of a keyspace.
#[derive(Debug)]
pub struct Store {
    /// The domain of all guards that the keyspace takes.
    pub(super) domain: Domain,
    /// Every entry of every database.
    pub(super) entries: Arc<Slab<Entry>>,
    pub(super) tables: Arc<Slab<Table>>,
    /// Links of entries to changes that are not over.
    pub(super) pending: Arc<Slab<Pending>>,
}

impl Store {
    pub(super) fn new(domain: Domain) -> Self {
        Self {
            entries: Slab::<()>::builder().build_shared(&domain),
            tables: Slab::<()>::builder().build_shared(&domain),
            pending: Slab::<()>::builder().build_shared(&domain),
            domain,
        }
    }

    /// Puts an entry into the slab, where nobody finds it yet.
    #[inline]
    pub(super) fn insert<'g>(&'g self, entry: Entry, guard: &'g Guard<'g>) -> New<'g> {
        let place = self.entries.vacant_entry(guard);
        New { slot: place.key(), entry: place.insert(entry) }
    }

    /// Room for an entry of `key` whose value is still to be made.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(super) fn try_room<'g>(
        &'g self,
        key: &Key<'_>,
        guard: &'g Guard<'g>,
    ) -> Result<Room<'g>, NoMemory> {
        let name = Block::try_of(&[key.bytes])?;
        let place = self.entries.try_vacant_entry(guard).map_err(|_| NoMemory)?;
        Ok(Room { name, place })
    }

    /// The entry that is to be seen where `found` was found: another one while it is a part of a change
    /// that is not over, none if the change deletes it or made it.
    ///
    /// # Errors
    /// [`Over`] if the change ended meanwhile; look again.
    #[inline]
    pub(super) fn seen<'g>(
        &'g self,
        slot: SlotKey,
        entry: &'g Entry,
        guard: &'g Guard<'_>,
    ) -> Result<Option<(SlotKey, &'g Entry)>, Over> {
        match entry.pending.load() {
            None if entry.is_gone() => Ok(None),
            None => Ok(Some((slot, entry))),
            Some(pending) => self.seen_in_change(slot, entry, pending, guard),
        }
    }

    #[cold]
    fn seen_in_change<'g>(
        &'g self,
        slot: SlotKey,
        entry: &'g Entry,
        pending: SlotKey,
        guard: &'g Guard<'_>,
    ) -> Result<Option<(SlotKey, &'g Entry)>, Over> {
        let pending = self.pending.get(pending, guard).ok_or(Over)?;
        if pending.done.is_raised() {
            return Ok((!entry.is_gone()).then_some((slot, entry)));
        }
        let Some(before) = pending.before else { return Ok(None) };
        let entry = self.entries.get(before, guard).ok_or(Over)?;
        Ok(Some((before, entry)))
    }

    /// Removes an entry that is in no table any more, and that held `bytes` with its slot.
    pub(super) fn retire(&self, slot: SlotKey, bytes: usize, guard: &Guard<'_>) {
        let besides = bytes.saturating_sub(Slab::<Entry>::SLOT_BYTES);
        let removed = self.entries.remove_sized(slot, besides, guard);
        debug_assert!(removed, "an entry leaves once");
    }

    /// The same, for a table.
    pub(super) fn retire_table(&self, slot: SlotKey, guard: &Guard<'_>) {
        let bytes = self.tables.get(slot, guard).map_or(0, Table::heap_bytes);
        let removed = self.tables.remove_sized(slot, bytes, guard);
        debug_assert!(removed, "a table leaves once");
    }
}

/// A place in the slab, and a copy of the key that is to be there.
pub(super) struct Room<'g> {
    name: Block,
    place: VacantEntry<'g, Entry>,
}

impl<'g> Room<'g> {
    /// Puts a list there.
    pub(super) fn list(self, key: &Key<'_>, list: List, expires_at: Option<Millis>) -> New<'g> {
        let entry = Entry::list(key, self.name, list, expires_at);
        New { slot: self.place.key(), entry: self.place.insert(entry) }
    }
}

/// An entry that is in the slab and in no table.
#[derive(Clone, Copy, Debug)]
pub(super) struct New<'g> {
    pub(super) slot: SlotKey,
    pub(super) entry: &'g Entry,
}

/// The change that an entry was a part of is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Over;

impl<'g> Found<'g> {
    /// What is to be seen of it, see [`Store::seen`].
    #[inline]
    pub(super) fn seen(
        self,
        store: &'g Store,
        guard: &'g Guard<'_>,
    ) -> Result<Option<(SlotKey, &'g Entry)>, Over> {
        store.seen(self.slot, self.entry, guard)
    }
}

/// What is to be retired once a lock is given back: entries that left their cells, tables that were
/// replaced. Retiring may run the drops of others' values.
#[derive(Debug)]
pub(super) struct Left<'a> {
    store: &'a Store,
    guard: &'a Guard<'a>,
    /// Most commands have one.
    entry: Option<(SlotKey, usize)>,
    more: Vec<Gone>,
}

#[derive(Clone, Copy, Debug)]
enum Gone {
    Entry(SlotKey, usize),
    Table(SlotKey),
}

impl<'a> Left<'a> {
    #[inline]
    pub(super) fn new(store: &'a Store, guard: &'a Guard<'a>) -> Self {
        Self { store, guard, entry: None, more: Vec::new() }
    }

    #[inline]
    pub(super) fn add(&mut self, slot: SlotKey, bytes: usize) {
        if self.entry.is_none() {
            self.entry = Some((slot, bytes));
        } else {
            self.more.push(Gone::Entry(slot, bytes));
        }
    }

    pub(super) fn add_table(&mut self, slot: SlotKey) {
        self.more.push(Gone::Table(slot));
    }
}

impl Drop for Left<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some((slot, bytes)) = self.entry {
            self.store.retire(slot, bytes, self.guard);
        }
        for gone in self.more.drain(..) {
            match gone {
                Gone::Entry(slot, bytes) => self.store.retire(slot, bytes, self.guard),
                Gone::Table(slot) => self.store.retire_table(slot, self.guard),
            }
        }
    }
}
