//! The slab: values by key, read under a guard.

use std::fmt;
use std::sync::{Arc, Weak};

use flagstone_epoch::{Domain, Guard, Participant, Upkeep};

use super::config::Builder;
use super::core::Table;
use super::error::{InsertError, NoSlot, OutOfMemory};
use super::iter::{Iter, IterMut};
use super::key::Key;
use super::mode::Drops;
use super::slot::Slot;
use super::stats::Stats;
use super::trim::Returned;
use super::vacant::VacantEntry;

/// Values that threads insert, find and remove by key, without locks and without reference counts.
///
/// A reader holds a [`Guard`] of the slab's [`Domain`] and gets a plain reference. A removed value is
/// out of sight at once; it is dropped, and its slot used again, when no guard is left that was held at
/// that moment. See the [module](super) for an example and for what to mind.
///
/// # Panics
/// Every function that takes a guard panics if the guard is of another domain than the slab.
pub struct Slab<T> {
    pub(super) table: Table<T, Drops>,
}

impl<T: Send + 'static> Slab<T> {
    /// An empty slab whose values are protected by guards of `domain`.
    pub fn new(domain: &Domain) -> Self {
        Builder::new().build(domain)
    }
}

impl Slab<()> {
    /// Settings for a slab.
    pub fn builder() -> Builder {
        Builder::new()
    }
}

impl<T> Slab<T> {
    /// The value of `key`, if it was not removed. Four loads and a comparison; nothing is written.
    #[inline]
    pub fn get<'g>(&'g self, key: Key, guard: &'g Guard<'_>) -> Option<&'g T> {
        self.table.check(guard);
        self.table.find(key.index(), key.word())
    }

    /// True if `key` has a value.
    #[inline]
    pub fn contains(&self, key: Key, guard: &Guard<'_>) -> bool {
        self.get(key, guard).is_some()
    }

    /// Inserts a value.
    ///
    /// # Panics
    /// When there is no slot: the limit is reached, or memory is out. [`try_insert`](Self::try_insert)
    /// gives the value back instead.
    #[inline]
    #[track_caller]
    pub fn insert(&self, value: T, guard: &Guard<'_>) -> Key {
        match self.try_insert(value, guard) {
            Ok(key) => key,
            Err(refused) => no_slot(refused.reason),
        }
    }

    /// Inserts a value.
    ///
    /// # Errors
    /// [`InsertError`] gives the value back when the limit is reached or memory is out.
    #[inline]
    pub fn try_insert(&self, value: T, guard: &Guard<'_>) -> Result<Key, InsertError<T>> {
        let (slot, shard) = match self.table.take_slot(guard) {
            Ok(taken) => taken,
            Err(reason) => return Err(InsertError { rejected: value, reason }),
        };
        // SAFETY: rule T2: the slot is ours, and has no value.
        unsafe { slot.value().write(value) };
        // Before others can remove it: see `Core::len`.
        shard.inserted.add(1);
        Ok(Key::new(slot.index(), slot.word.publish()))
    }

    /// A slot whose key is known before its value: for values that hold their own key.
    ///
    /// # Panics
    /// As [`insert`](Self::insert).
    #[inline]
    #[track_caller]
    pub fn vacant_entry<'g>(&'g self, guard: &'g Guard<'g>) -> VacantEntry<'g, T> {
        match self.try_vacant_entry(guard) {
            Ok(entry) => entry,
            Err(reason) => no_slot(reason),
        }
    }

    /// The same.
    ///
    /// # Errors
    /// [`NoSlot`] when the limit is reached or memory is out.
    #[inline]
    pub fn try_vacant_entry<'g>(
        &'g self,
        guard: &'g Guard<'g>,
    ) -> Result<VacantEntry<'g, T>, NoSlot> {
        let (slot, _) = self.table.take_slot(guard)?;
        Ok(VacantEntry { table: &self.table, slot, guard })
    }

    /// Removes the value of `key`; true if it was there. From any thread.
    ///
    /// Nobody finds the value from now on. It is dropped after the grace period, on whatever thread
    /// finds that over. Until then it counts as pending in the domain's statistics.
    ///
    /// # Panics
    /// When there is no memory to list the slot, about once in 59 removals of a thread.
    /// [`try_remove`](Self::try_remove) leaves the value where it is instead.
    #[inline]
    #[track_caller]
    pub fn remove(&self, key: Key, guard: &Guard<'_>) -> bool {
        match self.try_remove(key, guard) {
            Ok(removed) => removed,
            Err(_) => no_slot(NoSlot::OutOfMemory),
        }
    }

    /// The same.
    ///
    /// # Errors
    /// [`OutOfMemory`] when there is no memory to list the slot; the value stays.
    #[inline]
    pub fn try_remove(&self, key: Key, guard: &Guard<'_>) -> Result<bool, OutOfMemory> {
        self.table.remove(key, 0, guard)
    }

    /// As [`remove`](Self::remove), of a value that holds `bytes` of memory besides its slot: they
    /// count as pending as well, so that the domain's limits on batches and pending bytes are about
    /// what is really held.
    ///
    /// # Panics
    /// As [`remove`](Self::remove).
    #[inline]
    #[track_caller]
    pub fn remove_sized(&self, key: Key, bytes: usize, guard: &Guard<'_>) -> bool {
        match self.table.remove(key, bytes, guard) {
            Ok(removed) => removed,
            Err(_) => no_slot(NoSlot::OutOfMemory),
        }
    }

    /// The value of `key`, to be changed: nobody else has the slab.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (slot, _) = self.table.core.slot(key.index())?;
        // SAFETY: rule T2; nobody borrows any value, because nobody borrows the slab.
        slot.word.is(key.word()).then(|| unsafe { &mut *slot.value() })
    }

    /// Every value that is there during the whole iteration, with its key, in the order of slots. Of
    /// those inserted or removed meanwhile, some are met and some are not.
    pub fn iter<'g>(&'g self, guard: &'g Guard<'_>) -> Iter<'g, T> {
        self.table.check(guard);
        Iter::new(&self.table.core)
    }

    /// Every value, to be changed.
    pub fn iter_mut(&mut self) -> IterMut<'_, T> {
        IterMut::new(&self.table.core)
    }

    /// Values in the slab: a sum over the threads' counts, exact when nobody inserts or removes.
    pub fn len(&self) -> usize {
        self.table.core.len()
    }

    /// True if there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most slots that the slab may have.
    pub fn limit(&self) -> usize {
        self.table.core.limit
    }

    /// The domain whose guards protect the values.
    pub fn domain(&self) -> &Domain {
        &self.table.domain
    }

    /// What the slab knows about itself. Takes each bucket's lock once.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.table)
    }

    /// The participant's thread is about to sleep: gives its free slots to the others. Removed values
    /// are the domain's matter: [`Participant::park`] hands them over.
    pub fn park(&self, participant: &Participant) {
        self.table.park(participant);
    }

    /// What a scavenger does from time to time: collects removed values, gives the free slots of ended
    /// threads to the others, returns pages whose slots are all free. Pages are freed after a grace
    /// period; slabs that are used return pages by themselves when many are free.
    pub fn maintain(&self) -> Returned {
        self.table.maintain()
    }

    /// From now on the domain's threads [park](Self::park) the slab when they sleep, and whoever
    /// maintains the domain [maintains](Self::maintain) it, for as long as somebody else holds it.
    /// Flagstone's runtime does both.
    pub fn attach(self: &Arc<Self>)
    where
        T: Send + Sync + 'static,
    {
        self.table.domain.attach(Arc::downgrade(self) as Weak<dyn Upkeep>);
    }

    /// Bytes of a slot: a value and eight more, aligned.
    pub const SLOT_BYTES: usize = size_of::<Slot<T>>();
}

impl<T: Send + Sync + 'static> Upkeep for Slab<T> {
    fn park(&self, participant: &Participant) {
        Self::park(self, participant);
    }

    fn maintain(&self) {
        Self::maintain(self);
    }
}

#[cold]
#[inline(never)]
#[track_caller]
pub(super) fn no_slot(reason: NoSlot) -> ! {
    panic!("slab: {reason}");
}

impl<T> fmt::Debug for Slab<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slab")
            .field("domain", &self.table.domain.name())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
