//! Returning pages of which every slot is free.
//!
//! Free slots travel in chunks and nobody counts them by page as they go. A trim takes all chunks out of
//! the buckets, counts their slots by page, picks pages that are all there, and puts the rest back. It
//! costs a few instructions for each free slot, and is due when the free slots have doubled since the
//! last one; so a removal pays for it about once. A page that is picked is withdrawn from the directory
//! and retired: readers with stale keys may be looking at it (rule T5).
//!
//! A returned page's number is used again. Its next page starts from the highest word that the old one
//! had reached, so that old keys stay misses.

use std::ptr::NonNull;

use flagstone_epoch::{Guard, RetireNode};

use super::bucket::Bucket;
use super::chunk::Chunk;
use super::core::{Core, Table};
use super::error::OutOfMemory;
use super::mode::Mode;
use super::slot::Slot;
use crate::counter::SharedCounter;
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};

/// Free pages that are not worth a trim by themselves. Half a megabyte, not measured.
const IDLE_PAGES: usize = if cfg!(any(miri, flagstone_loom)) { 4 } else { 32 };

/// The share of the slots in use that stays free after a trim: one in so many.
const CUSHION: usize = 8;

/// When to trim, and what came of it.
pub(super) struct Trim {
    /// Held by the one thread that trims.
    turn: Mutex<()>,
    /// Free slots from which on a trim is due.
    due_at: AtomicUsize,
    /// Pages returned.
    pub(super) pages: SharedCounter,
}

/// What a trim returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Returned {
    /// Pages, to be freed after a grace period.
    pub pages: usize,
    /// Their bytes.
    pub bytes: usize,
}

impl Trim {
    pub(super) fn new<T>() -> Self {
        Self {
            turn: Mutex::new(()),
            due_at: AtomicUsize::new(IDLE_PAGES * Slot::<T>::PER_PAGE),
            pages: SharedCounter::new(),
        }
    }

    /// Waits for the trim that runs, if one does: it is short and runs no user code.
    pub(super) fn wait(&self) {
        drop(self.turn.lock());
    }

    pub(super) fn begin(&self) -> Option<MutexGuard<'_, ()>> {
        // Nothing panics under the lock. Another thread at it does as well.
        self.turn.try_lock().ok()
    }

    fn done<T>(&self, free: usize) {
        let again = (2 * free).max(free + IDLE_PAGES * Slot::<T>::PER_PAGE);
        self.due_at.store(again, Ordering::Relaxed);
    }
}

/// Memory of a page that nobody finds any more.
#[repr(C)]
struct Gone<T> {
    node: RetireNode,
    slots: Option<NonNull<Slot<T>>>,
    number: u32,
}

impl<T> Gone<T> {
    fn try_new() -> Result<NonNull<Self>, OutOfMemory> {
        let mut one = Vec::new();
        one.try_reserve_exact(1).map_err(|_| OutOfMemory)?;
        one.push(Self { node: RetireNode::new(), slots: None, number: 0 });
        NonNull::new(Box::into_raw(one.into_boxed_slice()).cast::<Self>()).ok_or(OutOfMemory)
    }

    /// # Safety
    /// `node` is the front of what `try_new` gave, and the grace period of its page is over.
    unsafe fn reclaim<M: Mode<T>>(node: NonNull<RetireNode>) {
        // SAFETY: the caller's promise; a boxed slice of one has the layout of its element.
        let gone = unsafe { Box::from_raw(node.cast::<Self>().as_ptr()) };
        if let Some(slots) = gone.slots {
            // SAFETY: withdrawn before it was retired, with all its slots free.
            unsafe { Core::<T, M>::free_page(slots) };
        }
    }
}

/// A list of chunks that one thread has to itself.
struct Chunks<T, M: Mode<T>>(Option<NonNull<Chunk<T, M>>>);

impl<T, M: Mode<T>> Chunks<T, M> {
    fn push_all(&mut self, mut next: Option<NonNull<Chunk<T, M>>>) {
        while let Some(chunk) = next {
            // SAFETY: rule T3: the list's chunks are its holder's.
            let taken = unsafe { chunk.as_ref() };
            next = taken.next.replace(self.0.replace(chunk));
        }
    }

    fn pop(&mut self) -> Option<NonNull<Chunk<T, M>>> {
        let chunk = self.0?;
        // SAFETY: as in `push_all`.
        self.0 = unsafe { chunk.as_ref() }.next.take();
        Some(chunk)
    }

    fn for_each(&self, mut f: impl FnMut(&Chunk<T, M>)) {
        let mut next = self.0;
        while let Some(chunk) = next {
            // SAFETY: as in `push_all`.
            let chunk = unsafe { chunk.as_ref() };
            f(chunk);
            next = chunk.next.get();
        }
    }
}

/// Mark of a page that is picked, where counts of slots are.
const PICKED: u32 = u32::MAX;

impl<T, M: Mode<T>> Table<T, M> {
    /// Returns pages whose slots are all free, except for a cushion. Does nothing while another thread
    /// is at it.
    #[cold]
    pub(super) fn trim(&self, guard: &Guard<'_>) -> Returned {
        let core = &*self.core;
        let Some(turn) = core.trim.begin() else { return Returned::default() };
        let gone = core.withdraw_free_pages();
        drop(turn);

        let pages = gone.len();
        for page in gone {
            // SAFETY:
            // 1. The node is at the front of an allocation of its own.
            // 2. The page was withdrawn above; who still sees it holds a guard.
            // 3. Kept values may drop anywhere: `T` is `Send` and `'static`.
            unsafe {
                let participant = guard.participant();
                participant.retire(page.cast(), Slot::<T>::PAGE_BYTES, Gone::<T>::reclaim::<M>);
            }
        }
        core.trim.pages.add(pages as u64);
        Returned { pages, bytes: pages * Slot::<T>::PAGE_BYTES }
    }
}

impl<T, M: Mode<T>> Core<T, M> {
    /// True if there are enough free slots. Looks at the others only when there are many in the bucket
    /// `home`, because their counts are in other threads' caches.
    pub(super) fn is_trim_due(&self, home: usize) -> bool {
        let due_at = self.trim.due_at.load(Ordering::Relaxed);
        let here = self.buckets[home % self.buckets.len()].free();
        here * self.buckets.len() >= due_at && self.free() >= due_at
    }

    /// Takes pages whose slots are all in buckets out of buckets and directory.
    fn withdraw_free_pages(&self) -> Vec<NonNull<Gone<T>>> {
        let mut all = Chunks(None);
        for bucket in &self.buckets {
            all.push_all(bucket.take_all());
        }
        let mut free = 0;
        all.for_each(|chunk| free += chunk.len());
        let mut gone = Vec::new();
        if let Ok(mut counts) = self.count_by_page(&all) {
            let cushion = self.slots().saturating_sub(free) / CUSHION;
            self.pick(&mut counts, free.saturating_sub(cushion), &mut gone);
            self.drop_picked(&all, &counts);
            free -= gone.iter().map(|page| self.withdraw(*page)).sum::<usize>();
        }
        while let Some(chunk) = all.pop() {
            // SAFETY: rule T3: popped.
            let home = usize::from(unsafe { chunk.as_ref() }.home.get());
            self.put_or_free(chunk, &self.buckets[home % self.buckets.len()]);
        }
        self.trim.done::<T>(free);
        gone
    }

    fn put_or_free(&self, chunk: NonNull<Chunk<T, M>>, bucket: &Bucket<T, M>) {
        if let Some(empty) = bucket.put(chunk) {
            // SAFETY: rule T3: given back, and not needed.
            unsafe { Chunk::free(empty) };
        }
    }

    /// Counts the listed slots by page.
    fn count_by_page(&self, all: &Chunks<T, M>) -> Result<Vec<u32>, OutOfMemory> {
        let pages = self.numbers().next as usize;
        let mut counts = Vec::new();
        counts.try_reserve_exact(pages).map_err(|_| OutOfMemory)?;
        counts.resize(pages, 0);
        all.for_each(|chunk| {
            for at in 0..chunk.len() {
                if let Some(page) = chunk.at(at).map(Self::page_number)
                    && let Some(count) = counts.get_mut(page)
                {
                    *count += 1;
                }
            }
        });
        Ok(counts)
    }

    fn page_number(listed: super::slot::Listed<T>) -> usize {
        // SAFETY: rule T2: listed in a chunk that this thread has; its page stays.
        Slot::<T>::locate(unsafe { listed.slot().as_ref() }.index()).0 as usize
    }

    /// Picks pages whose slots are all free or worn, with up to `budget` free slots together, and marks
    /// them.
    fn pick(&self, counts: &mut [u32], mut budget: usize, gone: &mut Vec<NonNull<Gone<T>>>) {
        // From the highest number down: low ones are filled again, and directories stay small.
        for (number, count) in counts.iter_mut().enumerate().rev() {
            let Some(page) = self.pages.get(number as u32) else { continue };
            let free = *count as usize;
            // Relaxed: a slot that is counted worn is in no list; one that is not counted yet makes
            // the page look incomplete.
            let complete = free + page.worn.load(Ordering::Relaxed) as usize == Slot::<T>::PER_PAGE;
            if !complete || free > budget || page.slots.lookup().is_none() {
                continue;
            }
            // Without memory for the rest, what was picked so far goes.
            if gone.try_reserve(1).is_err() {
                break;
            }
            let Ok(note) = Gone::try_new() else { break };
            // SAFETY: new, and nobody else's.
            unsafe { (*note.as_ptr()).number = number as u32 };
            gone.push(note);
            *count = PICKED;
            budget -= free;
        }
    }

    /// Takes the slots of picked pages out of the chunks.
    fn drop_picked(&self, all: &Chunks<T, M>, counts: &[u32]) {
        all.for_each(|chunk| {
            chunk.retain(|slot, _| {
                // SAFETY: rule T2: listed in a chunk that this thread has; its page stays.
                let (page, _) = Slot::<T>::locate(unsafe { slot.as_ref() }.index());
                counts.get(page as usize).is_none_or(|count| *count != PICKED)
            });
        });
    }

    /// Withdraws a picked page, and returns how many of its slots were free.
    fn withdraw(&self, note: NonNull<Gone<T>>) -> usize {
        // SAFETY: made by `pick`, and retired later; nobody else has it.
        let gone = unsafe { &mut *note.as_ptr() };
        let Some(page) = self.pages.get(gone.number) else { return 0 };
        let Some(slots) = page.slots.lookup() else { return 0 };
        page.slots.withdraw();
        gone.slots = Some(slots);
        // SAFETY: rule T5: it is not retired yet, and all its slots are ours.
        let words = (0..Slot::<T>::PER_PAGE).map(|at| unsafe { slots.add(at).as_ref() }.word.get());
        let base = words.max().unwrap_or(0);
        let _ = self.put_number(gone.number, base, OutOfMemory);
        self.ungrant(Slot::<T>::PER_PAGE);
        Slot::<T>::PER_PAGE - page.worn.load(Ordering::Relaxed) as usize
    }
}
