//! A slot: a word, its own number, and room for a value.
//!
//! Owns the layout. Eight bytes beside the value, and no link: free and retired slots are listed in
//! [`Chunk`](super::chunk::Chunk)s, outside of them. Readers touch the word, and the value while the
//! word says so; the number and the mark beside it are the holder's (rule T2).
//!
//! Under AddressSanitizer the room for a value is closed while the slot is free: from its page's making to
//! its first use, and from the end of a value's grace period, or from being given back unused, to the next
//! use. Word, number and mark stay open, for readers with stale keys and for who lists the slot.

use std::cell::{Cell, UnsafeCell};
use std::mem::{MaybeUninit, offset_of};
use std::ptr::NonNull;

use super::word::SlotWord;
use crate::os::poison;

/// Bytes of a page, about. Chosen so that a page of small values comes from an allocator's small
/// classes and a thousand scattered survivors keep 16 MiB and not more; not measured.
const PAGE_BYTES: usize = 16 << 10;

// The sanitizer knows memory by eight bytes, so each value's are its own.
#[repr(C)]
#[cfg_attr(flagstone_asan, repr(align(8)))]
pub(super) struct Slot<T> {
    pub(super) word: SlotWord,
    /// The slot's number over the whole slab, and [`KEPT`](Self::KEPT).
    meta: Cell<u32>,
    value: UnsafeCell<MaybeUninit<T>>,
}

impl<T> Slot<T> {
    /// Slots of a page: a power of two, and one at least.
    pub(super) const PER_PAGE: usize = {
        let fit = PAGE_BYTES / size_of::<Self>();
        let most = if cfg!(any(miri, flagstone_loom)) { 4 } else { 1024 };
        if fit >= most {
            most
        } else if fit <= 1 {
            1
        } else {
            1 << fit.ilog2()
        }
    };
    pub(super) const PAGE_SHIFT: u32 = Self::PER_PAGE.ilog2();
    pub(super) const PAGE_BYTES: usize = Self::PER_PAGE * size_of::<Self>();

    /// Slots that a slab can number.
    pub(super) const MOST: usize = 1 << 31;
    /// Pages that a slab can number.
    pub(super) const MOST_PAGES: u32 = (Self::MOST >> Self::PAGE_SHIFT) as u32;

    /// Set when the slot keeps a value from one use to the next, as a pool's do.
    const KEPT: u32 = 1 << 31;

    /// Initialises slot `index`, except for the value, as a free one.
    ///
    /// # Safety
    /// `slot` is valid for writes, and nobody else has it.
    pub(super) unsafe fn init(slot: NonNull<Self>, index: u32, base: u32) {
        debug_assert!(index < Self::KEPT);
        // SAFETY: the caller's promise; both fields are in the slot.
        unsafe {
            (&raw mut (*slot.as_ptr()).word).write(SlotWord::new(base));
            (&raw mut (*slot.as_ptr()).meta).write(Cell::new(index));
            slot.as_ref().close();
        }
    }

    /// The slot's number. The holder only.
    #[inline]
    pub(super) fn index(&self) -> u32 {
        self.meta.get() & !Self::KEPT
    }

    /// True if there is a value in the slot, although none is published. The holder only.
    #[inline]
    pub(super) fn is_kept(&self) -> bool {
        self.meta.get() & Self::KEPT != 0
    }

    /// From now on there is always a value in the slot. The holder only.
    pub(super) fn keep(&self) {
        self.meta.set(self.meta.get() | Self::KEPT);
    }

    /// Where the value is or will be.
    #[inline]
    pub(super) fn value(&self) -> *mut T {
        self.value.get().cast()
    }

    /// Tells the sanitizer, if there is one, that the slot is in use. Its taker only, before the value
    /// is touched.
    #[inline]
    pub(super) fn open(&self) {
        poison::open(self.value().cast(), Self::ROOM_BYTES);
    }

    /// Tells the sanitizer, if there is one, that the slot is free. The holder only, who touches its
    /// value no more.
    #[inline]
    pub(super) fn close(&self) {
        poison::close(self.value().cast(), Self::ROOM_BYTES);
    }

    /// Bytes from the value to the end of the slot.
    const ROOM_BYTES: usize = size_of::<Self>() - offset_of!(Self, value);

    /// The number of the page that slot `index` is in, and its place there.
    #[inline]
    pub(super) fn locate(index: u32) -> (u32, usize) {
        (index >> Self::PAGE_SHIFT, index as usize & (Self::PER_PAGE - 1))
    }
}

/// A slot in a list, and whether it has had its last value. One word: the mark is in the lowest bit.
pub(super) struct Listed<T>(NonNull<Slot<T>>);

impl<T> Clone for Listed<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Listed<T> {}

impl<T> Listed<T> {
    const WORN: usize = 1;

    #[inline]
    pub(super) fn new(slot: &Slot<T>) -> Self {
        Self(NonNull::from(slot))
    }

    pub(super) fn worn(slot: &Slot<T>) -> Self {
        const { assert!(align_of::<Slot<T>>() > Self::WORN) };
        Self(NonNull::from(slot).map_addr(|addr| addr | Self::WORN))
    }

    #[inline]
    pub(super) fn is_worn(self) -> bool {
        self.0.addr().get() & Self::WORN != 0
    }

    #[inline]
    pub(super) fn slot(self) -> NonNull<Slot<T>> {
        // SAFETY: a slot's address without the mark is not zero: it is the slot's address.
        self.0.map_addr(|addr| unsafe { addr_without(addr, Self::WORN) })
    }
}

/// # Safety
/// `addr` has other bits than `mark`.
#[inline]
unsafe fn addr_without(addr: std::num::NonZeroUsize, mark: usize) -> std::num::NonZeroUsize {
    // SAFETY: the caller's promise.
    unsafe { std::num::NonZeroUsize::new_unchecked(addr.get() & !mark) }
}

#[cfg(all(test, not(flagstone_loom)))]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_a_power_of_two_and_one_at_least() {
        assert_eq!(size_of::<Slot<u64>>(), 16);
        assert_eq!(size_of::<Slot<()>>(), 8);
        assert_eq!(Slot::<[u8; 100_000]>::PER_PAGE, 1);
        assert!(Slot::<u64>::PER_PAGE.is_power_of_two());
        assert!(Slot::<[u64; 30]>::PER_PAGE.is_power_of_two());
        const { assert!(Slot::<[u64; 30]>::PAGE_BYTES <= PAGE_BYTES) };
    }

    #[test]
    fn a_listed_slot_keeps_its_mark_apart() {
        let slot = Slot {
            word: SlotWord::new(0),
            meta: Cell::new(5),
            value: UnsafeCell::new(MaybeUninit::<u32>::uninit()),
        };
        let (listed, worn) = (Listed::new(&slot), Listed::worn(&slot));
        assert!(!listed.is_worn() && worn.is_worn());
        assert_eq!(listed.slot(), NonNull::from(&slot));
        assert_eq!(worn.slot(), NonNull::from(&slot));
        slot.keep();
        assert_eq!((slot.index(), slot.is_kept()), (5, true));
    }
}
