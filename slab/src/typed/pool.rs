//! The pool: objects that are cleared and used again instead of dropped.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::hash::BuildHasher;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Weak};

use flagstone_epoch::{Domain, Guard, Participant, Upkeep};

use super::config::Builder;
use super::core::Table;
use super::error::{NoSlot, OutOfMemory};
use super::iter::Iter;
use super::key::Key;
use super::mode::Keeps;
use super::slab::no_slot;
use super::slot::Slot;
use super::stats::Stats;
use super::trim::Returned;

/// Makes an object as good as new, keeping what is worth keeping: a buffer's capacity.
pub trait Clear {
    /// Clears the object for its next use.
    fn clear(&mut self);
}

/// Objects that threads take, find and give back by key, and that keep their buffers in between.
///
/// Works like a [`Slab`](super::Slab), except that a removed object is cleared after the grace period,
/// and handed out again. Its slot's page keeps it; when the page is returned, it is dropped.
///
/// ```
/// use flagstone_epoch::Domain;
/// use flagstone_slab::typed::Pool;
///
/// let domain = Domain::new();
/// let lines: Pool<String> = Pool::new(&domain);
/// let participant = domain.register();
/// let guard = participant.pin();
///
/// let mut line = lines.create(&guard);
/// line.push_str("hello");
/// let key = line.publish();
/// assert_eq!(lines.get(key, &guard).map(String::as_str), Some("hello"));
/// assert!(lines.clear(key, &guard));
/// assert!(lines.get(key, &guard).is_none());
/// ```
///
/// # Panics
/// Every function that takes a guard panics if the guard is of another domain than the pool.
pub struct Pool<T: Clear> {
    pub(super) table: Table<T, Keeps>,
}

impl<T: Clear + Default + Send + 'static> Pool<T> {
    /// An empty pool whose objects are protected by guards of `domain`.
    pub fn new(domain: &Domain) -> Self {
        Builder::new().build_pool(domain)
    }

    /// Takes an object, cleared or new, to be filled and published.
    ///
    /// # Panics
    /// When there is no slot: the limit is reached, or memory is out.
    #[track_caller]
    pub fn create<'g>(&'g self, guard: &'g Guard<'g>) -> Fresh<'g, T> {
        match self.try_create(guard) {
            Ok(fresh) => fresh,
            Err(reason) => no_slot(reason),
        }
    }

    /// The same.
    ///
    /// # Errors
    /// [`NoSlot`] when the limit is reached or memory is out.
    pub fn try_create<'g>(&'g self, guard: &'g Guard<'g>) -> Result<Fresh<'g, T>, NoSlot> {
        let (slot, _) = self.table.take_slot(guard)?;
        if !slot.is_kept() {
            // If `default` panics, the slot has no value and goes back.
            let back = GoBack { table: &self.table, slot, guard };
            let value = T::default();
            // SAFETY: rule T2: the slot is ours, and has no value.
            unsafe { slot.value().write(value) };
            slot.keep();
            std::mem::forget(back);
        }
        Ok(Fresh { table: &self.table, slot, guard })
    }

    /// Takes an object, lets `fill` fill it, and publishes it.
    ///
    /// # Panics
    /// As [`create`](Self::create). If `fill` panics, the object goes back cleared.
    #[track_caller]
    pub fn create_with(&self, guard: &Guard<'_>, fill: impl FnOnce(&mut T)) -> Key {
        let mut fresh = self.create(guard);
        fill(&mut fresh);
        fresh.publish()
    }
}

impl<T: Clear> Pool<T> {
    /// The object of `key`, if it was not given back.
    #[inline]
    pub fn get<'g>(&'g self, key: Key, guard: &'g Guard<'_>) -> Option<&'g T> {
        self.table.check(guard);
        self.table.find(key.index(), key.word())
    }

    /// True if `key` has an object.
    #[inline]
    pub fn contains(&self, key: Key, guard: &Guard<'_>) -> bool {
        self.get(key, guard).is_some()
    }

    /// Gives the object of `key` back; true if it was there. From any thread. It is cleared after the
    /// grace period.
    ///
    /// # Panics
    /// When there is no memory to list the slot. [`try_clear`](Self::try_clear) leaves the object
    /// where it is instead.
    #[inline]
    #[track_caller]
    pub fn clear(&self, key: Key, guard: &Guard<'_>) -> bool {
        match self.try_clear(key, guard) {
            Ok(cleared) => cleared,
            Err(_) => no_slot(NoSlot::OutOfMemory),
        }
    }

    /// The same.
    ///
    /// # Errors
    /// [`OutOfMemory`] when there is no memory to list the slot; the object stays.
    #[inline]
    pub fn try_clear(&self, key: Key, guard: &Guard<'_>) -> Result<bool, OutOfMemory> {
        self.table.remove(key, 0, guard)
    }

    /// Every object that is there during the whole iteration, with its key.
    pub fn iter<'g>(&'g self, guard: &'g Guard<'_>) -> Iter<'g, T> {
        self.table.check(guard);
        Iter::new(&self.table.core)
    }

    /// Published objects: a sum over the threads' counts.
    pub fn len(&self) -> usize {
        self.table.core.len()
    }

    /// True if no object is published.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The domain whose guards protect the objects.
    pub fn domain(&self) -> &Domain {
        &self.table.domain
    }

    /// What the pool knows about itself.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.table)
    }

    /// As [`Slab::park`](super::Slab::park).
    pub fn park(&self, participant: &Participant) {
        self.table.park(participant);
    }

    /// As [`Slab::attach`](super::Slab::attach).
    pub fn attach(self: &Arc<Self>)
    where
        T: Send + Sync + 'static,
    {
        self.table.domain.attach(Arc::downgrade(self) as Weak<dyn Upkeep>);
    }

    /// As [`Slab::maintain`](super::Slab::maintain). Kept objects of returned pages are dropped.
    pub fn maintain(&self) -> Returned {
        self.table.maintain()
    }
}

impl<T: Clear + Send + Sync + 'static> Upkeep for Pool<T> {
    fn park(&self, participant: &Participant) {
        Self::park(self, participant);
    }

    fn maintain(&self) {
        Self::maintain(self);
    }
}

impl<T: Clear> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("domain", &self.table.domain.name())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// An object of a pool before it is published: its holder's alone. Dropped, it goes back cleared.
#[must_use = "the object goes back when this is dropped"]
pub struct Fresh<'g, T: Clear> {
    table: &'g Table<T, Keeps>,
    slot: &'g Slot<T>,
    guard: &'g Guard<'g>,
}

impl<T: Clear> Fresh<'_, T> {
    /// The key that the object will have.
    pub fn key(&self) -> Key {
        Key::new(self.slot.index(), self.slot.word.next())
    }

    /// Lets others find the object.
    pub fn publish(self) -> Key {
        let Self { table, slot, guard } = self;
        std::mem::forget(self);
        if let Ok(shard) = table.shard(guard) {
            shard.inserted.add(1);
        }
        Key::new(slot.index(), slot.word.publish())
    }
}

impl<T: Clear> Deref for Fresh<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: rule T2: the slot is ours, and `try_create` saw to a value.
        unsafe { &*self.slot.value() }
    }
}

impl<T: Clear> DerefMut for Fresh<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; nobody else has the slot.
        unsafe { &mut *self.slot.value() }
    }
}

impl<T: Clear> Drop for Fresh<'_, T> {
    fn drop(&mut self) {
        // The slot goes back whether or not clearing panics.
        let _back = GoBack { table: self.table, slot: self.slot, guard: self.guard };
        (**self).clear();
    }
}

impl<T: Clear> fmt::Debug for Fresh<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fresh").field("key", &self.key()).finish_non_exhaustive()
    }
}

/// Gives a slot back when dropped.
struct GoBack<'g, T: Clear> {
    table: &'g Table<T, Keeps>,
    slot: &'g Slot<T>,
    guard: &'g Guard<'g>,
}

impl<T: Clear> Drop for GoBack<'_, T> {
    fn drop(&mut self) {
        self.table.give_back(self.slot, self.guard);
    }
}

macro_rules! clears_itself {
    ($($(#[$doc:meta])* [$($generics:tt)*] $type:ty),* $(,)?) => {
        $(impl<$($generics)*> Clear for $type {
            fn clear(&mut self) {
                Self::clear(self);
            }
        })*
    };
}

clears_itself! {
    [] String,
    [T] Vec<T>,
    [T] VecDeque<T>,
    [K, V] BTreeMap<K, V>,
    [T] BTreeSet<T>,
    [K, V, S: BuildHasher] HashMap<K, V, S>,
    [T, S: BuildHasher] HashSet<T, S>,
}

impl<T> Clear for Option<T> {
    fn clear(&mut self) {
        *self = None;
    }
}

impl<T: Clear + ?Sized> Clear for Box<T> {
    fn clear(&mut self) {
        (**self).clear();
    }
}
