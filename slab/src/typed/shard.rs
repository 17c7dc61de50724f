//! A shard: what one participant inserts from and removes into.
//!
//! Owns the magazine of free slots, the limbo chunk that collects removed ones, and the counters. The
//! cells belong to the participant whose number the shard has (rule T1), so the fast paths are plain
//! loads and stores. User code (a value's drop) may run inside any call into the epoch domain and come
//! back to the same shard; cells are in order before such a call and read anew after it (rule T7).

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;

use flagstone_epoch::Carrier;

use super::chunk::Chunk;
use super::core::Core;
use super::error::OutOfMemory;
use super::mode::Mode;
use super::slot::{Listed, Slot};
use crate::counter::Counter;
use crate::sync::{AtomicPtr, Ordering};

/// So much of a shard's past decides where slots go: a few batches' worth.
const MOST_OWED: u8 = 64;

#[repr(align(128))]
pub(super) struct Shard<T, M: Mode<T>> {
    /// Free slots; never dangling before the slab is dropped, often empty.
    magazine: Cell<NonNull<Chunk<T, M>>>,
    /// The chunk that took the last removed slot. It may be long gone: only `carrier` tells.
    pub(super) limbo: Cell<NonNull<Chunk<T, M>>>,
    pub(super) carrier: Cell<Carrier>,
    /// An empty chunk for the next limbo.
    spare: Cell<Option<NonNull<Chunk<T, M>>>>,
    /// Chunks of slots used up and not given back to the own bucket, up to `MOST_OWED`.
    owed: Cell<u8>,

    /// Values inserted, values removed, and insertions that found the magazine empty.
    pub(super) inserted: Counter,
    pub(super) removed: Counter,
    pub(super) misses: Counter,
}

impl<T, M: Mode<T>> Shard<T, M> {
    fn try_new(core: &Arc<Core<T, M>>) -> Result<Self, OutOfMemory> {
        let magazine = Chunk::try_new(core)?;
        Ok(Self {
            magazine: Cell::new(magazine),
            limbo: Cell::new(magazine),
            carrier: Cell::new(Carrier::NONE),
            spare: Cell::new(None),
            owed: Cell::new(0),
            inserted: Counter::new(),
            removed: Counter::new(),
            misses: Counter::new(),
        })
    }

    /// The magazine.
    #[inline]
    pub(super) fn magazine(&self) -> &Chunk<T, M> {
        // SAFETY: rule T3: the shard holds its magazine, and the caller the shard.
        unsafe { self.magazine.get().as_ref() }
    }

    /// Takes a free slot.
    #[inline]
    pub(super) fn take(&self) -> Option<NonNull<Slot<T>>> {
        self.magazine().pop().map(Listed::slot)
    }

    /// Makes `chunk` the magazine, and the empty old one a spare.
    pub(super) fn load_magazine(&self, chunk: NonNull<Chunk<T, M>>) {
        debug_assert_eq!(self.magazine().len(), 0);
        let empty = self.magazine.replace(chunk);
        self.put_spare(empty);
    }

    /// Notes that the magazine was filled.
    pub(super) fn owe_chunk(&self) {
        self.owed.set((self.owed.get() + 1).min(MOST_OWED));
    }

    /// True if the next chunk of removed slots is to go to the shard's own bucket. Threads that insert
    /// and remove keep to their own slots that way; if these went where others insert from, their cache
    /// lines would travel with every turn.
    pub(super) fn pay_chunk(&self) -> bool {
        match self.owed.get().checked_sub(1) {
            Some(left) => {
                self.owed.set(left);
                true
            }
            None => false,
        }
    }

    /// Takes all free slots out, and leaves `empty` in their place.
    pub(super) fn swap_magazine(&self, empty: NonNull<Chunk<T, M>>) -> NonNull<Chunk<T, M>> {
        self.magazine.replace(empty)
    }

    /// An empty chunk: the spare one, or a new one.
    pub(super) fn take_spare(
        &self,
        core: &Arc<Core<T, M>>,
    ) -> Result<NonNull<Chunk<T, M>>, OutOfMemory> {
        self.spare.take().map_or_else(|| Chunk::try_new(core), Ok)
    }

    /// Keeps an empty chunk, or frees it if there is one already.
    pub(super) fn put_spare(&self, chunk: NonNull<Chunk<T, M>>) {
        if self.spare.get().is_none() {
            self.spare.set(Some(chunk));
        } else {
            // SAFETY: rule T3: the caller has the chunk and gives it up.
            unsafe { Chunk::free(chunk) };
        }
    }
}

impl<T, M: Mode<T>> Shard<T, M> {
    /// Frees the chunks, when the slab is dropped.
    ///
    /// # Safety
    /// The caller has the slab to itself, and nobody uses the shard afterwards.
    pub(super) unsafe fn free_chunks(&self) {
        // SAFETY: rule T3: both are the shard's. The limbo chunk is the domain's.
        unsafe {
            Chunk::free(self.magazine.get());
            if let Some(spare) = self.spare.take() {
                Chunk::free(spare);
            }
        }
    }
}

/// The place of a shard in the directory: made by the first participant of its number, never unmade.
pub(super) struct Place<T, M: Mode<T>>(AtomicPtr<Shard<T, M>>);

impl<T, M: Mode<T>> Default for Place<T, M> {
    fn default() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }
}

impl<T, M: Mode<T>> Place<T, M> {
    /// The shard, if it was made.
    #[inline]
    pub(super) fn get(&self) -> Option<&Shard<T, M>> {
        // Acquire: pairs with the release in `make`, for readers of statistics.
        let shard = self.0.load(Ordering::Acquire);
        // SAFETY: rule T4: made once, and there until the place is dropped.
        unsafe { shard.as_ref() }
    }

    /// Makes the shard. Only the participant of its number does (rule T1), so nobody races.
    #[cold]
    pub(super) fn make(&self, core: &Arc<Core<T, M>>) -> Result<&Shard<T, M>, OutOfMemory> {
        let mut one: Vec<Shard<T, M>> = Vec::new();
        one.try_reserve_exact(1).map_err(|_| OutOfMemory)?;
        one.push(Shard::try_new(core)?);
        let shard = Box::into_raw(one.into_boxed_slice()).cast::<Shard<T, M>>();
        // Release: pairs with the acquire in `get`.
        self.0.store(shard, Ordering::Release);
        self.get().ok_or(OutOfMemory)
    }
}

impl<T, M: Mode<T>> Drop for Place<T, M> {
    fn drop(&mut self) {
        let shard = self.0.load(Ordering::Acquire);
        if !shard.is_null() {
            // SAFETY: made in `make` as a boxed slice of one, whose layout is its element's.
            drop(unsafe { Box::from_raw(shard) });
        }
    }
}
