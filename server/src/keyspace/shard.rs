//! One shard of a database: a table of keys, their deadlines, and who waits for them.
//!
//! Readers look through `Part::find` and take no lock. Writers hold the shard's lock as [`Locked`]; what
//! they take out is retired after they have given it back.
//!
//! Keys are hashed once, by the keyspace; all lookups here take the finished hash.
//!
//! Equations that hold between two locks:
//! - `bytes` is the sum of `heap_bytes` over the entries;
//! - `len` is the number of entries, `used` that of cells that hold or held one;
//! - `volatile` is the number of entries with a deadline, and each has a hint in `deadlines` (up to
//!   keys with the same 64-bit hash);
//! - no list in the table is empty, and no change is pending.

use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;

use flagstone::epoch::Guard;
use flagstone::typed::{AtomicKey, Key as SlotKey};

use super::entry::Entry;
use super::expiry::{Deadlines, Millis};
use super::index::{Found, Table};
use super::list::{End, Left as Rest, List};
use super::store::{Left, New, Room, Store};
use super::value::Value;
use super::waiters::{Popped, Waiters};
use super::{Account, DRIFT_STEP};
use crate::fallible::{NoMemory, try_boxed};
use crate::sync::{Counter, Mutex, Padded, Word};

/// Tables of at most this many cells are not shrunk.
const TABLE_KEPT: usize = 64;

/// A key with its hash.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// The key's bytes.
    pub bytes: &'a [u8],
    /// Their hash under the keyspace's secret.
    pub hash: u64,
}

/// A shard as its database holds it: what readers look at, and the lock of the writers.
#[derive(Debug)]
pub struct Part {
    /// The table. None before the first key, and after a flush.
    root: AtomicKey,
    /// Counts changes of integers in place; before each, so that who sees the same number twice has seen
    /// the end of one at most.
    pub(super) version: Word,
    lock: Mutex<Shard>,
    /// What the last writer left, on lines of its own.
    pub(super) shown: Padded<Shown>,
}

/// Figures of a shard, for whoever asks.
#[derive(Debug, Default)]
pub struct Shown {
    pub(super) len: Word,
    pub(super) volatile: Word,
    pub(super) bytes: Word,
    pub(super) overhead_bytes: Word,
    pub(super) waited_for: Word,
    pub(super) expired: Counter,
}

/// What a shard's writers know. See the module's page for what holds between two locks.
#[derive(Debug, Default)]
pub struct Shard {
    len: usize,
    used: usize,
    deadlines: Deadlines,
    volatile: usize,
    bytes: usize,
    table_bytes: usize,
    /// Change of `bytes` that the keyspace's account has not seen yet.
    drift: i64,
    /// What [`Shown`] says.
    shown: [usize; 5],
    /// Clients that wait for keys of this shard.
    pub waiters: Waiters,
}

impl Shown {
    fn set(&self, [len, volatile, bytes, overhead_bytes, waited_for]: [usize; 5]) {
        self.len.set(len as u64);
        self.volatile.set(volatile as u64);
        self.bytes.set(bytes as u64);
        self.overhead_bytes.set(overhead_bytes as u64);
        self.waited_for.set(waited_for as u64);
    }
}

impl Part {
    pub(super) fn new() -> Self {
        Self {
            root: AtomicKey::default(),
            version: Word::default(),
            lock: Mutex::default(),
            shown: Padded::default(),
        }
    }

    /// The table, if there is one whose keys have not been flushed. For anybody with a guard.
    #[inline]
    pub(super) fn table<'g>(
        &self,
        store: &'g Store,
        flushes: &Word,
        guard: &'g Guard<'_>,
    ) -> Option<&'g Table> {
        loop {
            let root = self.root.load()?;
            // Gone from the slab: another one, or none, is in its place.
            if let Some(table) = store.tables.get(root, guard) {
                return (table.flushes >= flushes.get()).then_some(table);
            }
            std::hint::spin_loop();
        }
    }

    /// The entry of `key` that is to be seen now, whatever its deadline, and its name in the slab. Waits
    /// for nobody: it looks again only where a writer has got on meanwhile.
    #[inline]
    pub(super) fn find<'g>(
        &self,
        store: &'g Store,
        flushes: &Word,
        key: &Key<'_>,
        guard: &'g Guard<'_>,
    ) -> Option<(SlotKey, &'g Entry)> {
        loop {
            let table = self.table(store, flushes, guard)?;
            if let Ok(found) = table.find(&store.entries, key, guard)
                && let Ok(seen) = found?.seen(store, guard)
            {
                return seen;
            }
            std::hint::spin_loop();
        }
    }

    /// Where `key` seems to be, for a writer who does not have the lock yet: what it looks at meanwhile it
    /// need not wait for with the lock.
    #[inline]
    pub(super) fn guess<'g>(
        &self,
        store: &'g Store,
        key: &Key<'_>,
        guard: &'g Guard<'_>,
    ) -> Option<Guess<'g>> {
        let root = self.root.load()?;
        let table = store.tables.get(root, guard)?;
        let found = table.find(&store.entries, key, guard).ok()??;
        Some(Guess { root, found })
    }

    pub(super) fn lock<'a>(&'a self, shared: Shared<'a>) -> Locked<'a> {
        Locked::new(self.lock.lock(), self, shared)
    }

    pub(super) fn try_lock<'a>(&'a self, shared: Shared<'a>) -> Option<Locked<'a>> {
        Some(Locked::new(self.lock.try_lock()?, self, shared))
    }
}

/// What [`Part::guess`] found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guess<'g> {
    root: SlotKey,
    found: Found<'g>,
}

/// What a writer needs besides the shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shared<'a> {
    pub(super) store: &'a Store,
    pub(super) account: &'a Account,
    /// The database's number of flushes.
    pub(super) flushes: &'a Word,
    pub(super) guard: &'a Guard<'a>,
}

/// A locked shard.
#[derive(Debug)]
pub struct Locked<'a> {
    // Dropped in this order: what was taken out is retired without the lock.
    shard: MutexGuard<'a, Shard>,
    left: Left<'a>,
    part: &'a Part,
    shared: Shared<'a>,
}

impl<'a> Locked<'a> {
    fn new(shard: MutexGuard<'a, Shard>, part: &'a Part, shared: Shared<'a>) -> Self {
        Self { shard, left: Left::new(shared.store, shared.guard), part, shared }
    }

    /// The entry of `key`. Stays readable for as long as the guard is held, whatever becomes of it.
    pub fn peek(&mut self, key: &Key<'_>, now: Millis) -> Option<&'a Entry> {
        self.live(key, now).map(|found| found.entry)
    }

    /// Puts `entry` under `key`, whatever was there before.
    pub fn set(&mut self, key: &Key<'_>, entry: Entry, now: Millis) {
        let new = self.shared.store.insert(entry, self.shared.guard);
        self.set_new(key, new, None, now);
    }

    /// The same, of an entry that is in the slab already.
    pub(super) fn set_new(
        &mut self,
        key: &Key<'_>,
        new: New<'a>,
        guess: Option<Guess<'a>>,
        now: Millis,
    ) {
        let found = match guess {
            Some(guess) if self.holds(&guess) && !guess.found.entry.is_expired(now) => {
                Some(guess.found)
            }
            _ => self.live(key, now),
        };
        self.put(key, new, found);
    }

    /// Whether what was found without the lock is still there.
    fn holds(&self, guess: &Guess<'_>) -> bool {
        self.part.root.load() == Some(guess.root) && guess.found.is_there()
    }

    /// Takes the entry of `key` out.
    pub fn remove(&mut self, key: &Key<'_>, now: Millis) -> Option<&'a Entry> {
        let found = self.live(key, now)?;
        Some(self.take(found))
    }

    /// Changes the integer of `key`, an entry that is there, to `n`.
    pub fn set_integer(&mut self, key: &Key<'_>, entry: &Entry, n: i64, now: Millis) {
        match entry.value() {
            Value::Int(integer) => {
                self.part.version.set(self.part.version.get() + 1);
                integer.set(n);
            }
            _ => self.set(key, Entry::integer(key, n, entry.expires_at()), now),
        }
    }

    /// Gives `key` a deadline, or none. False if there is no such key.
    pub fn set_deadline(&mut self, key: &Key<'_>, at: Option<Millis>, now: Millis) -> bool {
        let Some(found) = self.live(key, now) else { return false };
        self.volatile -= usize::from(found.entry.expires_at().is_some());
        found.entry.set_expires_at(at);
        if let Some(at) = at {
            self.volatile += 1;
            self.add_deadline(at, key.hash);
        }
        true
    }

    /// Adds elements to the list of `key`, made if it is not there, takes them out of the slice, and serves
    /// who waits for it. Returns the length that the list had before anybody was served, or `None` if the
    /// key holds another type or there are no elements.
    ///
    /// # Errors
    /// There is no memory for it. Nothing has changed, and the elements are where they were.
    pub fn try_push(
        &mut self,
        key: &Key<'_>,
        end: End,
        now: Millis,
        elements: &mut [Box<[u8]>],
    ) -> Result<Option<usize>, NoMemory> {
        let len = match self.live(key, now) {
            None => {
                let room = self.shared.store.try_room(key, self.shared.guard)?;
                let Some(list) = List::try_of(end, elements)? else { return Ok(None) };
                let len = list.view().len();
                self.put(key, room.list(key, list, None), None);
                len
            }
            Some(found) => {
                let Some(list) = found.entry.value().as_list() else { return Ok(None) };
                let len = list.view().len() + elements.len();
                let before = list.heap_bytes();
                if list.push(end, elements) {
                    self.charge(list.heap_bytes() as i64 - before as i64);
                } else {
                    let room = self.shared.store.try_room(key, self.shared.guard)?;
                    let other = list.try_extended(end, elements)?;
                    self.put_list(key, room, found, list, before, other);
                }
                len
            }
        };
        self.serve(key, now);
        Ok(Some(len))
    }

    /// Takes up to `count` elements off a list, the outermost first. Empty if the key holds another
    /// type. They stay readable for as long as the guard is held.
    ///
    /// # Errors
    /// There is no memory for it. Nothing has changed.
    pub fn try_pop(
        &mut self,
        key: &Key<'_>,
        end: End,
        count: usize,
        now: Millis,
    ) -> Result<Option<Vec<&'a [u8]>>, NoMemory> {
        let Some(found) = self.live(key, now) else { return Ok(None) };
        let Some(list) = found.entry.value().as_list() else { return Ok(Some(Vec::new())) };
        let popped = list.view().try_outermost(end, count)?;
        let before = list.heap_bytes();
        match list.try_pop(end, count)? {
            Rest::Same => {}
            Rest::Other(other) => {
                let room = self.shared.store.try_room(key, self.shared.guard)?;
                self.put_list(key, room, found, list, before, other);
            }
            Rest::Nothing => drop(self.take(found)),
        }
        Ok(Some(popped))
    }

    /// Takes an element off a list for a client. `None` if there is no list.
    ///
    /// # Errors
    /// There is no memory for it. Nothing has changed.
    pub fn try_pop_for(
        &mut self,
        key: &Key<'_>,
        end: End,
        now: Millis,
    ) -> Result<Option<Popped>, NoMemory> {
        let list = self.peek(key, now).and_then(|entry| entry.value().as_list());
        let Some(element) = list.and_then(|list| list.view().ends(end, 1).next()) else {
            return Ok(None);
        };
        let popped = Popped { key: try_boxed(key.bytes)?, element: try_boxed(element)?, end };
        self.try_pop(key, end, 1, now)?;
        Ok(Some(popped))
    }

    /// Removes keys whose time is over, at most `limit`. Returns how many, and whether more are due.
    pub fn expire_due(&mut self, now: Millis, limit: usize) -> (usize, bool) {
        let (mut expired, mut more) = (0, true);
        for _ in 0..limit {
            let Some(hash) = self.deadlines.pop_due(now) else {
                more = false;
                break;
            };
            if let Some(found) = self.find_hash(hash)
                && found.entry.is_expired(now)
            {
                self.take(found);
                expired += 1;
            }
        }
        self.part.shown.expired.add(expired as u64);
        (expired, more)
    }

    /// Bytes of the heap that one key accounts for: key, value, its slot and its share of the table.
    pub fn usage(entry: &Entry) -> usize {
        let hint = if entry.expires_at().is_none() { 0 } else { size_of::<(Millis, u64)>() };
        // Between three quarters and three eighths of the cells are used.
        let cell = 2 * (size_of::<AtomicKey>() + size_of::<u32>());
        entry.heap_bytes() + cell + hint
    }

    /// Takes the table out, with every key. For a flush, which has said already that they are gone.
    pub(super) fn take_table(&mut self) -> Option<SlotKey> {
        let bytes = self.bytes as i64;
        self.charge(-bytes);
        (self.len, self.used, self.volatile, self.table_bytes) = (0, 0, 0, 0);
        self.deadlines.clear();
        self.part.root.swap(None)
    }

    /// Position of `key`, if it is there and its time is not over. Removes it if its time is over.
    pub(super) fn live(&mut self, key: &Key<'_>, now: Millis) -> Option<Found<'a>> {
        let found = self.table()?.find(&self.shared.store.entries, key, self.shared.guard);
        let found = found.expect("entries leave their cells first")?;
        if found.entry.is_expired(now) {
            self.part.shown.expired.add(1);
            self.take(found);
            return None;
        }
        Some(found)
    }

    /// Puts an entry under `key`, in place of `found` if the key is there.
    pub(super) fn put(&mut self, key: &Key<'_>, new: New<'a>, found: Option<Found<'a>>) {
        let bytes = new.entry.heap_bytes();
        let before = found.map_or(0, |found| found.entry.heap_bytes());
        self.charge(bytes as i64 - before as i64);
        self.replace(key, new, found, before);
    }

    /// Another list of mostly the same chunks.
    fn put_list(
        &mut self,
        key: &Key<'_>,
        room: Room<'a>,
        found: Found<'a>,
        list: &List,
        before: usize,
        other: List,
    ) {
        self.charge(other.heap_bytes() as i64 - before as i64);
        let bytes = found.entry.block_bytes() + list.own_bytes();
        let new = room.list(key, other, found.entry.expires_at());
        self.replace(key, new, Some(found), bytes);
    }

    /// The same as `put`, with everything charged. `bytes` is what the entry in `found` is to count for
    /// until it is freed.
    fn replace(&mut self, key: &Key<'_>, new: New<'a>, found: Option<Found<'a>>, bytes: usize) {
        pause::here();
        match found {
            Some(found) => {
                found.table.replace(found.at, new.slot);
                pause::here();
                self.volatile -= usize::from(found.entry.expires_at().is_some());
                self.left.add(found.slot, bytes);
            }
            None => {
                let fresh = self.table_with_room().insert(key.hash, new.slot);
                pause::here();
                self.len += 1;
                self.used += usize::from(fresh);
            }
        }
        if let Some(at) = new.entry.expires_at() {
            self.volatile += 1;
            self.add_deadline(at, key.hash);
        }
    }

    pub(super) fn take(&mut self, found: Found<'a>) -> &'a Entry {
        found.table.remove(found.at);
        pause::here();
        let bytes = found.entry.heap_bytes();
        self.charge(-(bytes as i64));
        self.len -= 1;
        self.volatile -= usize::from(found.entry.expires_at().is_some());
        self.left.add(found.slot, bytes);
        let cells = found.table.len();
        if cells > TABLE_KEPT && self.len < cells / 8 {
            self.rebuild(self.len);
        }
        found.entry
    }

    fn table(&self) -> Option<&'a Table> {
        let root = self.part.root.load()?;
        let table = self.shared.store.tables.get(root, self.shared.guard);
        Some(table.expect("a table leaves its place first"))
    }

    /// The table, with a free cell at least and a quarter of them free.
    fn table_with_room(&mut self) -> &'a Table {
        match self.table() {
            Some(table) if (self.used + 1) * 4 <= table.len() * 3 => table,
            _ => self.rebuild(self.len + 1),
        }
    }

    /// Publishes another table with room for `entries` and as many again.
    fn rebuild(&mut self, entries: usize) -> &'a Table {
        let Shared { store, guard, flushes, .. } = self.shared;
        let table = match self.table() {
            Some(table) => table.rebuilt(entries),
            None => Table::new(entries, flushes.get()),
        };
        self.used = self.len;
        self.table_bytes = table.heap_bytes();
        let slot = store.tables.insert(table, guard);
        pause::here();
        let old = self.part.root.swap(Some(slot));
        pause::here();
        if let Some(old) = old {
            self.left.add_table(old);
        }
        store.tables.get(slot, guard).expect("inserted under the lock")
    }

    fn find_hash(&self, hash: u64) -> Option<Found<'a>> {
        let found = self.table()?.find_hash(&self.shared.store.entries, hash, self.shared.guard);
        found.expect("entries leave their cells first")
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
            |end| {
                let popped = shard.borrow_mut().try_pop_for(key, end, now)?;
                Ok(popped.expect("a list is never empty"))
            },
        );
        self.waiters = waiters;
    }

    fn charge(&mut self, bytes: i64) {
        self.bytes = self.bytes.checked_add_signed(bytes as isize).expect("bytes add up");
        self.drift += bytes;
    }

    fn add_deadline(&mut self, at: Millis, hash: u64) {
        self.deadlines.add(at, hash);
        let volatile = self.volatile;
        let mut deadlines = std::mem::take(&mut self.deadlines);
        deadlines.sweep(volatile, |at, hash| {
            self.find_hash(hash).is_some_and(|found| found.entry.expires_at() == Some(at))
        });
        self.deadlines = deadlines;
    }

    fn overhead_bytes(&self) -> usize {
        self.table_bytes + self.deadlines.heap_bytes()
    }
}

impl Deref for Locked<'_> {
    type Target = Shard;

    fn deref(&self) -> &Shard {
        &self.shard
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let now = [self.len, self.volatile, self.bytes, self.overhead_bytes(), self.waiters.keys()];
        // Most writes replace a value by one of its size; they leave the line alone.
        if now != self.shown {
            self.shown = now;
            self.part.shown.set(now);
        }
        if self.drift.abs() >= DRIFT_STEP {
            self.shared.account.add(std::mem::take(&mut self.drift));
        }
    }
}

/// Places in the middle of a write where tests hold a writer. Nothing in the server itself.
pub(super) mod pause {
    #[cfg(not(test))]
    #[inline(always)]
    pub fn here() {}

    #[cfg(test)]
    pub use self::testing::{here, hold};

    #[cfg(test)]
    mod testing {
        use std::cell::RefCell;

        thread_local! {
            static HOLD: RefCell<Option<Box<dyn FnMut()>>> = const { RefCell::new(None) };
        }

        pub fn here() {
            // Taken out meanwhile: what is called may write as well.
            if let Some(mut hold) = HOLD.take() {
                hold();
                HOLD.set(Some(hold));
            }
        }

        /// Calls `hold` at every such place of this thread's writes from now on.
        pub fn hold(hold: impl FnMut() + 'static) {
            HOLD.set(Some(Box::new(hold)));
        }
    }
}

#[cfg(test)]
#[path = "shard_tests.rs"]
mod tests;
