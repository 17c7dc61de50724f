//! The keyspace: numbered databases, each cut into shards by the key's hash.
//!
//! Reads take no lock: under a guard of the keyspace's epoch domain they find a key's entry, which stays
//! readable until the guard is gone ([`Db::read`]). Writers of one shard exclude each other by its lock. A
//! command locks the shards of its keys, in ascending order if there are several, so commands on several
//! keys are atomic and cannot deadlock; changes of several keys are seen as a whole or not at all
//! ([`change`]). Neither locks nor guards are held across an `.await`. What is taken out is retired after
//! unlocking.
//!
//! The account ([`Account`]) is told of changes of the keyspace's size in steps of [`DRIFT_STEP`]
//! bytes per shard, so that the memory limit costs no shared write per command.

pub mod block;
pub mod blocking;
pub mod change;
pub mod entry;
pub mod expiry;
pub mod flush;
pub mod index;
pub mod list;
pub mod many;
pub mod scan;
pub mod shard;
pub mod store;
pub mod value;
pub mod waiters;

use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;

use flagstone::epoch::{Domain, Guard, Participant};
use flagstone::typed::Stats;

use crate::sync::{Counter, Level, Word};
use entry::Entry;
use expiry::Millis;
use shard::{Key, Locked, Part, Shared};
use store::Store;

/// Bytes by which a shard's size may have changed before the account hears of it.
pub const DRIFT_STEP: i64 = 4 * 1024;

/// Keys that one visit to a shard expires at most.
const EXPIRE_BATCH: usize = 64;

/// All databases.
#[derive(Debug)]
pub struct Keyspace {
    dbs: Box<[Db]>,
    store: Arc<Store>,
    account: Arc<Account>,
    tickets: Counter,
}

/// How much the keyspace has grown since somebody last looked.
#[derive(Debug, Default)]
pub struct Account {
    growth: Level,
}

impl Account {
    /// Bytes of growth since the last [`take`](Self::take), short of up to [`DRIFT_STEP`] per shard.
    pub fn growth(&self) -> i64 {
        self.growth.get()
    }

    /// Starts again at zero.
    pub fn take(&self) -> i64 {
        self.growth.take()
    }

    fn add(&self, bytes: i64) {
        self.growth.add(bytes);
    }
}

/// One database.
#[derive(Debug)]
pub struct Db {
    parts: Box<[Part]>,
    hasher: RandomState,
    store: Arc<Store>,
    account: Arc<Account>,
    /// How often the database was flushed. A table made before the last time counts as empty.
    flushes: Word,
}

/// Sums over a database's shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DbFigures {
    /// Keys.
    pub keys: usize,
    /// Keys with a deadline.
    pub volatile: usize,
    /// Bytes of keys and values.
    pub dataset_bytes: usize,
    /// Bytes of tables and deadlines.
    pub overhead_bytes: usize,
    /// Keys that clients wait for.
    pub waited_for: usize,
    /// Keys removed because their time was over, since the server started.
    pub expired: u64,
}

impl Keyspace {
    /// Empty databases of `shards` shards each, with an epoch domain of their own.
    ///
    /// # Panics
    /// If `shards` is no power of two or there is no database.
    pub fn new(databases: usize, shards: usize) -> Self {
        assert!(shards.is_power_of_two() && shards <= 1 << 16, "{shards} shards");
        assert!(databases > 0, "at least one database");
        let account = Arc::new(Account::default());
        let domain = Domain::builder().name("server").build().expect("defaults are in range");
        let store = Arc::new(Store::new(domain));
        let hasher = RandomState::new();
        let dbs = (0..databases)
            .map(|_| Db {
                parts: (0..shards).map(|_| Part::new()).collect(),
                hasher: hasher.clone(),
                store: Arc::clone(&store),
                account: Arc::clone(&account),
                flushes: Word::default(),
            })
            .collect();
        Self { dbs, store, account, tickets: Counter::new() }
    }

    /// Database `number`.
    ///
    /// # Panics
    /// If there is none of this number.
    pub fn db(&self, number: usize) -> &Db {
        &self.dbs[number]
    }

    /// All databases in order.
    pub fn dbs(&self) -> &[Db] {
        &self.dbs
    }

    /// The account of growth.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The domain whose guards protect what readers find.
    pub fn domain(&self) -> &Domain {
        &self.store.domain
    }

    /// Calls `f` with the calling thread's participant of the domain; one made for the call while the
    /// thread's locals are being destroyed.
    pub fn with_participant<R>(&self, f: impl FnOnce(&Participant) -> R) -> R {
        let participant =
            self.domain().local().unwrap_or_else(|| Rc::new(self.domain().register()));
        f(&participant)
    }

    /// Frees what was taken out and is not being read.
    pub fn collect(&self) {
        self.with_participant(Participant::collect);
    }

    /// A number that grows with every call: the order in which clients began to wait.
    pub fn next_ticket(&self) -> u64 {
        self.tickets.add(1)
    }

    /// Sums over all databases.
    pub fn figures(&self) -> DbFigures {
        self.dbs.iter().map(Db::figures).fold(DbFigures::default(), DbFigures::plus)
    }

    /// Bytes that were taken out and may still be read.
    pub fn retired_bytes(&self) -> u64 {
        self.domain().snapshot().pending.bytes
    }

    /// Figures of the slabs of entries and of tables.
    pub fn slabs(&self) -> [(&'static str, Stats); 2] {
        [("entries", self.store.entries.stats()), ("tables", self.store.tables.stats())]
    }

    /// Slots that hold entries, and entries that were taken out and are not freed yet.
    pub fn entries(&self) -> (usize, u64) {
        let stats = self.store.entries.stats();
        (stats.len, stats.pending)
    }

    /// Removes keys whose time is over until none is due or `out_of_time` says so. Each lock is
    /// held for at most 64 removals. Returns how many keys went.
    pub fn expire_due(&self, now: Millis, mut out_of_time: impl FnMut() -> bool) -> usize {
        self.with_participant(|participant| {
            let mut expired = 0;
            for db in &self.dbs {
                for part in &db.parts {
                    loop {
                        let guard = participant.pin();
                        let (gone, more) =
                            part.lock(db.shared(&guard)).expire_due(now, EXPIRE_BATCH);
                        expired += gone;
                        if out_of_time() {
                            return expired;
                        }
                        if !more {
                            break;
                        }
                    }
                }
            }
            expired
        })
    }
}

impl Db {
    /// The key of these bytes, hashed.
    pub fn key<'a>(&self, bytes: &'a [u8]) -> Key<'a> {
        Key { bytes, hash: self.hasher.hash_one(bytes) }
    }

    /// The entry of `key`. Takes no lock and waits for nobody. A key whose time is over is removed on the
    /// way if nobody is writing to its shard.
    #[inline]
    pub fn read<'g>(
        &'g self,
        key: &Key<'_>,
        now: Millis,
        guard: &'g Guard<'_>,
    ) -> Option<&'g Entry> {
        let (_, entry) = self.part(key).find(&self.store, &self.flushes, key, guard)?;
        if entry.is_expired(now) {
            self.expire(key, now, guard);
            return None;
        }
        Some(entry)
    }

    #[cold]
    fn expire(&self, key: &Key<'_>, now: Millis, guard: &Guard<'_>) {
        if let Some(mut shard) = self.part(key).try_lock(self.shared(guard)) {
            shard.peek(key, now);
        }
    }

    /// Puts `entry` under `key`, whatever was there before.
    pub fn set(&self, key: &Key<'_>, entry: Entry, now: Millis, guard: &Guard<'_>) {
        // Before locking: the lock is held for as long as it takes to change a cell.
        let new = self.store.insert(entry, guard);
        let part = self.part(key);
        let guess = part.guess(&self.store, key, guard);
        part.lock(self.shared(guard)).set_new(key, new, guess, now);
    }

    /// Locks the shard of one key, for a command that writes.
    pub fn lock<'a>(&'a self, key: &Key<'_>, guard: &'a Guard<'a>) -> Locked<'a> {
        self.part(key).lock(self.shared(guard))
    }

    /// Locks the shards of all `keys` at once, in ascending order.
    pub fn lock_many<'a>(&'a self, keys: &[Key<'_>], guard: &'a Guard<'a>) -> LockedMany<'a> {
        // Of the shards and not of the keys: those are as many as a client names.
        let mut wanted: Vec<usize> = Vec::new();
        for number in keys.iter().map(|key| self.number_of(key)) {
            if let Err(at) = wanted.binary_search(&number) {
                wanted.insert(at, number);
            }
        }
        let lock = |n: usize| (n, self.parts[n].lock(self.shared(guard)));
        LockedMany { db: self, shards: wanted.into_iter().map(lock).collect() }
    }

    /// Sums over the shards, as their last writers left them.
    pub fn figures(&self) -> DbFigures {
        let of = |part: &Part| DbFigures {
            keys: part.shown.len.get() as usize,
            volatile: part.shown.volatile.get() as usize,
            dataset_bytes: part.shown.bytes.get() as usize,
            overhead_bytes: part.shown.overhead_bytes.get() as usize,
            waited_for: part.shown.waited_for.get() as usize,
            expired: part.shown.expired.get(),
        };
        self.parts.iter().map(of).fold(DbFigures::default(), DbFigures::plus)
    }

    /// Keys, those included whose time is over and that nothing has touched since.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.shown.len.get() as usize).sum()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shared<'a>(&'a self, guard: &'a Guard<'a>) -> Shared<'a> {
        Shared { store: &self.store, account: &self.account, flushes: &self.flushes, guard }
    }

    fn part(&self, key: &Key<'_>) -> &Part {
        &self.parts[self.number_of(key)]
    }

    /// By the low bits of the hash: the table in the shard looks at the high ones.
    fn number_of(&self, key: &Key<'_>) -> usize {
        key.hash as usize & (self.parts.len() - 1)
    }
}

impl DbFigures {
    fn plus(self, other: Self) -> Self {
        Self {
            keys: self.keys + other.keys,
            volatile: self.volatile + other.volatile,
            dataset_bytes: self.dataset_bytes + other.dataset_bytes,
            overhead_bytes: self.overhead_bytes + other.overhead_bytes,
            waited_for: self.waited_for + other.waited_for,
            expired: self.expired + other.expired,
        }
    }
}

/// The locked shards of several keys.
#[derive(Debug)]
pub struct LockedMany<'a> {
    db: &'a Db,
    /// In ascending order.
    shards: Vec<(usize, Locked<'a>)>,
}

impl<'a> LockedMany<'a> {
    /// The shard of `key`.
    ///
    /// # Panics
    /// If `key` was not among the keys that were locked.
    pub fn of(&mut self, key: &Key<'_>) -> &mut Locked<'a> {
        let number = self.db.number_of(key);
        let at = self.shards.binary_search_by_key(&number, |(n, _)| *n).expect("a locked key");
        &mut self.shards[at].1
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod reader_tests;
