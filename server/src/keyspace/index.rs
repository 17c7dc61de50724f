//! Tables: from a key's hash to its entry, for readers without a lock.
//!
//! A table is two arrays of one length, a power of two: tags, which are the upper half of a hash, and
//! cells, which are keys of the slab of entries. An entry's *home* is the top of its tag; from there on its
//! cell is the first that was free. One writer at a time (who has the shard's lock) changes a table:
//!
//! - a new key: the cell, then the tag;
//! - another entry for a key: the cell alone;
//! - a key removed: the cell is emptied, and the tag says that there was one, so that searches go on;
//! - an entry leaves the slab only after it has left the cell.
//!
//! A tag that was ever set is never free again, and no entry moves: a reader that walks from a home to the
//! first free tag meets every entry of that home that was there all the time. When the table is full or
//! nearly empty the writer makes another and publishes it in its place; the old one stays as it was, and
//! readers who have it see the shard as it was then, until an entry that they look for is gone from the
//! slab, which sends them to the new one ([`Stale`]).
//!
//! Because cells hold keys and not pointers, nothing here is unsafe, whatever is in them.

use flagstone::epoch::Guard;
use flagstone::typed::{AtomicKey, Key as SlotKey, Slab};

use super::entry::Entry;
use super::shard::Key;
use crate::allocator::block_bytes;
use crate::sync::Tag;

/// Cells of the smallest table.
const LEAST_CELLS: usize = 8;

/// A tag of a cell that was never used.
const FREE: u32 = 0;
/// A tag of a cell whose key was removed.
const LEFT: u32 = 1;

/// A table of a shard.
#[derive(Debug)]
pub struct Table {
    tags: Box<[Tag]>,
    cells: Box<[AtomicKey]>,
    /// How far right a tag is shifted to give its home.
    shift: u32,
    /// The database's number of flushes when the table was made.
    pub(super) flushes: u64,
}

/// The table is not the shard's any more; look for the one that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

/// An entry and where it was found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'g> {
    pub(super) table: &'g Table,
    pub(super) at: usize,
    pub(super) slot: SlotKey,
    pub(super) entry: &'g Entry,
}

/// What a visit of some homes came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visited {
    /// Where to go on; `None` if all was visited.
    pub(super) next: Option<u32>,
}

impl Found<'_> {
    /// Whether the entry is still in its cell.
    #[inline]
    pub(super) fn is_there(&self) -> bool {
        self.table.cells[self.at].load() == Some(self.slot)
    }
}

impl Table {
    /// An empty table with room for `entries` and as many again.
    pub(super) fn new(entries: usize, flushes: u64) -> Self {
        let cells = (2 * entries).next_power_of_two().max(LEAST_CELLS);
        Self {
            tags: (0..cells).map(|_| Tag::default()).collect(),
            cells: (0..cells).map(|_| AtomicKey::default()).collect(),
            shift: u32::BITS - cells.trailing_zeros(),
            flushes,
        }
    }

    /// Cells.
    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    /// Bytes of the heap that the table takes.
    pub(super) fn heap_bytes(&self) -> usize {
        let (tags, cells): (&[Tag], &[AtomicKey]) = (&self.tags, &self.cells);
        block_bytes(tags, size_of_val(tags)) + block_bytes(cells, size_of_val(cells))
    }

    /// The entry of `key`.
    ///
    /// # Errors
    /// [`Stale`] if an entry that might be the key's has left the slab.
    #[inline]
    pub(super) fn find<'g>(
        &'g self,
        entries: &'g Slab<Entry>,
        key: &Key<'_>,
        guard: &'g Guard<'_>,
    ) -> Result<Option<Found<'g>>, Stale> {
        self.find_where(entries, key.hash, guard, |entry| entry.is_of(key))
    }

    /// The first entry of a hash.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub(super) fn find_hash<'g>(
        &'g self,
        entries: &'g Slab<Entry>,
        hash: u64,
        guard: &'g Guard<'_>,
    ) -> Result<Option<Found<'g>>, Stale> {
        self.find_where(entries, hash, guard, |entry| entry.hash() == hash)
    }

    #[inline]
    fn find_where<'g>(
        &'g self,
        entries: &'g Slab<Entry>,
        hash: u64,
        guard: &'g Guard<'_>,
        is_it: impl Fn(&Entry) -> bool,
    ) -> Result<Option<Found<'g>>, Stale> {
        let wanted = tag_of(hash);
        for at in self.places_from(wanted) {
            match self.tags[at].get() {
                FREE => return Ok(None),
                tag if tag == wanted => {
                    // An empty cell: removed just now.
                    let Some(slot) = self.cells[at].load() else { continue };
                    let entry = entries.get(slot, guard).ok_or(Stale)?;
                    if is_it(entry) {
                        return Ok(Some(Found { table: self, at, slot, entry }));
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Puts another entry for the key that was found at `at`. The writer's.
    pub(super) fn replace(&self, at: usize, slot: SlotKey) {
        self.cells[at].store(Some(slot));
    }

    /// Takes the key out that was found at `at`. The writer's.
    pub(super) fn remove(&self, at: usize) {
        self.cells[at].store(None);
        self.tags[at].set(LEFT);
    }

    /// Puts in a key that is not there. Returns whether its cell was never used before. The writer's,
    /// who has seen to a free cell.
    pub(super) fn insert(&self, hash: u64, slot: SlotKey) -> bool {
        let tag = tag_of(hash);
        for at in self.places_from(tag) {
            let before = self.tags[at].get();
            if before == FREE || before == LEFT {
                self.cells[at].store(Some(slot));
                self.tags[at].set(tag);
                return before == FREE;
            }
        }
        unreachable!("a table is never full")
    }

    /// A table of the same keys with room for `entries`. The writer's.
    pub(super) fn rebuilt(&self, entries: usize) -> Self {
        let other = Self::new(entries, self.flushes);
        for (tag, slot) in self.slots() {
            // The tag is all of the hash that a table looks at.
            other.insert(u64::from(tag) << u32::BITS, slot);
        }
        other
    }

    /// Every key in the table, with its tag.
    pub(super) fn slots(&self) -> impl Iterator<Item = (u32, SlotKey)> {
        let used = self.tags.iter().zip(&self.cells);
        used.filter_map(|(tag, cell)| Some((tag.get(), cell.load()?)))
            .filter(|(tag, _)| *tag != FREE && *tag != LEFT)
    }

    /// Visits the entries whose tags are `from` or above, home by home, until `count` were visited.
    /// Where an entry is replaced meanwhile, the visit is to either.
    ///
    /// # Errors
    /// [`Stale`]; what was visited so far should be forgotten.
    pub(super) fn visit<'g>(
        &self,
        entries: &'g Slab<Entry>,
        from: u32,
        count: usize,
        guard: &'g Guard<'_>,
        mut visit: impl FnMut(SlotKey, &'g Entry),
    ) -> Result<Visited, Stale> {
        let mut visited = 0;
        let mut home = self.home(from);
        while home < self.len() {
            let to = home.saturating_add(count.max(1)).min(self.len());
            // Entries of the homes up to `to` lie there, or behind it up to a cell that was never used.
            for step in 0..self.len() {
                let at = (home + step) & (self.len() - 1);
                let tag = self.tags[at].get();
                if tag == FREE && home + step >= to {
                    break;
                }
                if tag == FREE || tag == LEFT || tag < from {
                    continue;
                }
                if (home..to).contains(&self.home(tag))
                    && let Some((slot, entry)) = self.entry_at(at, entries, guard)?
                {
                    visit(slot, entry);
                    visited += 1;
                }
            }
            home = to;
            if visited >= count {
                break;
            }
        }
        let next = (home < self.len()).then(|| (home as u32) << self.shift);
        Ok(Visited { next })
    }

    fn entry_at<'g>(
        &self,
        at: usize,
        entries: &'g Slab<Entry>,
        guard: &'g Guard<'_>,
    ) -> Result<Option<(SlotKey, &'g Entry)>, Stale> {
        loop {
            let Some(slot) = self.cells[at].load() else { return Ok(None) };
            if let Some(entry) = entries.get(slot, guard) {
                return Ok(Some((slot, entry)));
            }
            if self.cells[at].load() == Some(slot) {
                return Err(Stale);
            }
        }
    }

    fn home(&self, tag: u32) -> usize {
        (tag >> self.shift) as usize
    }

    fn places_from(&self, tag: u32) -> impl Iterator<Item = usize> {
        let (home, mask) = (self.home(tag), self.len() - 1);
        (home..home + self.len()).map(move |at| at & mask)
    }
}

/// The part of a hash that tables look at. Two values are taken.
#[inline]
fn tag_of(hash: u64) -> u32 {
    ((hash >> u32::BITS) as u32).max(LEFT + 1)
}
