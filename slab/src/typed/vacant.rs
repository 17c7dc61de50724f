//! A slot that is taken and has no value yet.

use std::fmt;

use flagstone_epoch::Guard;

use super::core::Table;
use super::key::Key;
use super::mode::Drops;
use super::slot::Slot;

/// A slot for one value, whose key is known already. Dropped without a value, the slot goes back.
///
/// ```
/// use flagstone_epoch::Domain;
/// use flagstone_slab::typed::{Key, Slab};
///
/// struct Session { key: Key }
///
/// let domain = Domain::new();
/// let sessions = Slab::new(&domain);
/// let participant = domain.register();
/// let guard = participant.pin();
/// let entry = sessions.vacant_entry(&guard);
/// let session = Session { key: entry.key() };
/// let session: &Session = entry.insert(session);
/// assert!(sessions.contains(session.key, &guard));
/// ```
#[must_use = "the slot goes back when the entry is dropped"]
pub struct VacantEntry<'g, T> {
    pub(super) table: &'g Table<T, Drops>,
    pub(super) slot: &'g Slot<T>,
    pub(super) guard: &'g Guard<'g>,
}

impl<'g, T> VacantEntry<'g, T> {
    /// The key that the value will have.
    #[inline]
    pub fn key(&self) -> Key {
        Key::new(self.slot.index(), self.slot.word.next())
    }

    /// Puts the value in, and lends it for as long as the guard is held.
    #[inline]
    pub fn insert(self, value: T) -> &'g T {
        let Self { table, slot, guard } = self;
        std::mem::forget(self);
        // SAFETY: rule T2: the slot is ours, and has no value.
        unsafe { slot.value().write(value) };
        if let Ok(shard) = table.shard(guard) {
            shard.inserted.add(1);
        }
        slot.word.publish();
        // SAFETY: rule T6: the guard was taken before the value could be removed.
        unsafe { &*slot.value() }
    }
}

impl<T> Drop for VacantEntry<'_, T> {
    fn drop(&mut self) {
        self.table.give_back(self.slot, self.guard);
    }
}

impl<T> fmt::Debug for VacantEntry<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VacantEntry").field("key", &self.key()).finish_non_exhaustive()
    }
}
