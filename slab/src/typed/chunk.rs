//! A chunk: an array of slots that change hands together.
//!
//! One kind of chunk goes round. As a shard's *magazine* it holds free slots. Empty, it becomes the
//! shard's spare, and then its *limbo*: it collects the slots that this shard's thread has removed, and
//! is retired as their carrier. After the grace period its reclaim vacates them, and puts the chunk
//! into a bucket, full of free slots. So in the steady state nothing is allocated.
//!
//! A chunk has one holder at a time (rule T3); its fields are cells, and only the way from a pointer to
//! a reference is unsafe.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

use flagstone_epoch::RetireNode;

use super::core::Core;
use super::error::OutOfMemory;
use super::mode::Mode;
use super::slot::{Listed, Slot};

/// Slots of a chunk: so many that a chunk takes 512 bytes. Twice as many made no difference to an
/// insertion and its removal.
pub(super) const CAPACITY: usize = if cfg!(any(miri, flagstone_loom)) { 3 } else { 59 };

// Aligned so that no two threads' chunks share a cache line.
#[repr(C, align(128))]
pub(super) struct Chunk<T, M: Mode<T>> {
    /// Not ours: the domain's, from retirement to reclaim.
    node: RetireNode,
    /// What the slots belong to. Held by every chunk (rule T8), so that retiring one counts nothing.
    core: Arc<Core<T, M>>,
    /// The next chunk of a bucket.
    pub(super) next: Cell<Option<NonNull<Self>>>,
    /// The bucket to go to after the grace period.
    pub(super) home: Cell<u16>,
    len: Cell<u16>,
    /// True if one of the slots is worn.
    worn: Cell<bool>,
    slots: [Cell<MaybeUninit<Listed<T>>>; CAPACITY],
}

#[cfg(all(target_pointer_width = "64", not(any(miri, flagstone_loom))))]
const _: () = assert!(size_of::<Chunk<u64, super::mode::Drops>>() == 512);

impl<T, M: Mode<T>> Chunk<T, M> {
    /// An empty chunk.
    pub(super) fn try_new(core: &Arc<Core<T, M>>) -> Result<NonNull<Self>, OutOfMemory> {
        let mut one = Vec::new();
        one.try_reserve_exact(1).map_err(|_| OutOfMemory)?;
        one.push(Self {
            node: RetireNode::new(),
            core: Arc::clone(core),
            next: Cell::new(None),
            home: Cell::new(0),
            len: Cell::new(0),
            worn: Cell::new(false),
            slots: [const { Cell::new(MaybeUninit::uninit()) }; CAPACITY],
        });
        let array = Box::into_raw(one.into_boxed_slice()).cast::<Self>();
        NonNull::new(array).ok_or(OutOfMemory)
    }

    /// Frees a chunk. What it lists is not touched. The core goes with the last chunk of a slab that is
    /// gone.
    ///
    /// # Safety
    /// It came from [`try_new`](Self::try_new), and nobody else has it.
    pub(super) unsafe fn free(chunk: NonNull<Self>) {
        // SAFETY: the caller's promise; a boxed slice of one has the layout of its element.
        drop(unsafe { Box::from_raw(chunk.as_ptr()) });
    }

    /// What the slots belong to.
    pub(super) fn core(&self) -> &Core<T, M> {
        &self.core
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        usize::from(self.len.get())
    }

    /// The place for another slot, if there is one.
    #[inline]
    pub(super) fn place(&self) -> Option<Place<'_, T, M>> {
        let cell = self.slots.get(self.len())?;
        Some(Place { chunk: self, cell })
    }

    /// True if a worn slot was added.
    pub(super) fn has_worn(&self) -> bool {
        self.worn.get()
    }

    /// Takes the slot that was added last.
    #[inline]
    pub(super) fn pop(&self) -> Option<Listed<T>> {
        let last = self.len.get().checked_sub(1)?;
        // As every length is; told to the compiler.
        let cell = self.slots.get(usize::from(last))?;
        self.len.set(last);
        // SAFETY: the slots below `len` were put in.
        Some(unsafe { cell.get().assume_init() })
    }

    /// Slot number `at`, if there are so many.
    #[inline]
    pub(super) fn at(&self, at: usize) -> Option<Listed<T>> {
        // SAFETY: the slots below `len` were put in.
        (at < self.len()).then(|| unsafe { self.slots[at].get().assume_init() })
    }

    /// Keeps the slots that `keep` says true of.
    pub(super) fn retain(&self, mut keep: impl FnMut(NonNull<Slot<T>>, bool) -> bool) {
        let mut kept = 0;
        for at in 0..self.len() {
            let cell = self.slots[at].get();
            // SAFETY: the slots below `len` were put in.
            let listed = unsafe { cell.assume_init() };
            if keep(listed.slot(), listed.is_worn()) {
                self.slots[kept].set(cell);
                kept += 1;
            }
        }
        self.worn.set(false);
        self.len.set(kept as u16);
    }

    /// Moves slots from `other` until it is empty or this one has `most`.
    pub(super) fn fill_from(&self, other: &Self, most: usize) {
        while self.len() < most.min(CAPACITY) {
            let (Some(place), Some(listed)) = (self.place(), other.pop()) else { return };
            place.put(listed);
        }
    }
}

/// A place in a chunk that is not full.
pub(super) struct Place<'c, T, M: Mode<T>> {
    chunk: &'c Chunk<T, M>,
    cell: &'c Cell<MaybeUninit<Listed<T>>>,
}

impl<T, M: Mode<T>> Place<'_, T, M> {
    /// Adds a slot.
    #[inline]
    pub(super) fn put(self, listed: Listed<T>) {
        self.cell.set(MaybeUninit::new(listed));
        self.chunk.len.set(self.chunk.len.get() + 1);
    }

    /// Adds a slot that has had its last value.
    #[cold]
    pub(super) fn put_worn(self, slot: &Slot<T>) {
        self.chunk.worn.set(true);
        self.put(Listed::worn(slot));
    }
}
