//! Where a shard's free slots come from when its magazine is empty.
//!
//! In this order: its own bucket; another bucket that has plenty; the rest of a fresh page; both buckets
//! again, once no trim has their slots; a new page; any slot anywhere, after a look at what has expired.
//! Locks are taken one at a time, and no user code runs under one.

use std::ptr::NonNull;

use flagstone_epoch::{Guard, Participant};

use super::bucket::Bucket;
use super::chunk;
use super::core::{Core, Table};
use super::error::{NoSlot, OutOfMemory};
use super::mode::Mode;
use super::shard::Shard;
use super::slot::{Listed, Slot};
use super::word::SlotWord;
use crate::sync::Ordering;

/// Bytes of free slots that make another bucket worth a look before a new page. A quarter of a
/// megabyte: with a few chunks' worth instead, two threads that each insert and remove take slots from
/// each other all the time, and pay 2.5 times as much for the cache lines that travel.
const PLENTY_BYTES: usize = 256 << 10;

impl<T, M: Mode<T>> Table<T, M> {
    /// Takes a free slot for the guard's participant.
    #[inline]
    pub(super) fn take_slot(&self, guard: &Guard<'_>) -> Result<(&Slot<T>, &Shard<T, M>), NoSlot> {
        self.check(guard);
        let shard = self.shard(guard)?;
        let slot = match shard.take() {
            Some(slot) => slot,
            None => self.take_slot_slow(guard.participant(), shard)?,
        };
        // SAFETY: rule T2: a free slot is its holder's, which is the caller now; its page stays while
        // it is held.
        let slot = unsafe { slot.as_ref() };
        slot.open();
        Ok((slot, shard))
    }

    /// Gives back a slot that was taken and not published.
    pub(super) fn give_back(&self, slot: &Slot<T>, guard: &Guard<'_>) {
        slot.close();
        let Ok(shard) = self.shard(guard) else { return };
        let listed = Listed::new(slot);
        if let Some(place) = shard.magazine().place() {
            return place.put(listed);
        }
        // Without memory for a chunk the slot stays unused until the slab is dropped.
        let Ok(spare) = shard.take_spare(&self.core) else { return };
        // SAFETY: rule T3: just taken.
        if let Some(place) = unsafe { spare.as_ref() }.place() {
            place.put(listed);
        }
        let bucket = &*self.core.buckets[self.core.home(guard.participant())];
        if let Some(empty) = bucket.put(spare) {
            shard.put_spare(empty);
        }
    }

    #[cold]
    fn take_slot_slow(
        &self,
        participant: &Participant,
        shard: &Shard<T, M>,
    ) -> Result<NonNull<Slot<T>>, NoSlot> {
        let core = &*self.core;
        shard.misses.add(1);
        let refused = match core.refill(shard, core.home(participant)) {
            Ok(()) => {
                shard.owe_chunk();
                return shard.take().ok_or(NoSlot::OutOfMemory);
            }
            Err(refused) => refused,
        };
        // A trim under way has taken free slots out of the buckets; it is soon over.
        core.trim.wait();
        if !core.take_anywhere(shard) {
            // Drops values whose grace period is over; they may use the slab, this shard as well.
            participant.collect();
            if shard.magazine().len() == 0
                && !core.take_anywhere(shard)
                && refused == NoSlot::OutOfMemory
            {
                // What was dropped may be the memory that was missing.
                core.refill(shard, core.home(participant))?;
            }
        }
        shard.take().ok_or(refused)
    }
}

impl<T, M: Mode<T>> Core<T, M> {
    const PLENTY: usize = {
        let slots = PLENTY_BYTES / size_of::<Slot<T>>();
        let chunks = 4 * chunk::CAPACITY;
        if slots > chunks { slots } else { chunks }
    };

    /// Loads the empty magazine of a shard whose bucket is `home`.
    fn refill(&self, shard: &Shard<T, M>, home: usize) -> Result<(), NoSlot> {
        if self.take_near(shard, home) {
            return Ok(());
        }
        // Again only if other threads have used up the page that was added: one of them got on.
        loop {
            let own = &*self.buckets[home];
            let fresh = own.take_fresh(shard.magazine(), self.refill, |wanted| self.grant(wanted));
            if shard.magazine().len() > 0 {
                return Ok(());
            }
            if fresh || self.slots() >= self.limit {
                return Err(self.full());
            }
            // A trim under way has taken the free slots out of the buckets, and brings nearly all back. A
            // page made meanwhile would not be needed and seldom be free as a whole again, so with every
            // pass there would be more.
            self.trim.wait();
            if self.take_near(shard, home) {
                return Ok(());
            }
            self.add_page(home)?;
        }
    }

    /// Loads the empty magazine of a shard from its own bucket `home`, or from one that has plenty.
    fn take_near(&self, shard: &Shard<T, M>, home: usize) -> bool {
        if self.take_chunk(shard, &self.buckets[home]) {
            return true;
        }
        // The first of the others is the next one, so that not all look into the same.
        let others = (1..self.buckets.len()).map(|step| (home + step) % self.buckets.len());
        let mut plenty = others.map(|at| &*self.buckets[at]).filter(|b| b.free() >= Self::PLENTY);
        plenty.any(|bucket| self.take_chunk(shard, bucket))
    }

    /// Loads the empty magazine of a shard from any bucket.
    fn take_anywhere(&self, shard: &Shard<T, M>) -> bool {
        self.buckets.iter().any(|bucket| self.take_chunk(shard, bucket))
    }

    /// Loads the empty magazine of a shard with a chunk of `bucket`, or a part of it.
    fn take_chunk(&self, shard: &Shard<T, M>, bucket: &Bucket<T, M>) -> bool {
        let Some(chunk) = bucket.take() else { return false };
        // SAFETY: rule T3: just taken.
        let taken = unsafe { chunk.as_ref() };
        if taken.len() <= self.refill {
            shard.load_magazine(chunk);
            return true;
        }
        shard.magazine().fill_from(taken, self.refill);
        if let Some(empty) = bucket.put(chunk) {
            shard.put_spare(empty);
        }
        true
    }

    /// Adds a page to the bucket `home`.
    fn add_page(&self, home: usize) -> Result<(), NoSlot> {
        let home_bucket = &self.buckets[home];
        // Before there is a page that nobody could note.
        if !home_bucket.has_room_for_fresh() {
            return Err(NoSlot::OutOfMemory);
        }
        let (number, base) = self.next_number()?;
        let page = match self.pages.get_or_grow(number) {
            Ok(page) => page,
            Err(refused) => return Err(self.put_number(number, base, refused)),
        };
        let slots = match Self::new_page(number, base) {
            Ok(slots) => slots,
            Err(refused) => return Err(self.put_number(number, base, refused)),
        };
        // Relaxed, both: read under a guard, as advice, or after the page was found.
        page.home.store(home as u32, Ordering::Relaxed);
        page.worn.store(0, Ordering::Relaxed);
        page.slots.publish(slots);
        if home_bucket.put_fresh(slots) {
            Ok(())
        } else {
            // Others have taken the room. The page stays, unused, until the slab is dropped.
            Err(NoSlot::OutOfMemory)
        }
    }

    fn next_number(&self) -> Result<(u32, u32), NoSlot> {
        let mut numbers = self.numbers();
        if let Some(returned) = numbers.returned.pop() {
            return Ok(returned);
        }
        if numbers.next >= Slot::<T>::MOST_PAGES {
            return Err(self.full());
        }
        numbers.next += 1;
        Ok((numbers.next - 1, numbers.base))
    }

    /// Keeps the number of a page that there is none of (any more) for another one.
    pub(super) fn put_number(&self, number: u32, base: u32, refused: OutOfMemory) -> NoSlot {
        if base < SlotWord::LAST {
            let mut numbers = self.numbers();
            // Without memory to note it the number is lost; there are two thousand million slots.
            if numbers.returned.try_reserve(1).is_ok() {
                numbers.returned.push((number, base));
            }
        }
        refused.into()
    }

    fn full(&self) -> NoSlot {
        NoSlot::Full { limit: self.limit }
    }

    pub(super) fn numbers(&self) -> crate::sync::MutexGuard<'_, super::core::Numbers> {
        // Nothing panics under the lock.
        self.numbers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(all(test, not(flagstone_loom)))]
mod tests {
    use super::*;
    use crate::typed::mode::Drops;

    #[test]
    fn a_number_without_a_page_is_used_again_unless_it_is_worn() {
        let core: Core<u64, Drops> = Core::new(usize::MAX, 1, 0);
        let (number, base) = core.next_number().expect("numbers left");
        assert_eq!((number, base), (0, 0));
        let _ = core.put_number(number, 8, OutOfMemory);
        assert_eq!(core.next_number(), Ok((0, 8)));
        let _ = core.put_number(number, SlotWord::LAST, OutOfMemory);
        assert_eq!(core.next_number(), Ok((1, 0)), "a worn number never comes again");
    }

    #[test]
    fn grants_stay_within_the_limit() {
        let core: Core<u64, Drops> = Core::new(10, 1, 0);
        assert_eq!(core.grant(6), 6);
        assert_eq!(core.grant(6), 4);
        assert_eq!(core.grant(1), 0);
        core.ungrant(5);
        assert_eq!(core.grant(9), 5);
    }
}
