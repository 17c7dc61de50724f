//! The pool: segments, and the free slices in them.
//!
//! Owns every segment of a heap and the slabs nobody uses. Protocol (rule P1): the lock guards each
//! segment's `free`, `dirty`, `freed_at` and list links, and the pool's figures; a slice that is in
//! neither mask belongs to a slab or to a purge under way. System calls run outside the lock: a
//! purge first takes its slices out of both masks, so nobody can hand them out meanwhile.
//!
//! Decay: a free slice stays populated for the decay time, because bursts come back; then its pages
//! go to the system, all but the retain budget of a pool that is in use. A segment without a slab,
//! whose slices have all decayed, is unmapped, all but one. What the system refuses to purge (locked
//! pages) stays populated and is asked for again by the next pass, never twice by the same; whole
//! segments are unmapped all the same.

use std::ptr::NonNull;

use super::Means;
use super::guard::guard_head;
use super::segments::{Expired, Pass, Segments};
use super::walked::AllSegments;
use crate::counter::{Counter, Figure};
use crate::layout::{
    ALL_FREE, ClassInfo, Kind, MAX_CLASSES, Owner, SEGMENT_BYTES, SLICE_BYTES, Segment, SegmentMap,
    Slab, run_mask,
};
use crate::lock::{ContentionThreshold, CountedLock, Held};
use crate::os;
use crate::port::Backing;
use crate::stats::{LockSite, LockSnapshot, SegmentSnapshot, SegmentUse};
use crate::sync::const_off_loom;

/// The pool of one heap.
pub(crate) struct Pool {
    inner: CountedLock<Segments>,
    /// Every segment, for those who walk without the lock.
    pub(super) all: AllSegments,
    figures: Figures,
    /// Coarse time at which a slab was last taken; written under the lock.
    last_take: Figure,
}

/// The pool's lock, held.
pub(super) type PoolLock<'a> = Held<'a, Segments>;

/// Written under the lock, read by anyone.
struct Figures {
    segments: Counter,
    mapped_total: Counter,
    unmapped_total: Counter,
    dirty_slices: Counter,
    clean_slices: Counter,
    purged_bytes: Counter,
    purges: Counter,
    refused_purges: Counter,
    slabs_returned: Counter,
    /// Slabs in use per class.
    class_slabs: [Counter; MAX_CLASSES],
}

/// How far one decay pass goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DecayLimit {
    /// Milliseconds that a slice must have been free.
    pub(crate) age_millis: u32,
    /// Bytes of free pages that stay, if slabs were taken within that time.
    pub(crate) retain_bytes: u64,
    /// Slices given back at most; a segment that is unmapped counts with its populated ones.
    pub(crate) slices: u64,
    /// Segments looked at, at most.
    pub(crate) visits: usize,
}

impl DecayLimit {
    /// Everything of an age.
    pub(crate) fn all(age_millis: u32) -> Self {
        Self { age_millis, retain_bytes: 0, slices: u64::MAX, visits: usize::MAX }
    }
}

/// What a decay pass gave back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Decayed {
    /// Populated bytes of free slices that were purged.
    pub(crate) slab_bytes: u64,
    /// Segments unmapped.
    pub(crate) segments: u64,
    /// Populated bytes that went with them.
    pub(crate) segment_bytes: u64,
    /// Bytes that the backing refused to purge.
    pub(crate) refused_bytes: u64,
    /// Whether the limit ended the pass before it had been everywhere.
    pub(crate) more: bool,
}

/// What a batch of a pass holds: purged in one go between two holds of the lock.
const BATCH: usize = 32;

impl Pool {
    const_off_loom! {
        pub(crate) fn new() -> Self {
            Self {
                inner: CountedLock::new(Segments::new()),
                all: AllSegments::new(),
                figures: Figures {
                    segments: Counter::new(),
                    mapped_total: Counter::new(),
                    unmapped_total: Counter::new(),
                    dirty_slices: Counter::new(),
                    clean_slices: Counter::new(),
                    purged_bytes: Counter::new(),
                    purges: Counter::new(),
                    refused_purges: Counter::new(),
                    slabs_returned: Counter::new(),
                    class_slabs: [const { Counter::new() }; MAX_CLASSES],
                },
                last_take: Figure::new(0),
            }
        }
    }

    /// Holds the lock without timing the hold: over a fork.
    pub(super) fn hold(&self, threshold: &ContentionThreshold) -> PoolLock<'_> {
        self.inner.lock(threshold).untimed()
    }

    pub(super) fn lock(&self, threshold: &ContentionThreshold) -> PoolLock<'_> {
        self.inner.lock(threshold)
    }

    /// A fresh slab of a class for `owner`, who owns it from here on, and whether it reads as zeros.
    /// `None` when there is no memory.
    pub(crate) fn take(
        &self,
        class: usize,
        info: &ClassInfo,
        owner: Owner,
        means: &Means<'_>,
    ) -> Option<(&'static Slab, bool)> {
        let &Means { id, backing, threshold, huge_pages, .. } = means;
        let slices = info.slices as usize;
        let common = owner.is_common();
        {
            let mut pool = self.inner.lock(threshold);
            if let Some((segment, first)) = pool.find(slices, common, false) {
                return Some(self.carve(&mut pool, segment, first, class, info, owner));
            }
        }
        let Some(base) = backing.map(SEGMENT_BYTES, SEGMENT_BYTES) else {
            // Rather mixed than refused.
            let mut pool = self.inner.lock(threshold);
            let (segment, first) = pool.find(slices, common, true)?;
            return Some(self.carve(&mut pool, segment, first, class, info, owner));
        };
        if let Some(huge) = huge_pages.advice(false) {
            // SAFETY: just mapped.
            unsafe { backing.advise_huge(base, SEGMENT_BYTES, huge) };
        }
        if !SegmentMap::covers(base.addr().get(), SEGMENT_BYTES) {
            // SAFETY: just mapped, nobody else knows of it.
            unsafe { backing.unmap(base, SEGMENT_BYTES) };
            return None;
        }
        // SAFETY: a fresh mapping of the right size and alignment.
        let segment = unsafe { &*Segment::set_up(base.as_ptr(), id) };
        SegmentMap::set(base.addr().get(), Kind::Segment(id));
        guard_head(segment, backing);
        let mut pool = self.inner.lock(threshold);
        self.figures.segments.add(1);
        self.figures.mapped_total.add(1);
        self.figures.clean_slices.add(u64::from(ALL_FREE.count_ones()));
        pool.insert(segment);
        // SAFETY: the lock is held, and the segment is new. It stays until it was taken out in
        // `take_expired` and given to `release`.
        unsafe { self.all.list.insert(segment) };
        // Another thread may have brought slices meanwhile; the new segment surely has some.
        let found = pool.find(slices, common, false).or_else(|| pool.find(slices, common, true));
        let (segment, first) = found?;
        Some(self.carve(&mut pool, segment, first, class, info, owner))
    }

    /// Takes an empty slab back from its owner, unused since a moment in coarse milliseconds.
    ///
    /// # Safety
    /// The caller owns the slab, which holds no block in use and is in no list, and gives it up.
    pub(crate) unsafe fn give(
        &self,
        slab: &'static Slab,
        since: u32,
        threshold: &ContentionThreshold,
    ) {
        let segment = slab.segment();
        let first = slab.first_slice();
        let slices = slab.slices.get() as usize;
        let mask = run_mask(first, slices);
        let mut pool = self.inner.lock(threshold);
        segment.owners[first].set(Owner::NONE);
        self.figures.class_slabs[slab.class.get() as usize].sub(1);
        self.figures.slabs_returned.add(1);
        self.figures.dirty_slices.add(slices as u64);
        for slice in first..first + slices {
            segment.freed_at[slice].set(since);
        }
        segment.table.give_back(first, slices);
        pool.give(segment, mask, mask);
    }

    /// Gives back free slices that have been populated for at least an age, and unmaps segments that
    /// hold nothing, as far as the limit goes.
    pub(crate) fn decay(
        &self,
        limit: DecayLimit,
        backing: &dyn Backing,
        threshold: &ContentionThreshold,
    ) -> Decayed {
        let mut total = Decayed::default();
        self.release_waiting(backing, threshold);
        let now = os::coarse_millis();
        let idle = now.wrapping_sub(self.last_take.get()) >= limit.age_millis;
        let retained = if idle { 0 } else { limit.retain_bytes / SLICE_BYTES as u64 };
        let above = self.figures.dirty_slices.get().saturating_sub(retained);
        let aging = self.inner.lock(threshold).aging();
        let mut pass = Pass {
            now,
            age: limit.age_millis,
            slices: above.min(limit.slices),
            visits: aging.min(limit.visits),
            surplus: true,
        };
        loop {
            let mut batch = [None; BATCH];
            if self.take_expired(&mut pass, &mut batch, threshold) == 0 {
                break;
            }
            let mut done = [0u64; BATCH];
            for (place, done) in batch.iter().zip(&mut done) {
                match *place {
                    Some(Expired::Slices(segment, mask)) => *done = purge(segment, mask, backing),
                    Some(Expired::Whole(segment, _)) => self.release(segment, backing, threshold),
                    None => break,
                }
            }
            self.put_back(&batch, &done, &mut total, threshold);
        }
        total.more = (pass.visits == 0 && aging > limit.visits)
            || (pass.slices == 0 && above > limit.slices);
        total
    }

    /// Takes slices that have expired out under the lock, and segments that are to be unmapped;
    /// returns how many places of the batch are filled.
    fn take_expired(
        &self,
        pass: &mut Pass,
        batch: &mut [Option<Expired>; BATCH],
        threshold: &ContentionThreshold,
    ) -> usize {
        let mut pool = self.inner.lock(threshold);
        let f = &self.figures;
        for (taken, place) in batch.iter_mut().enumerate() {
            *place = pool.take_expired(pass);
            match *place {
                None => return taken,
                Some(Expired::Slices(..)) => {}
                Some(Expired::Whole(segment, populated)) => {
                    // SAFETY: the lock is held; every segment is in the list until here.
                    unsafe { self.all.list.remove(segment) };
                    f.segments.sub(1);
                    f.unmapped_total.add(1);
                    f.dirty_slices.sub(populated);
                    f.clean_slices.sub(u64::from(ALL_FREE.count_ones()) - populated);
                }
            }
        }
        BATCH
    }

    /// Puts the slices of a batch back, of which `done` are purged, and counts what went.
    fn put_back(
        &self,
        batch: &[Option<Expired>; BATCH],
        done: &[u64; BATCH],
        total: &mut Decayed,
        threshold: &ContentionThreshold,
    ) {
        let mut pool = self.inner.lock(threshold);
        let f = &self.figures;
        for (place, &done) in batch.iter().zip(done) {
            match *place {
                None => break,
                Some(Expired::Slices(segment, mask)) => {
                    pool.give(segment, mask, mask & !done);
                    let (clean, kept) = (done.count_ones(), (mask & !done).count_ones());
                    f.dirty_slices.sub(u64::from(clean));
                    f.clean_slices.add(u64::from(clean));
                    f.purges.add(1);
                    f.refused_purges.add(u64::from(kept > 0));
                    f.purged_bytes.add(u64::from(clean) * SLICE_BYTES as u64);
                    total.slab_bytes += u64::from(clean) * SLICE_BYTES as u64;
                    total.refused_bytes += u64::from(kept) * SLICE_BYTES as u64;
                }
                Some(Expired::Whole(_, populated)) => {
                    let bytes = populated * SLICE_BYTES as u64 + Segment::head_bytes() as u64;
                    f.purged_bytes.add(bytes);
                    total.segments += 1;
                    total.segment_bytes += bytes;
                }
            }
        }
    }

    /// Whether there are free slices that have pages.
    pub(crate) fn has_dirty(&self) -> bool {
        self.figures.dirty_slices.get() > 0
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
        self.figures.segments.get() * Segment::head_bytes() as u64
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
            refused_purges_total: f.refused_purges.get(),
            slabs_returned_total: f.slabs_returned.get(),
            // For the heap to fill: it takes a walk.
            in_use: SegmentUse::default(),
        }
    }

    pub(crate) fn lock_snapshot(&self) -> LockSnapshot {
        self.inner.snapshot(LockSite::Segments)
    }

    fn head_rest() -> usize {
        SLICE_BYTES - Segment::head_bytes()
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
    ) -> (&'static Slab, bool) {
        let slices = info.slices as usize;
        let dirty = pool.take(segment, run_mask(first, slices), owner.is_common());
        self.figures.dirty_slices.sub(dirty);
        self.figures.clean_slices.sub(slices as u64 - dirty);
        self.figures.class_slabs[class].add(1);
        self.last_take.set(os::coarse_millis());
        segment.table.hand_out(first, slices, class);
        let slab = &segment.slabs[first];
        slab.set_up(class, info);
        slab.close_all();
        segment.owners[first].set(owner);
        (slab, dirty == 0)
    }
}

/// Purges slices that are in no mask, a call for each run; returns those that the backing purged.
fn purge(segment: &Segment, mask: u64, backing: &dyn Backing) -> u64 {
    let mut done = 0;
    let mut left = mask;
    while left != 0 {
        let first = left.trailing_zeros() as usize;
        let run = (left >> first).trailing_ones() as usize;
        let run_bits = run_mask(first, run);
        left &= !run_bits;
        let start = NonNull::new(segment.start().wrapping_add(first * SLICE_BYTES));
        // SAFETY: the slices are in no mask, so they are ours alone (rule P1).
        if start.is_some_and(|start| unsafe { backing.purge(start, run * SLICE_BYTES) }) {
            done |= run_bits;
        }
    }
    done
}
