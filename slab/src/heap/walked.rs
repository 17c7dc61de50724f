//! All segments of a heap, walked by statistics while some of them are given back.
//!
//! Owns the list of segments and those that were taken out of it while a walker was inside. Protocol:
//! [`walk`](crate::walk) says when a segment may be unmapped; one that may not be yet waits in a list
//! under the pool's lock until the next decay pass or the end of the walk. It is nobody's then but for
//! walkers: in no figure, in no mask, and its map entry still names the heap.

use std::ptr::{self, NonNull};

use super::Heap;
use super::pool::Pool;
use crate::counter::Counter;
use crate::layout::{ALL_FREE, Kind, SEGMENT_BYTES, Segment, SegmentMap};
use crate::lock::ContentionThreshold;
use crate::os::poison;
use crate::port::Backing;
use crate::stats::{SEGMENT_USES, SegmentUse};
use crate::sync::{Ordering, const_off_loom, fence};
use crate::walk::WalkList;

/// The segments of a heap.
pub(crate) struct AllSegments {
    pub(super) list: WalkList<Segment>,
    /// Segments that wait. Written under the pool's lock; read as a hint.
    waiting: Counter,
}

impl AllSegments {
    const_off_loom! {
        pub(super) fn new() -> Self {
            Self { list: WalkList::new(), waiting: Counter::new() }
        }
    }
}

impl Pool {
    /// Gives a segment back that was taken out of every list, now or when no walker can be at it.
    pub(super) fn release(
        &self,
        segment: &'static Segment,
        backing: &dyn Backing,
        threshold: &ContentionThreshold,
    ) {
        if self.all.list.is_unwalked() {
            return unmap(segment, backing);
        }
        self.wait(segment, segment, 1, threshold);
        // Its last walker may have left before the segment was where that walker looks.
        self.release_waiting(backing, threshold);
    }

    /// Gives back the segments that wait, if no walker can be at them any more.
    pub(super) fn release_waiting(&self, backing: &dyn Backing, threshold: &ContentionThreshold) {
        if self.all.waiting.get() == 0 {
            return;
        }
        let (first, count) = {
            let mut pool = self.lock(threshold);
            let count = self.all.waiting.get();
            self.all.waiting.set(0);
            (std::mem::replace(pool.waiting(), ptr::null()), count)
        };
        // SAFETY: what waits is mapped, and what was taken from the list is ours alone.
        let Some(segment) = (unsafe { first.as_ref() }) else { return };
        let mut last = segment;
        if !self.all.list.is_unwalked() {
            // SAFETY: as above.
            while let Some(next) = unsafe { last.waiting.get().as_ref() } {
                last = next;
            }
            return self.wait(segment, last, count, threshold);
        }
        let mut at = first;
        // SAFETY: as above; the link is read before the segment goes.
        while let Some(segment) = unsafe { at.as_ref() } {
            at = segment.waiting.get();
            unmap(segment, backing);
        }
    }

    /// Lets a chain of segments wait.
    fn wait(
        &self,
        first: &'static Segment,
        last: &Segment,
        count: u64,
        threshold: &ContentionThreshold,
    ) {
        let mut pool = self.lock(threshold);
        let waiting = pool.waiting();
        last.waiting.set(*waiting);
        *waiting = first;
        self.all.waiting.add(count);
    }
}

impl Heap {
    /// Walks every segment and counts how much of each is in use, while segments come and go.
    pub(crate) fn walk_segments(&self) -> SegmentUse {
        let mut seen = SegmentUse::default();
        let last = self.pool.all.list.walk(|segment| {
            let all = ALL_FREE.count_ones();
            let used = all - (segment.free.get() & ALL_FREE).count_ones();
            seen.segments_by_use[use_of(used, all)] += 1;
            seen.used_slices += u64::from(used);
            seen.populated_free_slices += u64::from(segment.dirty.get().count_ones());
        });
        // SeqCst: between counting out and the look at what waits; its other side stands in
        // `is_unwalked`, between letting a segment wait and the look at the count.
        fence(Ordering::SeqCst);
        if last {
            self.pool.release_waiting(self.backing, &self.threshold);
        }
        seen
    }
}

/// Which count of [`SegmentUse::segments_by_use`] a segment belongs to.
fn use_of(used: u32, all: u32) -> usize {
    match used {
        0 => 0,
        used if used == all => SEGMENT_USES - 1,
        // The quarter that it lies in: 1 to 4.
        used => 1 + (4 * (used - 1) / (all - 1)) as usize,
    }
}

/// Gives a segment's address space back.
fn unmap(segment: &Segment, backing: &dyn Backing) {
    SegmentMap::set(segment.start().addr(), Kind::Foreign);
    if let Some(base) = NonNull::new(segment.start()) {
        poison::open(segment.start(), SEGMENT_BYTES);
        // SAFETY: no slab, no list and no mask names the segment any more; no block of it is out
        // (rule S3), and no walker is at it (rule W1), so nobody reads its head.
        unsafe { backing.unmap(base, SEGMENT_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::{GlobalAlloc, Layout};

    use super::*;
    use crate::Flagstone;

    #[test]
    fn what_a_walker_may_be_at_is_unmapped_when_it_has_left() {
        let heap = Heap::global();
        let layout = Layout::from_size_align(100_000, 8).expect("a layout");
        let fill_segments = || {
            // SAFETY: of some bytes.
            let blocks: Vec<_> = (0..200).map(|_| unsafe { Flagstone.alloc(layout) }).collect();
            let inside = blocks[100].addr();
            assert!(matches!(SegmentMap::kind(inside), Kind::Segment(_)));
            for block in blocks {
                // SAFETY: allocated above.
                unsafe { Flagstone.dealloc(block, layout) };
            }
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let mut first = true;
        heap.pool.all.list.walk(|_| {
            if std::mem::replace(&mut first, false) {
                // Other tests purge as well, and may have been first.
                fill_segments();
                while heap.purge().scavenged.segments_unmapped == 0 {
                    assert!(std::time::Instant::now() < deadline, "nothing to unmap");
                    fill_segments();
                }
                assert!(heap.pool.all.waiting.get() > 0, "unmapped under a walker");
                heap.purge();
                assert!(heap.pool.all.waiting.get() > 0, "unmapped under a walker");
            }
        });
        // Walks of other tests may overlap with ours.
        while heap.pool.all.waiting.get() > 0 {
            assert!(std::time::Instant::now() < deadline, "still mapped");
            heap.walk_segments();
        }
    }

    #[test]
    fn every_share_of_a_segment_has_its_count() {
        let all = ALL_FREE.count_ones();
        assert_eq!(use_of(0, all), 0);
        assert_eq!(use_of(1, all), 1);
        assert_eq!(use_of(all - 1, all), 4);
        assert_eq!(use_of(all, all), SEGMENT_USES - 1);
        assert!((1..=all).is_sorted_by_key(|used| use_of(used, all)));
    }
}
