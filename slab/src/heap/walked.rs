//! All segments of a heap, walked by statistics while some of them are given back.
//!
//! Owns the list of segments and those that were taken out of it while a walker was inside. Protocol:
//! [`walk`](crate::walk) says when a segment may be unmapped; one that may not be yet waits in a list
//! under the pool's lock until the next decay pass or the end of the walk. It is nobody's then but for
//! walkers: in no figure, in no mask, and its map entry is cleared, so that who comes by an address
//! ([`Pool::look_at`]) does not find it any more.

use std::ptr::{self, NonNull};

use super::Heap;
use super::guard::forget_head;
use super::pool::Pool;
use crate::layout::{
    ALL_FREE, HeapId, Kind, MAX_CLASSES, Owner, SEGMENT_BYTES, SLICES, Segment, SegmentMap, Slab,
};
use crate::lock::ContentionThreshold;
use crate::os::poison;
use crate::port::Backing;
use crate::stats::{SEGMENT_USES, SegmentUse};
use crate::sync::{AtomicUsize, Ordering, const_off_loom, fence, weakened};
use crate::walk::WalkList;

/// The segments of a heap.
pub(crate) struct AllSegments {
    pub(super) list: WalkList<Segment>,
    waiting: Waiting,
}

impl AllSegments {
    const_off_loom! {
        pub(super) fn new() -> Self {
            Self { list: WalkList::new(), waiting: Waiting(AtomicUsize::new(0)) }
        }
    }
}

/// Whether segments wait. Written under the pool's lock, where it is true; without the lock a hint,
/// for which the fence in [`Pool::walk`] stands. So relaxed both.
struct Waiting(AtomicUsize);

impl Waiting {
    fn load(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    fn store(&self, some: bool) {
        self.0.store(usize::from(some), Ordering::Relaxed);
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
        if !weakened("unmapped_but_in_the_map") {
            // Before the count is asked for: see `look_at`.
            SegmentMap::set(segment.start().addr(), Kind::Foreign);
        }
        if self.all.list.is_unwalked() {
            return unmap(segment, backing);
        }
        {
            let mut pool = self.lock(threshold);
            let waiting = pool.waiting();
            segment.waiting.set(*waiting);
            *waiting = segment;
            self.all.waiting.store(true);
        }
        // Its last walker may have left before the segment was where that walker looks.
        self.release_waiting(backing, threshold);
    }

    /// Gives back the segments that wait, if no walker can be at them any more.
    pub(super) fn release_waiting(&self, backing: &dyn Backing, threshold: &ContentionThreshold) {
        if !self.all.waiting.load() {
            return;
        }
        let mut at = {
            let mut pool = self.lock(threshold);
            // Asked while they still wait: a walker that is inside finds them when it leaves. Were
            // they in our hands meanwhile, it would not, and they would wait for the next pass.
            if !self.all.list.is_unwalked() {
                return;
            }
            self.all.waiting.store(false);
            std::mem::replace(pool.waiting(), ptr::null())
        };
        // SAFETY: what waits is mapped, and what was taken from the list is ours alone; the link is
        // read before the segment goes.
        while let Some(segment) = unsafe { at.as_ref() } {
            at = segment.waiting.get();
            unmap(segment, backing);
        }
    }

    /// Calls `each` for every segment, while segments come and go; then gives those back that waited
    /// for it.
    pub(super) fn walk(
        &self,
        each: impl FnMut(&Segment),
        backing: &dyn Backing,
        threshold: &ContentionThreshold,
    ) {
        let last = self.all.list.walk(each);
        self.left(last, backing, threshold);
    }

    /// Shows the segment of heap `id` that an address lies in, if it does, while segments come and go; then
    /// gives those back that waited for it. The address may be any: only a segment's head is read.
    pub(crate) fn look_at<R>(
        &self,
        address: *const u8,
        id: HeapId,
        look: impl FnOnce(&Segment) -> R,
        backing: &dyn Backing,
        threshold: &ContentionThreshold,
    ) -> Option<R> {
        let is_ours = || SegmentMap::kind(address.addr()) == Kind::Segment(id);
        if !is_ours() {
            return None;
        }
        // Asked again as a walker: who gives a segment back clears its entry before it looks for
        // walkers, so if we find the entry still there it finds us.
        let look = || {
            // SAFETY: rules M1 and W1: an entry that a walker sees leads to a head that stays mapped
            // until the walker has left.
            is_ours().then(|| look(unsafe { &*Segment::base_of(address.cast_mut()) }))
        };
        let (found, last) = self.all.list.inside(look);
        self.left(last, backing, threshold);
        found
    }

    /// A walker has left, as the last one or not.
    fn left(&self, last: bool, backing: &dyn Backing, threshold: &ContentionThreshold) {
        if !weakened("walk_end_fence") {
            // SeqCst: between counting out and the look at what waits; its other side stands in
            // `is_unwalked`, between letting a segment wait and the look at the count.
            fence(Ordering::SeqCst);
        }
        if last {
            self.release_waiting(backing, threshold);
        }
    }

    /// Walks every segment and counts how much of each is in use, while segments come and go. Shows
    /// each slab in use with its class and owner, as they were at some moment.
    pub(crate) fn segment_use(
        &self,
        mut each_slab: impl FnMut(usize, Owner, &Slab),
        backing: &dyn Backing,
        threshold: &ContentionThreshold,
    ) -> SegmentUse {
        let mut seen = SegmentUse::default();
        let each = |segment: &Segment| {
            let all = ALL_FREE.count_ones();
            let used = all - (segment.free.get() & ALL_FREE).count_ones();
            seen.segments_by_use[use_of(used, all)] += 1;
            seen.used_slices += u64::from(used);
            seen.populated_free_slices += u64::from(segment.dirty.get().count_ones());
            for slice in 1..SLICES {
                if segment.table.first[slice].glance() as usize == slice {
                    let class = segment.table.class(slice);
                    each_slab(class, segment.owners[slice].get(), &segment.slabs[slice]);
                }
            }
        };
        self.walk(each, backing, threshold);
        seen
    }
}

impl Heap {
    /// Blocks in use per class.
    ///
    /// What is out of a slab is in use, but for what waits in a shard to be allocated. While threads go
    /// on, both are of slightly different moments.
    pub(crate) fn blocks_in_use(&self) -> [u64; MAX_CLASSES] {
        let mut blocks = [0u64; MAX_CLASSES];
        let each = |class: usize, _, slab: &Slab| blocks[class] += u64::from(slab.glance_out());
        self.pool.segment_use(each, self.backing, &self.threshold);
        self.subtract_spare(&mut blocks);
        blocks
    }

    /// Makes of the blocks that are out, per class, those that are in use.
    pub(crate) fn subtract_spare(&self, out: &mut [u64; MAX_CLASSES]) {
        for shard in self.shards.iter() {
            for (class, out) in out[..self.table.len()].iter_mut().enumerate() {
                *out = out.saturating_sub(shard.class_spare(class));
            }
        }
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

/// Gives the address space of a segment back that is in the map no more.
fn unmap(segment: &Segment, backing: &dyn Backing) {
    if weakened("unmapped_but_in_the_map") {
        SegmentMap::set(segment.start().addr(), Kind::Foreign);
    }
    forget_head(segment);
    if let Some(base) = NonNull::new(segment.start()) {
        poison::open(segment.start(), SEGMENT_BYTES);
        // SAFETY: no slab, no list and no mask names the segment any more; no block of it is out
        // (rule S3), and no walker is at it (rule W1), so nobody reads its head.
        unsafe { backing.unmap(base, SEGMENT_BYTES) };
    }
}

#[cfg(all(test, not(flagstone_loom)))]
mod tests {
    use std::alloc::{GlobalAlloc, Layout};

    use super::*;
    use crate::{Flagstone, Heap};

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
                assert!(heap.pool.all.waiting.load(), "unmapped under a walker");
                heap.purge();
                assert!(heap.pool.all.waiting.load(), "unmapped under a walker");
            }
        });
        // Walks of other tests may overlap with ours.
        while heap.pool.all.waiting.load() {
            assert!(std::time::Instant::now() < deadline, "still mapped");
            heap.live_bytes();
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
