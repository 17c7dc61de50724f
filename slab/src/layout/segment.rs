//! Segments: 4 MiB of aligned address space, cut into 64 KiB slices, with everything that is known
//! about them in the first slice's head.
//!
//! Owns the head's layout. The pool's lock guards `free`, `dirty`, `freed_at`, `bin` and the links; the
//! `first` table is written by the pool before a slab is handed out and read by whoever holds a
//! block of it (rule S2); owner words and slab metadata have rules of their own (S1, O1).

use std::ptr;

use super::map::HeapId;
use super::owner::OwnerCell;
use super::slab::Slab;
use crate::counter::{Figure, Mask};
use crate::os;
use crate::shown::Byte;
use crate::sync::Cell;
use crate::walk::{WalkLinks, Walked};

/// Bytes of a segment, and its alignment.
pub(crate) const SEGMENT_BYTES: usize = 4 << 20;
/// Bytes of a slice, the unit that slabs are made of.
pub(crate) const SLICE_BYTES: usize = 64 << 10;
/// Slices of a segment, the head's included.
pub(crate) const SLICES: usize = SEGMENT_BYTES / SLICE_BYTES;

/// All slices but the head's.
pub(crate) const ALL_FREE: u64 = !1;

const _: () = {
    assert!(SLICES == 64, "slices are kept in 64-bit masks");
    assert!(size_of::<Segment>() <= SLICE_BYTES);
};

/// The head of a segment.
#[repr(C)]
pub(crate) struct Segment {
    /// Slices in no slab. Written under the pool lock.
    pub(crate) free: Mask,
    /// Free slices whose pages are populated. Subset of `free`. Written under the pool lock.
    pub(crate) dirty: Mask,
    /// Neighbours among all segments of the heap.
    walk: WalkLinks<Segment>,
    /// The next that waits for walkers to leave, after this one was taken out. Pool lock.
    pub(crate) waiting: Cell<*const Segment>,
    /// Neighbours among segments with as much room. Pool lock.
    pub(crate) by_room: Links,
    /// Neighbours among segments with dirty slices. Pool lock.
    pub(crate) by_age: Links,
    /// Which of the pool's lists `by_room` is in; see `heap/segments.rs`. Pool lock.
    pub(crate) bin: Cell<u8>,
    /// Whether its slabs are buckets' common ones, if there is no want of space. Pool lock.
    pub(crate) common: Cell<bool>,
    /// When a dirty slice became free, in coarse milliseconds. Pool lock.
    pub(crate) freed_at: [Figure; SLICES],
    pub(crate) table: SliceTable,
    /// Owner words, by first slice.
    pub(crate) owners: Owners,
    /// Slab metadata, by first slice.
    pub(crate) slabs: [Slab; SLICES],
    /// Whether slabs have their guards, by first slice, and in the head's place it.
    #[cfg(feature = "hardened")]
    pub(super) guarded: [Byte; SLICES],
}

/// A segment's neighbours in a list.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) next: Cell<*const Segment>,
    pub(crate) prev: Cell<*const Segment>,
}

/// What any thread that frees needs to know of a slice, beside the owner. On cache lines of its own:
/// written only where a slab is handed out or given back.
#[repr(C, align(64))]
pub(crate) struct SliceTable {
    /// The first slice of the slab that a slice belongs to; zero, the head's, where it belongs to none.
    pub(crate) first: [Byte; SLICES],
    /// Classes of slabs, by first slice; in the head's place the number of the heap.
    class: [Byte; SLICES],
}

impl SliceTable {
    /// The heap whose segment this is.
    #[inline(always)]
    pub(crate) fn heap(&self) -> HeapId {
        HeapId(self.class[0].get())
    }

    /// The class of the slab that starts at a slice, which is not the head's.
    #[inline(always)]
    pub(crate) fn class(&self, first: usize) -> usize {
        self.class[first % SLICES].get() as usize
    }

    /// Notes a slab of `slices` from `first` on. The pool, before the slab is handed out.
    pub(crate) fn hand_out(&self, first: usize, slices: usize, class: usize) {
        // First: who only glances finds the class of the slab that it found, or of a later one there.
        self.class[first].set(class as u8);
        for slice in first..first + slices {
            self.first[slice].publish(first as u8);
        }
    }

    /// Notes that slices belong to no slab. The pool.
    pub(crate) fn give_back(&self, first: usize, slices: usize) {
        for slice in first..first + slices {
            self.first[slice].set(0);
        }
    }
}

/// The owner words, on cache lines of their own.
#[repr(C, align(64))]
pub(crate) struct Owners([OwnerCell; SLICES]);

impl Owners {
    /// The word of a slab by its first slice, as the table of first slices has it.
    ///
    /// # Safety
    /// `first` is below [`SLICES`].
    #[inline(always)]
    pub(crate) unsafe fn of_first(&self, first: usize) -> &OwnerCell {
        // SAFETY: by contract.
        unsafe { self.0.get_unchecked(first) }
    }
}

impl std::ops::Index<usize> for Owners {
    type Output = OwnerCell;

    #[inline(always)]
    fn index(&self, slice: usize) -> &OwnerCell {
        &self.0[slice & (SLICES - 1)]
    }
}

impl Walked for Segment {
    fn links(&self) -> &WalkLinks<Self> {
        &self.walk
    }
}

/// The slice of its segment that an address lies in.
#[inline(always)]
pub(crate) fn slice_of(address: usize) -> usize {
    address / SLICE_BYTES % SLICES
}

impl Segment {
    /// The segment base of an address: arithmetic only.
    #[inline(always)]
    pub(crate) fn base_of(address: *mut u8) -> *const Segment {
        address.map_addr(|a| a & !(SEGMENT_BYTES - 1)).cast_const().cast()
    }

    /// Writes the head of a fresh segment.
    ///
    /// # Safety
    /// `base` is a fresh, zeroed, exclusive mapping of [`SEGMENT_BYTES`], aligned to that.
    pub(crate) unsafe fn set_up(base: *mut u8, heap: HeapId) -> *const Segment {
        let segment = base.cast::<Segment>();
        // SAFETY: the mapping is large and aligned enough, and zero bytes are valid for every field
        // (null pointers, zero cells); the fields that start otherwise are
        // written through raw pointers before anybody sees the segment.
        unsafe {
            (*segment).table.class[0].set(heap.0);
            (&raw mut (*segment).free).write(Mask::new(ALL_FREE));
            // Loom's atomics are not made of zeros.
            #[cfg(flagstone_loom)]
            {
                (&raw mut (*segment).walk).write(WalkLinks::new());
                (&raw mut (*segment).owners)
                    .write(Owners(crate::sync::each![OwnerCell::new(); SLICES]));
            }
        }
        segment
    }

    /// Address of the segment's first byte.
    pub(crate) fn start(&self) -> *mut u8 {
        ptr::from_ref(self).cast_mut().cast()
    }

    /// The number of the slice whose metadata entry `slab` is.
    pub(crate) fn index_of(&self, slab: &Slab) -> usize {
        (ptr::from_ref(slab).addr() - self.slabs.as_ptr().addr()) / size_of::<Slab>()
    }

    /// Bytes of the head that are ever touched, in whole pages of this machine.
    pub(crate) fn head_bytes() -> usize {
        size_of::<Segment>().next_multiple_of(os::page_size())
    }

    /// Dirty slices that have been free for at least `age` at `now`, in coarse milliseconds.
    pub(crate) fn expired(&self, now: u32, age: u32) -> u64 {
        let mut expired = 0;
        let mut left = self.dirty.get();
        while left != 0 {
            let slice = left.trailing_zeros() as usize;
            left &= left - 1;
            if now.wrapping_sub(self.freed_at[slice].get()) >= age {
                expired |= 1 << slice;
            }
        }
        expired
    }
}

/// The most bits in a row that are set, or `most` if there are more.
pub(crate) fn longest_run(mask: u64, most: usize) -> usize {
    let mut starts = mask;
    let mut run = 0;
    while starts != 0 && run < most {
        starts &= starts >> 1;
        run += 1;
    }
    run
}

/// The lowest bit that starts `n` set bits in a row.
pub(crate) fn run_in(mask: u64, n: usize) -> Option<usize> {
    let mut starts = mask;
    let mut have = 1;
    // After each step a set bit means "a run of `have` set bits starts here"; doubling needs only
    // log2(n) steps.
    while have < n {
        let step = have.min(n - have);
        starts &= starts >> step;
        have += step;
    }
    (starts != 0).then(|| starts.trailing_zeros() as usize)
}

/// A mask of `n` slices from `first` on.
pub(crate) fn run_mask(first: usize, n: usize) -> u64 {
    debug_assert!(n >= 1 && first + n <= SLICES);
    (u64::MAX >> (64 - n)) << first
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_are_found_exactly_when_they_exist(mask: u64, n in 1usize..64) {
            let expected = (0..=64 - n).find(|&at| mask & run_mask(at, n) == run_mask(at, n));
            prop_assert_eq!(run_in(mask, n), expected);
            prop_assert_eq!(longest_run(mask, n) == n, expected.is_some());
        }
    }
}
