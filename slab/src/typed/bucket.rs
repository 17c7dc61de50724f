//! Buckets: free slots on their way from the threads that removed to the threads that insert.
//!
//! Owns, under one lock, a list of chunks of free slots and the rests of fresh pages. A shard comes here
//! when its magazine is empty, a reclaim when it has vacated a chunk: once for each chunk of slots, so
//! a lock is enough. There are a few buckets, so that it is rarely contended; which one a slot goes to
//! is a matter of balance only, and a shard that finds its own bucket empty looks into the others.

use std::ptr::NonNull;

use super::chunk::{CAPACITY, Chunk};
use super::mode::Mode;
use super::slot::{Listed, Slot};
use crate::counter::Counter;
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};

#[repr(align(128))]
pub(super) struct Bucket<T, M: Mode<T>> {
    inside: Mutex<Inside<T, M>>,
    /// Slots in the chunks: advice for those who look for some.
    free: AtomicUsize,
    /// Slots that reclaims have put in.
    pub(super) reclaimed: Counter,
}

struct Inside<T, M: Mode<T>> {
    first: Option<NonNull<Chunk<T, M>>>,
    fresh: Vec<Fresh<T>>,
    /// The slab is gone: chunks are not kept.
    closed: bool,
}

/// The slots of a page that were never handed out: those from `next` on.
struct Fresh<T> {
    slots: NonNull<Slot<T>>,
    next: usize,
}

impl<T, M: Mode<T>> Bucket<T, M> {
    pub(super) fn new() -> Self {
        Self {
            inside: Mutex::new(Inside { first: None, fresh: Vec::new(), closed: false }),
            free: AtomicUsize::new(0),
            reclaimed: Counter::new(),
        }
    }

    /// Free slots in the chunks, as far as one can tell without the lock.
    pub(super) fn free(&self) -> usize {
        self.free.load(Ordering::Relaxed)
    }

    /// Slots of fresh pages.
    pub(super) fn fresh(&self) -> usize {
        let inside = self.lock();
        inside.fresh.iter().map(|fresh| Slot::<T>::PER_PAGE - fresh.next).sum()
    }

    /// Takes a chunk, which is not empty.
    pub(super) fn take(&self) -> Option<NonNull<Chunk<T, M>>> {
        if self.free() == 0 {
            return None;
        }
        let mut inside = self.lock();
        let chunk = inside.first?;
        // SAFETY: rule T3: a chunk in the list is the lock holder's.
        let taken = unsafe { chunk.as_ref() };
        inside.first = taken.next.take();
        self.count_out(taken.len());
        Some(chunk)
    }

    /// Takes all chunks, linked through `next`.
    pub(super) fn take_all(&self) -> Option<NonNull<Chunk<T, M>>> {
        let mut inside = self.lock();
        self.free.store(0, Ordering::Relaxed);
        inside.first.take()
    }

    /// Takes all chunks and keeps none from now on: the slab is gone.
    pub(super) fn close(&self) -> Option<NonNull<Chunk<T, M>>> {
        let mut inside = self.lock();
        inside.closed = true;
        inside.first.take()
    }

    /// Puts a chunk of free slots in, or its slots into the first chunk there. Returns a chunk that is
    /// not needed; it is the caller's, and what it lists is listed elsewhere, or nowhere once the slab
    /// is gone.
    #[must_use]
    pub(super) fn put(&self, chunk: NonNull<Chunk<T, M>>) -> Option<NonNull<Chunk<T, M>>> {
        self.put_counted(chunk, 0)
    }

    /// The same, by a reclaim that has vacated so many slots.
    #[must_use]
    pub(super) fn put_counted(
        &self,
        chunk: NonNull<Chunk<T, M>>,
        reclaimed: usize,
    ) -> Option<NonNull<Chunk<T, M>>> {
        // SAFETY: rule T3: the caller has the chunk.
        let given = unsafe { chunk.as_ref() };
        let mut inside = self.lock();
        self.reclaimed.add(reclaimed as u64);
        if inside.closed {
            return Some(chunk);
        }
        self.free.store(self.free() + given.len(), Ordering::Relaxed);
        if let Some(first) = inside.first {
            // SAFETY: rule T3: a chunk in the list is the lock holder's.
            let first = unsafe { first.as_ref() };
            // Few slots at a time would otherwise fill the bucket with chunks of few slots. More stay
            // where they are: moving them costs the cache lines of two chunks.
            if first.len() + given.len() <= CAPACITY {
                first.fill_from(given, CAPACITY);
            }
        }
        if given.len() == 0 {
            return Some(chunk);
        }
        given.next.set(inside.first);
        inside.first = Some(chunk);
        None
    }

    /// Hands up to `most` fresh slots to `into`, as many as `grant` allows. Returns whether there were
    /// any fresh slots.
    pub(super) fn take_fresh(
        &self,
        into: &Chunk<T, M>,
        most: usize,
        grant: impl FnOnce(usize) -> usize,
    ) -> bool {
        let mut inside = self.lock();
        let Some(fresh) = inside.fresh.last_mut() else { return false };
        let wanted = most.min(CAPACITY - into.len()).min(Slot::<T>::PER_PAGE - fresh.next);
        let granted = grant(wanted);
        // From the last down to the first, so that they are handed out in the order of addresses.
        for at in (fresh.next..fresh.next + granted).rev() {
            // SAFETY: rule T3: the slots from `next` on are the lock holder's; the page stays while
            // one of its slots is not free.
            let slot = unsafe { fresh.slots.add(at).as_ref() };
            if let Some(place) = into.place() {
                place.put(Listed::new(slot));
            }
        }
        fresh.next += granted;
        if fresh.next == Slot::<T>::PER_PAGE {
            inside.fresh.pop();
        }
        true
    }

    /// Makes room for noting a fresh page. Returns false if there is no memory for that.
    #[must_use]
    pub(super) fn has_room_for_fresh(&self) -> bool {
        self.lock().fresh.try_reserve(1).is_ok()
    }

    /// Puts a fresh page in, of which nobody has a slot. Returns false if there is no memory to note
    /// it.
    #[must_use]
    pub(super) fn put_fresh(&self, slots: NonNull<Slot<T>>) -> bool {
        let mut inside = self.lock();
        let room = inside.fresh.try_reserve(1).is_ok();
        if room {
            inside.fresh.push(Fresh { slots, next: 0 });
        }
        room
    }

    fn count_out(&self, slots: usize) {
        // Written under the lock alone, so a load and a store will do.
        self.free.store(self.free() - slots, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Inside<T, M>> {
        // Nothing panics under the lock.
        self.inside.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
