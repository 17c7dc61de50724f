//! The directory: from a number to its entry, without a lock, for numbers that nobody ever gave out too.
//!
//! Owns a table that grows and never moves. Level `k` is an array for the numbers whose highest bit is
//! bit `k`, made when the first of them is wanted and freed with the directory; so an entry stays where
//! it is, and a reader needs two loads and no length. Any number may be asked for: a level that is not there is a
//! miss, and an entry of a level that is there has been initialised before the level was published.
//!
//! [`PagePointer`] is the entry's own protocol: a page is published with release after its slots are
//! initialised, looked up with acquire, and withdrawn before it is retired (rule T5).

use std::ptr::NonNull;

use super::error::OutOfMemory;
use crate::sync::{AtomicPtr, Ordering, weakened};

/// Entries of the first level: a power of two. Chosen so that small slabs pay 1 KiB, not measured.
const FIRST: u32 = if cfg!(any(miri, flagstone_loom)) { 2 } else { 64 };

/// The first level: that of every number below `FIRST`.
const FIRST_LEVEL: usize = (FIRST - 1).ilog2() as usize;

/// Entries by number.
///
/// A level is stored as the pointer that its entry zero would have, if it had one, so that a number
/// leads to its entry by one addition. That pointer may point outside of the level; it is computed with
/// wrapping arithmetic and never read through.
#[derive(Debug)]
pub struct Directory<E> {
    levels: [AtomicPtr<E>; u32::BITS as usize],
}

/// The level of a number: its highest bit, or the first level.
#[inline]
fn level_of(number: u32) -> usize {
    (number | (FIRST - 1)).ilog2() as usize
}

/// The first number of a level.
fn first_of(level: usize) -> usize {
    if level == FIRST_LEVEL { 0 } else { 1 << level }
}

/// Entries in a level.
fn length_of(level: usize) -> usize {
    if level == FIRST_LEVEL { FIRST as usize } else { 1 << level }
}

impl<E: Default> Directory<E> {
    /// No entries.
    pub fn new() -> Self {
        Self { levels: std::array::from_fn(|_| AtomicPtr::new(std::ptr::null_mut())) }
    }

    /// The entry of `number`, if its level is there.
    #[inline]
    pub fn get(&self, number: u32) -> Option<&E> {
        // Acquire: pairs with the release in `grow`. A level that is seen is seen initialised; one
        // that is not is a miss.
        let level = self.levels[level_of(number)].load(Ordering::Acquire);
        if level.is_null() {
            return None;
        }
        // SAFETY: rule T4: a published level has initialised entries for all its numbers, of which
        // this is one, and stays until `self` is dropped.
        Some(unsafe { &*level.wrapping_add(number as usize) })
    }

    /// The entry of `number`, whose level is made if it is not there.
    pub fn get_or_grow(&self, number: u32) -> Result<&E, OutOfMemory> {
        if let Some(entry) = self.get(number) {
            return Ok(entry);
        }
        self.grow(level_of(number))?;
        self.get(number).ok_or(OutOfMemory)
    }

    #[cold]
    fn grow(&self, level: usize) -> Result<(), OutOfMemory> {
        let mut zero = Self::make(level)?;
        if zero.is_null() {
            // By its place in memory this level would look as if it were not there. The next one is
            // elsewhere, for the first is freed after it was made.
            let first = zero;
            zero = Self::make(level)?;
            // SAFETY: made above, and never published.
            unsafe { free_level(first, level) };
        }
        let order = if weakened("typed_level") {
            Ordering::Relaxed
        } else {
            // Release: pairs with the acquire in `get`. If two grow at once, one level stays.
            Ordering::Release
        };
        let null = std::ptr::null_mut();
        let published = self.levels[level].compare_exchange(null, zero, order, Ordering::Relaxed);
        if published.is_err() {
            // SAFETY: made above, and never published.
            unsafe { free_level(zero, level) };
        }
        Ok(())
    }

    /// Entries for all numbers of a level, as the pointer of entry zero.
    fn make(level: usize) -> Result<*mut E, OutOfMemory> {
        let mut entries = Vec::new();
        entries.try_reserve_exact(length_of(level)).map_err(|_| OutOfMemory)?;
        entries.extend((0..length_of(level)).map(|_| E::default()));
        let first = Box::into_raw(entries.into_boxed_slice()).cast::<E>();
        Ok(first.wrapping_sub(first_of(level)))
    }

    /// The entries that are there, with their numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &E)> {
        self.made().flat_map(|(level, zero)| {
            (first_of(level)..first_of(level) + length_of(level)).map(move |number| {
                // SAFETY: rule T4, as in `get`.
                (number as u32, unsafe { &*zero.wrapping_add(number) })
            })
        })
    }

    /// Bytes of the levels.
    pub fn bytes(&self) -> usize {
        self.made().map(|(level, _)| length_of(level) * size_of::<E>()).sum()
    }
}

impl<E> Directory<E> {
    /// The levels that are there.
    fn made(&self) -> impl Iterator<Item = (usize, *mut E)> {
        // Acquire: as in `get`.
        let levels = self.levels.iter().map(|level| level.load(Ordering::Acquire));
        levels.enumerate().filter(|(_, zero)| !zero.is_null())
    }
}

impl<E> Drop for Directory<E> {
    fn drop(&mut self) {
        for (level, zero) in self.made() {
            // SAFETY: published by `grow`; nobody borrows the directory any more.
            unsafe { free_level(zero, level) };
        }
    }
}

/// # Safety
/// `zero` is what `make` gave for `level`; nobody uses it.
unsafe fn free_level<E>(zero: *mut E, level: usize) {
    let entries = zero.wrapping_add(first_of(level));
    let entries = std::ptr::slice_from_raw_parts_mut(entries, length_of(level));
    // SAFETY: the caller's promise; `make` took it from a boxed slice of this length.
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
        let order = if weakened("typed_page_publish") {
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
        let order = if weakened("typed_page_lookup") {
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
        fn every_number_has_a_place_in_its_level(number: u32) {
            let level = level_of(number);
            prop_assert!((FIRST_LEVEL..32).contains(&level));
            let place = (number as usize).checked_sub(first_of(level));
            prop_assert!(place.is_some_and(|place| place < length_of(level)));
        }
    }

    #[test]
    fn levels_follow_each_other_without_gaps() {
        let mut next = 0;
        for level in FIRST_LEVEL..32 {
            assert_eq!(first_of(level), next);
            next += length_of(level);
        }
        assert_eq!(next, 1 << 32);
    }

    #[test]
    fn entries_are_found_by_number_and_stay() {
        let directory: Directory<std::cell::Cell<u32>> = Directory::new();
        assert!(directory.get(0).is_none());
        assert!(directory.get(u32::MAX).is_none());
        let far = FIRST * 5;
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
