//! What a slab is made of: pages, shards, buckets. Lives as long as the slab or a removed value.
//!
//! Owns the directory of pages and that of shards, the buckets and the page numbers. Every chunk holds
//! the core. The slab's drop frees the chunks in shards and buckets; those in limbo go after their
//! reclaim, and the core with the last. So the core must hold neither the domain nor a participant:
//! uncollected garbage would keep them alive (rule T8).

use std::ptr::NonNull;
use std::sync::Arc;

use flagstone_epoch::{Domain, Guard, Participant};

use super::bucket::Bucket;
use super::chunk::{self, Chunk};
use super::directory::{Directory, PagePointer};
use super::error::OutOfMemory;
use super::mode::Mode;
use super::shard::{self, Shard};
use super::slot::Slot;
use super::trim::Trim;
use crate::counter::SharedCounter;
use crate::os::poison;
use crate::sync::{AtomicU32, AtomicUsize, Mutex, Ordering};

/// A slab or a pool: the core, and the domain whose guards protect it.
pub(super) struct Table<T, M: Mode<T>> {
    pub(super) domain: Domain,
    pub(super) core: Arc<Core<T, M>>,
    /// Owns values, and lends them to whoever shares it.
    pub(super) _values: std::marker::PhantomData<T>,
}

pub(super) struct Core<T, M: Mode<T>> {
    pub(super) pages: Directory<Page<T>>,
    /// The first shards are found in one step; further ones through a directory.
    first_shards: [shard::Place<T, M>; FIRST_SHARDS],
    shards: Directory<shard::Place<T, M>>,
    /// Each held apart: see `reclaim`.
    pub(super) buckets: Box<[Arc<Bucket<T, M>>]>,
    pub(super) numbers: Mutex<Numbers>,
    /// Slots handed out of fresh pages and not returned with their pages.
    slots: AtomicUsize,
    /// The most that `slots` may be.
    pub(super) limit: usize,
    /// The most slots that a shard takes at a time.
    pub(super) refill: usize,
    pub(super) trim: Trim,
    pub(super) worn: SharedCounter,
}

/// Shards that need no directory: half a kilobyte, for as many threads as most servers have.
const FIRST_SHARDS: usize = if cfg!(any(miri, flagstone_loom)) { 2 } else { 64 };

/// A page's entry in the directory.
pub(super) struct Page<T> {
    pub(super) slots: PagePointer<Slot<T>>,
    /// The bucket that its slots go back to: the one that made it.
    pub(super) home: AtomicU32,
    /// Slots of it that have had their last value.
    pub(super) worn: AtomicU32,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { slots: PagePointer::new(), home: AtomicU32::new(0), worn: AtomicU32::new(0) }
    }
}

/// Numbers for pages.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// The first number never given.
    pub(super) next: u32,
    /// Numbers of returned pages, and the word that their next page's slots start from.
    pub(super) returned: Vec<(u32, u32)>,
    /// The word that the slots of a page without a past start from.
    pub(super) base: u32,
}

// SAFETY: rules T1 to T6 say which thread touches what. Values are dropped on any thread, hence `Send`;
// lending them is the matter of `Table`, whose marker asks for `Sync`.
unsafe impl<T: Send, M: Mode<T>> Send for Core<T, M> {}
// SAFETY: as above.
unsafe impl<T: Send, M: Mode<T>> Sync for Core<T, M> {}

impl<T, M: Mode<T>> Core<T, M> {
    /// `limit` slots at most, in pages that belong to `buckets` buckets; a page without a past starts
    /// from the word `base`.
    pub(super) fn new(limit: usize, buckets: usize, base: u32) -> Self {
        let limit = limit.min(Slot::<T>::MOST);
        Self {
            pages: Directory::new(),
            first_shards: std::array::from_fn(|_| shard::Place::default()),
            shards: Directory::new(),
            buckets: (0..buckets.max(1)).map(|_| Arc::new(Bucket::new())).collect(),
            numbers: Mutex::new(Numbers { base, ..Numbers::default() }),
            slots: AtomicUsize::new(0),
            limit,
            // Under a limit, what threads keep at hand is at most a small share of it each.
            refill: (limit / 256).clamp(1, chunk::CAPACITY),
            trim: Trim::new::<T>(),
            worn: SharedCounter::new(),
        }
    }

    /// The slot of that number, and its page, if the page is there. For who holds a guard.
    #[inline]
    pub(super) fn slot(&self, index: u32) -> Option<(&Slot<T>, &Page<T>)> {
        let (number, at) = Slot::<T>::locate(index);
        let page = self.pages.get(number)?;
        let slots = page.slots.lookup()?;
        // SAFETY: rule T5: a published page has `PER_PAGE` initialised slots, and stays while a guard
        // is held that was taken before it was withdrawn. `at` is less than `PER_PAGE`.
        Some((unsafe { slots.add(at).as_ref() }, page))
    }

    /// The participant's shard, if it has been made.
    #[inline]
    pub(super) fn shard(&self, participant: &Participant) -> Option<&Shard<T, M>> {
        let number = participant.number();
        match self.first_shards.get(number) {
            Some(place) => place.get(),
            None => self.shards.get(number as u32)?.get(),
        }
    }

    /// Makes the participant's shard.
    #[cold]
    fn make_shard(self: &Arc<Self>, at: &Participant) -> Result<&Shard<T, M>, OutOfMemory> {
        if let Some(place) = self.first_shards.get(at.number()) {
            return place.make(self);
        }
        let number = u32::try_from(at.number()).map_err(|_| OutOfMemory)?;
        self.shards.get_or_grow(number)?.make(self)
    }

    /// One more than the highest number of a shard.
    pub(super) fn shard_numbers(&self) -> usize {
        let places = self.places().filter(|(_, place)| place.get().is_some());
        places.map(|(number, _)| number + 1).last().unwrap_or(0)
    }

    /// Every shard, for its counters.
    pub(super) fn shards(&self) -> impl Iterator<Item = &Shard<T, M>> {
        self.places().filter_map(|(_, place)| place.get())
    }

    /// Places of shards by number, in order.
    fn places(&self) -> impl Iterator<Item = (usize, &shard::Place<T, M>)> {
        let first = self.first_shards.iter().enumerate();
        let further = self.shards.iter().map(|(number, place)| (number as usize, place));
        first.chain(further.filter(|(number, _)| *number >= FIRST_SHARDS))
    }

    /// Pages that are there, with their numbers.
    pub(super) fn pages(&self) -> impl Iterator<Item = (u32, &Page<T>, NonNull<Slot<T>>)> {
        self.pages.iter().filter_map(|(at, page)| Some((at, page, page.slots.lookup()?)))
    }

    /// Bytes of the directories.
    pub(super) fn directory_bytes(&self) -> usize {
        self.pages.bytes() + self.shards.bytes()
    }

    /// Slots in use, free or removed: all but those of fresh pages.
    pub(super) fn slots(&self) -> usize {
        self.slots.load(Ordering::Relaxed)
    }

    /// Counts up to `wanted` more slots in, within the limit. Returns how many.
    pub(super) fn grant(&self, wanted: usize) -> usize {
        let mut granted = 0;
        // Relaxed: a number that guards no memory; check and update are one exchange.
        let _ = self.slots.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |slots| {
            granted = wanted.min(self.limit - slots);
            Some(slots + granted)
        });
        granted
    }

    /// Counts slots out whose pages are returned.
    pub(super) fn ungrant(&self, slots: usize) {
        self.slots.fetch_sub(slots, Ordering::Relaxed);
    }

    /// Values that are there: inserted and not removed.
    pub(super) fn len(&self) -> usize {
        // Removed first: a value is counted in before it can be found and removed.
        let removed: u64 = self.shards().map(|shard| shard.removed.get_before()).sum();
        let inserted: u64 = self.shards().map(|shard| shard.inserted.get()).sum();
        inserted.saturating_sub(removed) as usize
    }

    /// Free slots in buckets.
    pub(super) fn free(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.free()).sum()
    }

    /// The bucket of a participant.
    pub(super) fn home(&self, participant: &Participant) -> usize {
        participant.number() % self.buckets.len()
    }

    /// Allocates a page whose slots start from `base`, and gives them their numbers.
    pub(super) fn new_page(number: u32, base: u32) -> Result<NonNull<Slot<T>>, OutOfMemory> {
        let mut slots = Vec::new();
        slots.try_reserve_exact(Slot::<T>::PER_PAGE).map_err(|_| OutOfMemory)?;
        slots.resize_with(Slot::<T>::PER_PAGE, std::mem::MaybeUninit::<Slot<T>>::uninit);
        let first = NonNull::new(Box::into_raw(slots.into_boxed_slice()).cast::<Slot<T>>());
        let first = first.ok_or(OutOfMemory)?;
        for at in 0..Slot::<T>::PER_PAGE {
            let index = (number << Slot::<T>::PAGE_SHIFT) + at as u32;
            // SAFETY: the page is new, and `at` is in it.
            unsafe { Slot::init(first.add(at), index, base) };
        }
        Ok(first)
    }

    /// Frees a page, with the values that its slots keep.
    ///
    /// # Safety
    /// `slots` came from [`new_page`](Self::new_page); nobody can reach it any more, and no value is
    /// published in it.
    pub(super) unsafe fn free_page(slots: NonNull<Slot<T>>) {
        let page = std::ptr::slice_from_raw_parts_mut(slots.as_ptr(), Slot::<T>::PER_PAGE);
        // Kept values are dropped, and the memory is its allocator's again.
        poison::open(slots.as_ptr().cast(), Slot::<T>::PAGE_BYTES);
        if M::KEEPS {
            // SAFETY: the caller's promise.
            let slots = unsafe { &*page };
            for slot in slots.iter().filter(|slot| slot.is_kept()) {
                // SAFETY: the mark says that a value is there, and nobody else has it.
                unsafe { slot.value().drop_in_place() };
            }
        }
        // SAFETY: it was a boxed slice of slots that may be uninitialised; slots themselves have
        // nothing to drop.
        drop(unsafe { Box::from_raw(page as *mut [std::mem::MaybeUninit<Slot<T>>]) });
    }
}

impl<T, M: Mode<T>> Drop for Core<T, M> {
    fn drop(&mut self) {
        for (_, page) in self.pages.iter() {
            if let Some(slots) = page.slots.lookup() {
                page.slots.withdraw();
                // SAFETY: the slab is gone and has dropped or vacated what was published in it; with
                // the last limbo chunk, which holds the core, so is everything retired.
                unsafe { Self::free_page(slots) };
            }
        }
    }
}

impl<T, M: Mode<T>> Table<T, M> {
    /// Checks that the guard is of the slab's domain: another's protects nothing here, and its
    /// participant's number may be another thread's.
    #[inline]
    pub(super) fn check(&self, guard: &Guard<'_>) {
        if !guard.is_of(&self.domain) {
            foreign_guard();
        }
    }

    /// The shard of the guard's participant.
    #[inline]
    pub(super) fn shard(&self, guard: &Guard<'_>) -> Result<&Shard<T, M>, OutOfMemory> {
        match self.core.shard(guard.participant()) {
            Some(shard) => Ok(shard),
            None => self.core.make_shard(guard.participant()),
        }
    }

    /// The value of a word and a slot number, if it is published.
    #[inline]
    pub(super) fn find(&self, index: u32, word: u32) -> Option<&T> {
        let (slot, _) = self.core.slot(index)?;
        // SAFETY: rule T2 and T6: the word says that this very value is there, and the guard that
        // every caller holds keeps it so for as long as the caller lends the reference.
        slot.word.is(word).then(|| unsafe { &*slot.value() })
    }
}

impl<T, M: Mode<T>> Drop for Table<T, M> {
    fn drop(&mut self) {
        let values = self.core.pages().flat_map(|(_, _, slots)| {
            // SAFETY: rule T5; nobody else uses the table.
            (0..Slot::<T>::PER_PAGE).map(move |at| unsafe { slots.add(at).as_ref() })
        });
        let mut published =
            values.filter_map(|slot| slot.word.published().map(|word| (slot, word)));
        let panic = super::mode::through_panics(|| {
            let Some((slot, word)) = published.next() else { return false };
            let _ = slot.word.remove(word);
            if !M::KEEPS {
                // SAFETY: the value was published, nobody borrows it, and nobody finds it again.
                unsafe { slot.value().drop_in_place() };
            }
            slot.close();
            true
        });
        for shard in self.core.shards() {
            // SAFETY: the table is being dropped, and with it everybody's way to the shard.
            unsafe { shard.free_chunks() };
        }
        for bucket in &self.core.buckets {
            let mut next = bucket.close();
            while let Some(chunk) = next {
                // SAFETY: rule T3: taken out just now.
                next = unsafe { chunk.as_ref() }.next.take();
                // SAFETY: as above.
                unsafe { Chunk::free(chunk) };
            }
        }
        if let Some(payload) = panic
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(payload);
        }
    }
}

#[cold]
#[inline(never)]
fn foreign_guard() -> ! {
    panic!("the guard is of another domain than the slab");
}
