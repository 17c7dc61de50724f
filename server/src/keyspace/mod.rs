//! The keyspace: numbered databases, each cut into shards by the key's hash.
//!
//! Every shard has its own lock. A command locks the shards of its keys, in ascending order if there
//! are several, so commands on several keys are atomic and cannot deadlock. No lock is held across an
//! `.await`. Large values that a command removes are dropped after unlocking.
//!
//! The account ([`Account`]) is told of changes of the keyspace's size in steps of [`DRIFT_STEP`]
//! bytes per shard, so that the memory limit costs no shared write per command.

pub mod blocking;
pub mod expiry;
pub mod list;
pub mod scan;
pub mod shard;
pub mod value;
pub mod waiters;

use std::hash::{BuildHasher, RandomState};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, MutexGuard};

use crate::sync::{Counter, Level, Mutex, Padded};
use expiry::Millis;
use shard::{Entry, Key, Shard, ShardCounts};

/// Bytes by which a shard's size may have changed before the account hears of it.
pub const DRIFT_STEP: i64 = 4 * 1024;

/// Keys that one visit to a shard expires at most.
const EXPIRE_BATCH: usize = 64;

/// All databases.
#[derive(Debug)]
pub struct Keyspace {
    dbs: Box<[Db]>,
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
}

/// One database.
#[derive(Debug)]
pub struct Db {
    shards: Box<[Padded<Mutex<Shard>>]>,
    hasher: RandomState,
    account: Arc<Account>,
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
    /// Events counted in the shards.
    pub counts: ShardCounts,
}

impl Keyspace {
    /// Empty databases of `shards` shards each.
    ///
    /// # Panics
    /// If `shards` is no power of two or there is no database.
    pub fn new(databases: usize, shards: usize) -> Self {
        assert!(shards.is_power_of_two() && shards <= 1 << 16, "{shards} shards");
        assert!(databases > 0, "at least one database");
        let account = Arc::new(Account::default());
        let hasher = RandomState::new();
        let dbs = (0..databases)
            .map(|_| Db {
                shards: (0..shards)
                    .map(|_| Padded(Mutex::new(Shard::new(hasher.clone()))))
                    .collect(),
                hasher: hasher.clone(),
                account: Arc::clone(&account),
            })
            .collect();
        Self { dbs, account, tickets: Counter::new() }
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

    /// A number that grows with every call: the order in which clients began to wait.
    pub fn next_ticket(&self) -> u64 {
        self.tickets.add(1)
    }

    /// Sums over all databases.
    pub fn figures(&self) -> DbFigures {
        self.dbs.iter().map(Db::figures).fold(DbFigures::default(), DbFigures::plus)
    }

    /// Removes keys whose time is over until none is due or `out_of_time` says so. Each lock is
    /// held for at most 64 removals. Returns how many keys went.
    pub fn expire_due(&self, now: Millis, mut out_of_time: impl FnMut() -> bool) -> usize {
        let mut expired = 0;
        let mut removed = Vec::new();
        for db in &self.dbs {
            for number in 0..db.shard_count() {
                loop {
                    let more = db.shard(number).expire_due(now, EXPIRE_BATCH, &mut removed);
                    expired += removed.len();
                    removed.clear();
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
    }
}

impl Db {
    /// The key of these bytes, hashed.
    pub fn key<'a>(&self, bytes: &'a [u8]) -> Key<'a> {
        Key { bytes, hash: self.hasher.hash_one(bytes) }
    }

    /// Locks the shard of one key.
    pub fn lock(&self, key: &Key<'_>) -> Locked<'_> {
        self.shard(self.shard_of(key))
    }

    /// Locks the shards of all `keys` at once, in ascending order.
    pub fn lock_many(&self, keys: &[Key<'_>]) -> LockedMany<'_> {
        let mut wanted = vec![false; self.shards.len()];
        for key in keys {
            wanted[self.shard_of(key)] = true;
        }
        let wanted = wanted.iter().enumerate().filter(|(_, wanted)| **wanted);
        LockedMany { db: self, shards: wanted.map(|(n, _)| (n, self.shard(n))).collect() }
    }

    /// Takes every key out of all shards at one moment and returns what was there, for the caller to
    /// drop where that may take its time.
    #[must_use]
    pub fn take_all(&self) -> impl Send + use<> {
        let mut locked: Vec<_> = (0..self.shards.len()).map(|n| self.shard(n)).collect();
        locked.iter_mut().map(|shard| shard.take_all()).collect::<Vec<_>>()
    }

    /// Sums over the shards, each read under its lock, one after the other.
    pub fn figures(&self) -> DbFigures {
        (0..self.shards.len())
            .map(|n| {
                let shard = self.shard(n);
                DbFigures {
                    keys: shard.len(),
                    volatile: shard.volatile(),
                    dataset_bytes: shard.dataset_bytes(),
                    overhead_bytes: shard.overhead_bytes(),
                    waited_for: shard.waiters.keys(),
                    counts: shard.counts,
                }
            })
            .fold(DbFigures::default(), DbFigures::plus)
    }

    /// Keys.
    pub fn len(&self) -> usize {
        (0..self.shards.len()).map(|n| self.shard(n).len()).sum()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard_count(&self) -> usize {
        self.shards.len()
    }

    fn shard_bits(&self) -> u32 {
        self.shards.len().trailing_zeros()
    }

    fn shard(&self, number: usize) -> Locked<'_> {
        Locked { shard: self.shards[number].lock(), account: &self.account }
    }

    /// Bits of the hash that the table in the shard does not use to tell entries apart: it indexes
    /// by the low ones and tags by the top seven.
    fn shard_of(&self, key: &Key<'_>) -> usize {
        (key.hash >> 40) as usize & (self.shards.len() - 1)
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
            counts: ShardCounts {
                hits: self.counts.hits + other.counts.hits,
                misses: self.counts.misses + other.counts.misses,
                expired: self.counts.expired + other.counts.expired,
            },
        }
    }
}

/// A locked shard.
#[derive(Debug)]
pub struct Locked<'a> {
    shard: MutexGuard<'a, Shard>,
    account: &'a Account,
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
        if self.shard.drift.abs() >= DRIFT_STEP {
            self.account.growth.add(std::mem::take(&mut self.shard.drift));
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

impl LockedMany<'_> {
    /// The shard of `key`.
    ///
    /// # Panics
    /// If `key` was not among the keys that were locked.
    pub fn of(&mut self, key: &Key<'_>) -> &mut Shard {
        let number = self.db.shard_of(key);
        let at = self.shards.binary_search_by_key(&number, |(n, _)| *n).expect("a locked key");
        &mut self.shards[at].1
    }
}

/// Drops what a command removed; on the blocking pool if that frees many blocks one by one.
pub fn drop_removed(removed: Vec<Entry>) {
    /// Blocks whose freeing a connection's task may be kept busy with.
    const DROP_HERE: usize = 64;
    let cost: usize = removed.iter().map(|entry| entry.value().drop_cost()).sum();
    if cost > DROP_HERE && tokio::runtime::Handle::try_current().is_ok() {
        flagstone::runtime::spawn_blocking(move || drop(removed));
    }
}
