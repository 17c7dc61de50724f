//! The pool: segments, and the free slices in them.
//!
//! Owns every segment of a heap and the slabs nobody uses. Protocol (rule P1): the lock guards each
//! segment's `free`, `dirty`, `freed_at` and list links, and the pool's figures; a slice that is in
//! neither mask belongs to a slab or to a purge under way. System calls run outside the lock: a
//! purge first takes its slices out of both masks, so nobody can hand them out meanwhile.
//!
//! Decay: a free slice stays populated for the decay time, because bursts come back; then its pages
//! go to the system. A segment without a slab, whose slices have all decayed, is unmapped, all but
//! one. Without a scavenger the pool decays by itself whenever slabs come back.

use std::ptr::{self, NonNull};

use crate::counter::{Counter, Figure};
use crate::layout::{
    ALL_FREE, ClassInfo, HEAD_BYTES, HeapId, Kind, MAX_CLASSES, Owner, SEGMENT_BYTES, SLICE_BYTES,
    Segment, SegmentMap, Slab, run_mask,
};
use crate::lock::{ContentionThreshold, CountedLock};
use crate::os::{self, debug_check};
use crate::port::Backing;
use crate::stats::{LockSite, LockSnapshot, SegmentSnapshot};

/// The pool of one heap.
pub(crate) struct Pool {
    inner: CountedLock<Segments>,
    figures: Figures,
    /// Coarse time of the last decay pass; written under the lock.
    last_decay: Figure,
}

struct Segments {
    /// Segments with free slices.
    available: *const Segment,
}

// SAFETY: the pointers name segments of this pool, whose guarded fields the lock's holder owns.
unsafe impl Send for Segments {}

/// Written under the lock, read by anyone.
struct Figures {
    segments: Counter,
    mapped_total: Counter,
    unmapped_total: Counter,
    dirty_slices: Counter,
    clean_slices: Counter,
    purged_bytes: Counter,
    purges: Counter,
    slabs_returned: Counter,
    /// Slabs in use per class.
    class_slabs: [Counter; MAX_CLASSES],
}

/// What a decay pass gave back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Decayed {
    pub(crate) bytes: u64,
    pub(crate) segments: u64,
}

/// Runs purged in one go between two holds of the lock.
const PURGE_BATCH: usize = 32;
/// Segments without a slab that stay mapped.
const SPARE_SEGMENTS: u64 = 1;

impl Pool {
    pub(crate) const fn new() -> Self {
        Self {
            inner: CountedLock::new(Segments { available: ptr::null() }),
            figures: Figures {
                segments: Counter::new(),
                mapped_total: Counter::new(),
                unmapped_total: Counter::new(),
                dirty_slices: Counter::new(),
                clean_slices: Counter::new(),
                purged_bytes: Counter::new(),
                purges: Counter::new(),
                slabs_returned: Counter::new(),
                class_slabs: [const { Counter::new() }; MAX_CLASSES],
            },
            last_decay: Figure::new(0),
        }
    }

    /// A fresh slab of a class for `owner`, who owns it from here on. `None` when there is no
    /// memory.
    pub(crate) fn take(
        &self,
        class: usize,
        info: &ClassInfo,
        owner: Owner,
        id: HeapId,
        backing: &dyn Backing,
        threshold: &ContentionThreshold,
    ) -> Option<&'static Slab> {
        let slices = info.slices as usize;
        {
            let mut pool = self.inner.lock(threshold);
            if let Some((segment, first)) = pool.find(slices) {
                return Some(self.carve(&mut pool, segment, first, class, info, owner));
            }
        }
        let base = backing.map(SEGMENT_BYTES, SEGMENT_BYTES)?;
        if !SegmentMap::covers(base.addr().get(), SEGMENT_BYTES) {
            // SAFETY: just mapped, nobody else knows of it.
            unsafe { backing.unmap(base, SEGMENT_BYTES) };
            return None;
        }
        // SAFETY: a fresh mapping of the right size and alignment.
        let segment = unsafe { &*Segment::set_up(base.as_ptr(), id) };
        SegmentMap::set(base.addr().get(), Kind::Segment(id));
        let mut pool = self.inner.lock(threshold);
        self.figures.segments.add(1);
        self.figures.mapped_total.add(1);
        self.figures.clean_slices.add(u64::from(ALL_FREE.count_ones()));
        pool.link(segment);
        // Another thread may have brought slices meanwhile; the new segment surely has some.
        let (segment, first) = pool.find(slices)?;
        Some(self.carve(&mut pool, segment, first, class, info, owner))
    }

    /// Takes an empty slab back from its owner, unused since a moment in coarse milliseconds.
    /// Returns whether a decay pass is due.
    ///
    /// # Safety
    /// The caller owns the slab, which holds no block in use and is in no list, and gives it up.
    pub(crate) unsafe fn give(
        &self,
        slab: &Slab,
        since: u32,
        decay_millis: u32,
        threshold: &ContentionThreshold,
    ) -> bool {
        let segment = slab.segment();
        let first = slab.first_slice();
        let slices = slab.slices.get() as usize;
        let mask = run_mask(first, slices);
        let now = os::coarse_millis();
        let mut pool = self.inner.lock(threshold);
        segment.owners[first].set(Owner::NONE);
        self.figures.class_slabs[slab.class.get() as usize].sub(1);
        self.figures.slabs_returned.add(1);
        self.figures.dirty_slices.add(slices as u64);
        for slice in first..first + slices {
            segment.freed_at[slice].set(since);
        }
        segment.dirty.set(segment.dirty.get() | mask);
        pool.add_free(segment, mask);
        let due = now.wrapping_sub(self.last_decay.get()) > decay_millis;
        if due {
            self.last_decay.set(now);
        }
        due
    }

    /// Purges free slices that have been populated for at least `age_millis`, and unmaps segments
    /// that hold nothing.
    pub(crate) fn decay(
        &self,
        age_millis: u32,
        backing: &dyn Backing,
        threshold: &ContentionThreshold,
    ) -> Decayed {
        let mut total = Decayed::default();
        loop {
            let mut batch = [(ptr::null::<Segment>(), 0u64); PURGE_BATCH];
            let taken = self.inner.lock(threshold).take_expired(&mut batch, age_millis);
            if taken == 0 {
                break;
            }
            let mut done = [0u64; PURGE_BATCH];
            let mut calls = 0;
            for (at, &(segment, mask)) in batch[..taken].iter().enumerate() {
                let mut left = mask;
                while left != 0 {
                    let first = left.trailing_zeros() as usize;
                    let run = (left >> first).trailing_ones() as usize;
                    let run_bits = run_mask(first, run);
                    left &= !run_bits;
                    let start = segment.cast_mut().cast::<u8>().wrapping_add(first * SLICE_BYTES);
                    let start = NonNull::new(start);
                    calls += 1;
                    // SAFETY: the slices are in no mask, so they are ours alone (rule P1).
                    if start.is_some_and(|s| unsafe { backing.purge(s, run * SLICE_BYTES) }) {
                        done[at] |= run_bits;
                    }
                }
            }
            let mut pool = self.inner.lock(threshold);
            self.figures.purges.add(calls);
            let mut refused = false;
            for (at, &(segment, mask)) in batch[..taken].iter().enumerate() {
                // SAFETY: a segment with slices in no mask is not unmapped.
                let segment = unsafe { &*segment };
                let clean = u64::from(done[at].count_ones());
                refused |= done[at] != mask;
                segment.dirty.set(segment.dirty.get() | mask & !done[at]);
                pool.add_free(segment, mask);
                self.figures.dirty_slices.sub(clean);
                self.figures.clean_slices.add(clean);
                self.figures.purged_bytes.add(clean * SLICE_BYTES as u64);
                total.bytes += clean * SLICE_BYTES as u64;
            }
            // Slices that the backing keeps populated would be found expired again at once.
            if refused || taken < PURGE_BATCH {
                break;
            }
        }
        total.segments = self.unmap_empty(backing, threshold);
        total
    }

    /// Slabs of a class in use.
    pub(crate) fn class_slabs(&self, class: usize) -> u64 {
        self.figures.class_slabs[class].get()
    }

    /// Bytes of segments that hold or have just held something: mapped, less what is clean.
    pub(crate) fn populated_bytes(&self) -> u64 {
        let f = &self.figures;
        let heads = f.segments.get() * (SEGMENT_BYTES - Self::head_rest()) as u64;
        heads.saturating_sub(f.clean_slices.get() * SLICE_BYTES as u64)
    }

    /// Bytes of segment heads.
    pub(crate) fn head_bytes(&self) -> u64 {
        self.figures.segments.get() * HEAD_BYTES as u64
    }

    /// Address space of segments without pages: clean slices and the heads' untouched rest.
    pub(crate) fn retained_bytes(&self) -> u64 {
        let f = &self.figures;
        f.clean_slices.get() * SLICE_BYTES as u64 + f.segments.get() * Self::head_rest() as u64
    }

    pub(crate) fn snapshot(&self) -> SegmentSnapshot {
        let f = &self.figures;
        SegmentSnapshot {
            segments: f.segments.get(),
            segment_bytes: SEGMENT_BYTES as u64,
            mapped_total: f.mapped_total.get(),
            unmapped_total: f.unmapped_total.get(),
            free_dirty_bytes: f.dirty_slices.get() * SLICE_BYTES as u64,
            free_clean_bytes: f.clean_slices.get() * SLICE_BYTES as u64,
            purged_bytes_total: f.purged_bytes.get(),
            purges_total: f.purges.get(),
            slabs_returned_total: f.slabs_returned.get(),
        }
    }

    pub(crate) fn lock_snapshot(&self) -> LockSnapshot {
        self.inner.snapshot(LockSite::Segments)
    }

    const fn head_rest() -> usize {
        SLICE_BYTES - HEAD_BYTES
    }

    /// Cuts a slab out of a segment's free slices. The lock is held.
    fn carve(
        &self,
        pool: &mut Segments,
        segment: &'static Segment,
        first: usize,
        class: usize,
        info: &ClassInfo,
        owner: Owner,
    ) -> &'static Slab {
        let slices = info.slices as usize;
        let mask = run_mask(first, slices);
        let dirty = u64::from((segment.dirty.get() & mask).count_ones());
        self.figures.dirty_slices.sub(dirty);
        self.figures.clean_slices.sub(slices as u64 - dirty);
        self.figures.class_slabs[class].add(1);
        segment.dirty.set(segment.dirty.get() & !mask);
        segment.free.set(segment.free.get() & !mask);
        if segment.free.get() == 0 {
            pool.unlink(segment);
        }
        for slice in first..first + slices {
            segment.first[slice].set(first as u8);
        }
        let slab = &segment.slabs[first];
        slab.set_up(class, info);
        segment.owners[first].set(owner);
        slab
    }

    fn unmap_empty(&self, backing: &dyn Backing, threshold: &ContentionThreshold) -> u64 {
        let mut unmapped = 0;
        loop {
            let segment = {
                let mut pool = self.inner.lock(threshold);
                let Some(segment) = pool.take_empty() else { return unmapped };
                self.figures.segments.sub(1);
                self.figures.unmapped_total.add(1);
                self.figures.clean_slices.sub(u64::from(ALL_FREE.count_ones()));
                segment
            };
            SegmentMap::set(segment.addr(), Kind::Foreign);
            unmapped += 1;
            if let Some(base) = NonNull::new(segment.cast_mut().cast::<u8>()) {
                // SAFETY: no slab, no list and no mask names the segment any more; no block of it
                // is out, so nobody reads its head (rule S3).
                unsafe { backing.unmap(base, SEGMENT_BYTES) };
            }
        }
    }
}

impl Segments {
    /// A run of free slices. Segments are asked most recently freed first.
    fn find(&self, slices: usize) -> Option<(&'static Segment, usize)> {
        let mut at = self.available;
        // SAFETY: listed segments are mapped, and their links are the lock holder's (rule P1).
        while let Some(segment) = unsafe { at.as_ref() } {
            if let Some(first) = segment.find_run(slices) {
                return Some((segment, first));
            }
            at = segment.next.get();
        }
        None
    }

    /// Marks slices free and lists their segment if it was not.
    fn add_free(&mut self, segment: &Segment, mask: u64) {
        let before = segment.free.get();
        debug_check!(before & mask == 0, "slices were freed twice");
        segment.free.set(before | mask);
        if before == 0 {
            self.link(segment);
        }
    }

    fn link(&mut self, segment: &Segment) {
        segment.next.set(self.available);
        segment.prev.set(ptr::null());
        // SAFETY: as in `find`.
        if let Some(next) = unsafe { self.available.as_ref() } {
            next.prev.set(segment);
        }
        self.available = segment;
    }

    fn unlink(&mut self, segment: &Segment) {
        let (next, prev) = (segment.next.get(), segment.prev.get());
        // SAFETY: as in `find`.
        unsafe {
            match prev.as_ref() {
                Some(prev) => prev.next.set(next),
                None => self.available = next,
            }
            if let Some(next) = next.as_ref() {
                next.prev.set(prev);
            }
        }
    }

    /// Takes dirty slices of at least an age out of both masks; returns how many segments of the
    /// batch were filled.
    fn take_expired(
        &mut self,
        batch: &mut [(*const Segment, u64); PURGE_BATCH],
        age_millis: u32,
    ) -> usize {
        let now = os::coarse_millis();
        let mut taken = 0;
        let mut at = self.available;
        // SAFETY: as in `find`.
        while let Some(segment) = unsafe { at.as_ref() }
            && taken < PURGE_BATCH
        {
            at = segment.next.get();
            let mut expired = 0;
            let mut left = segment.dirty.get();
            while left != 0 {
                let slice = left.trailing_zeros() as usize;
                left &= left - 1;
                if now.wrapping_sub(segment.freed_at[slice].get()) >= age_millis {
                    expired |= 1 << slice;
                }
            }
            if expired != 0 {
                segment.dirty.set(segment.dirty.get() & !expired);
                segment.free.set(segment.free.get() & !expired);
                if segment.free.get() == 0 {
                    self.unlink(segment);
                }
                batch[taken] = (segment, expired);
                taken += 1;
            }
        }
        taken
    }

    /// Takes out a segment without slab and without populated slices, if more than the spare ones
    /// are there.
    fn take_empty(&mut self) -> Option<*const Segment> {
        let mut empty = 0;
        let mut at = self.available;
        // SAFETY: as in `find`.
        while let Some(segment) = unsafe { at.as_ref() } {
            if segment.free.get() == ALL_FREE && segment.dirty.get() == 0 {
                empty += 1;
                if empty > SPARE_SEGMENTS {
                    self.unlink(segment);
                    return Some(segment);
                }
            }
            at = segment.next.get();
        }
        None
    }
}
