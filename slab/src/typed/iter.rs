//! Walking over every value.

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;

use super::core::{Core, Page};
use super::directory::Directory;
use super::key::Key;
use super::mode::Mode;
use super::slot::Slot;

/// Published slots with their keys, page by page.
struct Published<'g, T> {
    pages: &'g Directory<Page<T>>,
    /// Numbers of the pages still to come.
    numbers: Range<u32>,
    /// The first slot of the page that we are in, and its number.
    page: Option<(NonNull<Slot<T>>, u32)>,
    /// Places still to come in that page.
    places: Range<usize>,
}

impl<'g, T> Published<'g, T> {
    fn new<M: Mode<T>>(core: &'g Core<T, M>) -> Self {
        Self { pages: &core.pages, numbers: 0..core.numbers().next, page: None, places: 0..0 }
    }
}

impl<'g, T: 'g> Iterator for Published<'g, T> {
    type Item = (Key, &'g Slot<T>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((slots, first)) = self.page {
                for at in self.places.by_ref() {
                    // SAFETY: rule T5: the page was found under the guard, or with the slab to
                    // oneself.
                    let slot = unsafe { slots.add(at).as_ref() };
                    if let Some(word) = slot.word.published() {
                        return Some((Key::new(first + at as u32, word), slot));
                    }
                }
            }
            let number = self.numbers.next()?;
            let slots = self.pages.get(number).and_then(|page| page.slots.lookup());
            self.page = slots.map(|slots| (slots, number << Slot::<T>::PAGE_SHIFT));
            self.places = 0..Slot::<T>::PER_PAGE;
        }
    }
}

/// The values of a slab or a pool, under a guard.
pub struct Iter<'g, T>(Published<'g, T>);

impl<'g, T> Iter<'g, T> {
    pub(super) fn new<M: Mode<T>>(core: &'g Core<T, M>) -> Self {
        Self(Published::new(core))
    }
}

impl<'g, T: 'g> Iterator for Iter<'g, T> {
    type Item = (Key, &'g T);

    fn next(&mut self) -> Option<Self::Item> {
        // SAFETY: rule T6: the value was published, and the guard, borrowed for `'g`, keeps it.
        self.0.next().map(|(key, slot)| (key, unsafe { &*slot.value() }))
    }
}

/// The values of a slab, by whoever has it alone.
pub struct IterMut<'s, T>(Published<'s, T>, PhantomData<&'s mut T>);

impl<'s, T> IterMut<'s, T> {
    /// For a borrow of the core that comes from an exclusive one of the slab.
    pub(super) fn new<M: Mode<T>>(core: &'s Core<T, M>) -> Self {
        Self(Published::new(core), PhantomData)
    }
}

impl<'s, T: 's> Iterator for IterMut<'s, T> {
    type Item = (Key, &'s mut T);

    fn next(&mut self) -> Option<Self::Item> {
        // SAFETY: the slab is borrowed exclusively for `'s`, so nobody has the value; each slot is
        // met once.
        self.0.next().map(|(key, slot)| (key, unsafe { &mut *slot.value() }))
    }
}

impl<T> std::fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad("Iter { .. }")
    }
}

impl<T> std::fmt::Debug for IterMut<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad("IterMut { .. }")
    }
}
