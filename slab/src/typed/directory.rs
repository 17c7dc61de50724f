//! The directory: from a number to its entry, without a lock, for numbers that nobody ever gave out too.
//!
//! Owns a table that grows and never moves. Level `k` is an array of `FIRST << k` entries, made when
//! the first number in it is wanted and freed with the directory; so an entry stays where it is, and a
//! reader needs two loads and no length. Any number may be asked for: a level that is not there is a
//! miss, and an entry of a level that is there has been initialised before the level was published.
//!
//! [`PagePointer`] is the entry's own protocol: a page is published with release after its slots are
//! initialised, looked up with acquire, and withdrawn before it is retired (rule T5).

use std::ptr::NonNull;

use super::error::OutOfMemory;
use crate::sync::{AtomicPtr, Ordering};

/// Entries of the first level: a power of two. Chosen so that small slabs pay 1 KiB, not measured.
const FIRST: usize = if cfg!(any(miri, flagstone_loom)) { 2 } else { 64 };

/// Enough for any 32-bit number.
const LEVELS: usize = u32::BITS as usize - FIRST.ilog2() as usize + 1;

/// Entries by number.
#[derive(Debug)]
pub struct Directory<E> {
    levels: [AtomicPtr<E>; LEVELS],
}

/// Where a number's entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    level: usize,
    offset: usize,
}

impl Place {
    #[inline]
    fn of(number: u32) -> Self {
        let shifted = u64::from(number) + FIRST as u64;
        let level = (shifted.ilog2() - FIRST.ilog2()) as usize;
        Self { level, offset: (shifted - ((FIRST as u64) << level)) as usize }
    }
}

/// Entries in a level.
fn length(level: usize) -> usize {
    FIRST << level
}

impl<E: Default> Directory<E> {
    /// No entries.
    pub fn new() -> Self {
        Self { levels: std::array::from_fn(|_| AtomicPtr::new(std::ptr::null_mut())) }
    }

    /// The entry of `number`, if its level is there.
    #[inline]
    pub fn get(&self, number: u32) -> Option<&E> {
        let place = Place::of(number);
        // Acquire: pairs with the release in `grow`. A level that is seen is seen initialised; one
        // that is not is a miss.
        let level = NonNull::new(self.levels.get(place.level)?.load(Ordering::Acquire))?;
        // SAFETY: rule T4: a published level has `length(level)` initialised entries and stays until
        // `self` is dropped; `offset` is less than that for every number of the level.
        Some(unsafe { level.add(place.offset).as_ref() })
    }

    /// The entry of `number`, whose level is made if it is not there.
    pub fn get_or_grow(&self, number: u32) -> Result<&E, OutOfMemory> {
        if let Some(entry) = self.get(number) {
            return Ok(entry);
        }
        self.grow(Place::of(number).level)?;
        self.get(number).ok_or(OutOfMemory)
    }

    #[cold]
    fn grow(&self, level: usize) -> Result<(), OutOfMemory> {
        let slot = self.levels.get(level).ok_or(OutOfMemory)?;
        let mut entries = Vec::new();
        entries.try_reserve_exact(length(level)).map_err(|_| OutOfMemory)?;
        entries.extend((0..length(level)).map(|_| E::default()));
        let new = Box::into_raw(entries.into_boxed_slice()).cast::<E>();
        // Release: pairs with the acquire in `get`. If two grow at once, one level stays.
        let published =
            slot.compare_exchange(std::ptr::null_mut(), new, Ordering::Release, Ordering::Relaxed);
        if published.is_err() {
            // SAFETY: made above, and never published.
            unsafe { free_level(new, level) };
        }
        Ok(())
    }

    /// The entries that are there, with their numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &E)> {
        (0..LEVELS).flat_map(move |level| {
            // Acquire: as in `get`.
            let entries = self.levels[level].load(Ordering::Acquire);
            let entries = if entries.is_null() {
                &[]
            } else {
                // SAFETY: rule T4, as in `get`.
                unsafe { std::slice::from_raw_parts(entries, length(level)) }
            };
            let first = length(level) - FIRST;
            entries.iter().enumerate().map(move |(at, entry)| ((first + at) as u32, entry))
        })
    }

    /// Bytes of the levels.
    pub fn bytes(&self) -> usize {
        let levels =
            (0..LEVELS).filter(|&level| !self.levels[level].load(Ordering::Relaxed).is_null());
        levels.map(|level| length(level) * size_of::<E>()).sum()
    }
}

impl<E> Drop for Directory<E> {
    fn drop(&mut self) {
        for (level, entries) in self.levels.iter().enumerate() {
            // Acquire: as in `get`.
            let entries = entries.load(Ordering::Acquire);
            if !entries.is_null() {
                // SAFETY: published by `grow`; nobody borrows the directory any more.
                unsafe { free_level(entries, level) };
            }
        }
    }
}

/// # Safety
/// `entries` is the array that `grow` made for `level`; nobody uses it.
unsafe fn free_level<E>(entries: *mut E, level: usize) {
    let entries = std::ptr::slice_from_raw_parts_mut(entries, length(level));
    // SAFETY: the caller's promise; `grow` took it from a boxed slice of this length.
    drop(unsafe { Box::from_raw(entries) });
}

/// Where a page is found, or null.
#[derive(Debug)]
pub struct PagePointer<P>(AtomicPtr<P>);

impl<P> PagePointer<P> {
    /// No page.
    pub fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// Lets everybody find `page`, all of which is initialised.
    pub fn publish(&self, page: NonNull<P>) {
        let order = if cfg!(flagstone_weaken = "typed_page_publish") {
            Ordering::Relaxed
        } else {
            // Release: pairs with the acquire in `lookup`.
            Ordering::Release
        };
        self.0.store(page.as_ptr(), order);
    }

    /// The page, for who holds a guard.
    #[inline]
    pub fn lookup(&self) -> Option<NonNull<P>> {
        let order = if cfg!(flagstone_weaken = "typed_page_lookup") {
            Ordering::Relaxed
        } else {
            // Acquire: pairs with the release in `publish`. A page that is seen is seen initialised,
            // also by a caller whose key was never issued; one that is not is a miss.
            Ordering::Acquire
        };
        NonNull::new(self.0.load(order))
    }

    /// Lets nobody find the page from now on; those who have found it hold guards.
    pub fn withdraw(&self) {
        // Relaxed: nothing is read through null. That readers who still see the page are waited for
        // is the retirement's matter.
        self.0.store(std::ptr::null_mut(), Ordering::Relaxed);
    }
}

impl<P> Default for PagePointer<P> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(flagstone_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_number_has_a_place_of_its_own(number: u32) {
            let place = Place::of(number);
            prop_assert!(place.level < LEVELS);
            prop_assert!(place.offset < length(place.level));
            prop_assert_eq!(length(place.level) - FIRST + place.offset, number as usize);
        }
    }

    #[test]
    fn entries_are_found_by_number_and_stay() {
        let directory: Directory<std::cell::Cell<u32>> = Directory::new();
        assert!(directory.get(0).is_none());
        assert!(directory.get(u32::MAX).is_none());
        let far = FIRST as u32 * 5;
        let entry = directory.get_or_grow(far).expect("memory");
        entry.set(7);
        assert!(directory.get(0).is_none(), "one level is not the other");
        directory.get_or_grow(0).expect("memory").set(1);
        assert_eq!(directory.get(far).map(|entry| entry.get()), Some(7));
        assert!(std::ptr::eq(entry, directory.get(far).expect("made above")));
        let set: Vec<u32> =
            directory.iter().filter(|(_, entry)| entry.get() > 0).map(|(at, _)| at).collect();
        assert_eq!(set, [0, far]);
    }
}
