//! The fallback tier: requests above the largest class or with stricter alignment, each a mapping
//! of its own from the backing.
//!
//! Owns the head page before each block and the tier's counters (requirement D8), which its lock
//! guards against each other; the lock is never held over a system call. A block's mapping starts at a multiple of the
//! segment size, so that masking the block's address finds the head; a block aligned to that or more
//! has its head in the page right before it and is marked *apart* in the segment map.

use std::alloc::Layout;
use std::ptr::{self, NonNull};

use crate::counter::Counter;
use crate::layout::{Block, HeapId, Kind, SEGMENT_BYTES, Segment, SegmentMap};
use crate::lock::{ContentionThreshold, CountedLock, Held};
use crate::os;
use crate::port::Backing;
use crate::stats::{FALLBACK_BOUNDS, FallbackSnapshot, LockSite, LockSnapshot};

/// The fallback tier of one heap.
pub(crate) struct Fallback {
    lock: CountedLock<()>,
    counts: Counts,
}

/// The tier's lock, held.
pub(crate) type FallbackLock<'a> = Held<'a, ()>;

/// Written under the lock, read by anyone.
struct Counts {
    allocs: Counter,
    frees: Counter,
    resizes: Counter,
    remaps: Counter,
    failures: Counter,
    live_bytes: Counter,
    mapped_bytes: Counter,
    histogram: [Counter; FALLBACK_BOUNDS],
}

impl Fallback {
    pub(crate) const fn new() -> Self {
        Self {
            lock: CountedLock::new(()),
            counts: Counts {
                allocs: Counter::new(),
                frees: Counter::new(),
                resizes: Counter::new(),
                remaps: Counter::new(),
                failures: Counter::new(),
                live_bytes: Counter::new(),
                mapped_bytes: Counter::new(),
                histogram: [const { Counter::new() }; FALLBACK_BOUNDS],
            },
        }
    }

    /// Holds the lock without timing the hold: over a fork.
    pub(crate) fn hold(&self, threshold: &ContentionThreshold) -> FallbackLock<'_> {
        self.lock.lock(threshold).untimed()
    }

    /// A zeroed block, or null.
    pub(crate) fn alloc(
        &self,
        layout: Layout,
        id: HeapId,
        backing: &dyn Backing,
        threshold: &ContentionThreshold,
    ) -> Block {
        let made = map_block(layout.size(), layout.align(), id, backing);
        let _held = self.lock.lock(threshold);
        let Some((block, mapped)) = made else {
            self.counts.failures.add(1);
            return ptr::null_mut();
        };
        self.counts.allocs.add(1);
        self.counts.histogram[histogram_index(layout.size())].add(1);
        self.counts.live_bytes.add(layout.size() as u64);
        self.counts.mapped_bytes.add(mapped as u64);
        block
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// `block` is a fallback block in use of this heap, given up by the caller.
    pub(crate) unsafe fn free(
        &self,
        block: Block,
        backing: &dyn Backing,
        threshold: &ContentionThreshold,
    ) {
        // SAFETY: a fallback block in use has its head; the caller has the block.
        let (base, mapped, requested) = unsafe {
            let head = &(*head_of(block)).fallback;
            (head.base.get(), head.mapped.get(), head.requested.get())
        };
        {
            let _held = self.lock.lock(threshold);
            self.counts.frees.add_after(1);
            self.counts.live_bytes.sub(requested as u64);
            self.counts.mapped_bytes.sub(mapped as u64);
        }
        SegmentMap::set(block.addr(), Kind::Foreign);
        if let Some(base) = NonNull::new(block.with_addr(base)) {
            // SAFETY: the mapping was made for this block alone.
            unsafe { backing.unmap(base, mapped) };
        }
    }

    /// Changes a block's size without copying bytes: in place, or by moving its pages. `None` when
    /// neither can be done; the block is then as before.
    ///
    /// # Safety
    /// `block` is a fallback block in use of this heap, of alignment `align`, that the caller has.
    pub(crate) unsafe fn resize(
        &self,
        block: Block,
        align: usize,
        bytes: usize,
        id: HeapId,
        backing: &dyn Backing,
        threshold: &ContentionThreshold,
    ) -> Option<Block> {
        // SAFETY: as in `free`.
        let head = unsafe { &(*head_of(block)).fallback };
        let (base, mapped, requested) = (head.base.get(), head.mapped.get(), head.requested.get());
        let offset = block.addr() - base;
        let wanted = os::round_to_pages(offset.checked_add(bytes)?)?;
        let moved = if wanted <= mapped {
            if let Some(tail) = NonNull::new(block.with_addr(base + wanted))
                && wanted < mapped
            {
                // SAFETY: the tail is the block's own and lies above what stays in use.
                unsafe { backing.unmap(tail, mapped - wanted) };
            }
            head.mapped.set(wanted);
            head.requested.set(bytes);
            block
        } else {
            if align >= SEGMENT_BYTES {
                return None;
            }
            let to = backing.map(wanted, SEGMENT_BYTES)?;
            let from = NonNull::new(block.with_addr(base))?;
            if !SegmentMap::covers(to.addr().get(), wanted) {
                // SAFETY: just mapped, nobody else knows of it.
                unsafe { backing.unmap(to, wanted) };
                return None;
            }
            // Before the pages move: their old place is anybody's at once, and the entry its.
            SegmentMap::set(base, Kind::Foreign);
            // SAFETY: the block's mapping is the caller's, the new one nobody's.
            if !unsafe { backing.remap(from, mapped, to, wanted) } {
                SegmentMap::set(base, Kind::Segment(id));
                // SAFETY: as above.
                unsafe { backing.unmap(to, wanted) };
                return None;
            }
            SegmentMap::set(to.addr().get(), Kind::Segment(id));
            // SAFETY: the head moved along with its page.
            let head = unsafe { &(*to.as_ptr().cast::<Segment>()).fallback };
            head.base.set(to.addr().get());
            head.mapped.set(wanted);
            head.requested.set(bytes);
            to.as_ptr().wrapping_add(offset)
        };
        let _held = self.lock.lock(threshold);
        let counts = &self.counts;
        counts.resizes.add(1);
        counts.remaps.add(u64::from(moved != block));
        counts.live_bytes.set(counts.live_bytes.get() + bytes as u64 - requested as u64);
        counts.mapped_bytes.set(counts.mapped_bytes.get() + wanted as u64 - mapped as u64);
        Some(moved)
    }

    /// Counts a resize that had to copy.
    pub(crate) fn count_copied_resize(&self, threshold: &ContentionThreshold) {
        let _held = self.lock.lock(threshold);
        self.counts.resizes.add(1);
    }

    /// Bytes from an address to the end of the block around it, or `None` if the address lies in
    /// the head or past the end.
    ///
    /// # Safety
    /// `head` is the head of a fallback block in use.
    pub(crate) unsafe fn usable_size(head: *const Segment, address: usize) -> Option<usize> {
        // SAFETY: by contract.
        let fallback = unsafe { &(*head).fallback };
        let end = fallback.base.get() + fallback.mapped.get();
        (head.addr() + os::page_size()..end).contains(&address).then(|| end - address)
    }

    /// The head of the block around an address whose entry in the segment map is *apart*.
    pub(crate) fn head_apart(address: *mut u8) -> *const Segment {
        Segment::base_of(address).wrapping_byte_sub(os::page_size())
    }

    /// The counters, without the lock.
    pub(crate) fn snapshot(&self) -> FallbackSnapshot {
        let counts = &self.counts;
        // Frees before allocs: a reader never sees more freed than allocated.
        let frees = counts.frees.get_before();
        let mut histogram = [0; FALLBACK_BOUNDS];
        for (to, from) in histogram.iter_mut().zip(&counts.histogram) {
            *to = from.get();
        }
        FallbackSnapshot {
            allocs: counts.allocs.get(),
            frees,
            resizes: counts.resizes.get(),
            remaps: counts.remaps.get(),
            failures: counts.failures.get(),
            live_bytes: counts.live_bytes.get(),
            mapped_bytes: counts.mapped_bytes.get(),
            histogram,
        }
    }

    pub(crate) fn lock_snapshot(&self) -> LockSnapshot {
        self.lock.snapshot(LockSite::Fallback)
    }
}

/// The head of a fallback block.
fn head_of(block: Block) -> *const Segment {
    if block.addr().is_multiple_of(SEGMENT_BYTES) {
        Fallback::head_apart(block)
    } else {
        Segment::base_of(block)
    }
}

fn map_block(
    bytes: usize,
    align: usize,
    id: HeapId,
    backing: &dyn Backing,
) -> Option<(Block, usize)> {
    let page = os::page_size();
    // The head's page, or as much as the alignment asks.
    let offset = align.max(page);
    let mapped = os::round_to_pages(offset.checked_add(bytes)?)?;
    let base = backing.map(mapped, align.max(SEGMENT_BYTES))?;
    let address = base.addr().get();
    if !SegmentMap::covers(address, mapped) {
        // SAFETY: just mapped, nobody else knows of it.
        unsafe { backing.unmap(base, mapped) };
        return None;
    }
    let block = base.as_ptr().wrapping_add(offset);
    let apart = align >= SEGMENT_BYTES;
    // SAFETY: the page before the block is mapped, zeroed and ours.
    let head = unsafe { &*Segment::set_up_fallback(head_of(block).cast_mut().cast(), id) };
    head.fallback.base.set(address);
    head.fallback.mapped.set(mapped);
    head.fallback.requested.set(bytes);
    SegmentMap::set(block.addr(), if apart { Kind::Apart } else { Kind::Segment(id) });
    Some((block, mapped))
}

/// The histogram count of a request: bounds 64, 128, ... and overflow.
fn histogram_index(bytes: usize) -> usize {
    let above_64 = bytes.max(1).div_ceil(64).next_power_of_two().trailing_zeros() as usize;
    above_64.min(FALLBACK_BOUNDS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    // requirement: D8
    #[test]
    fn the_histogram_counts_each_size_under_the_first_bound_that_holds_it() {
        for bytes in [1, 63, 64, 65, 128, 129, 8192, 8193, 1 << 20, (1 << 20) + 1, 64 << 25] {
            let i = histogram_index(bytes);
            match FallbackSnapshot::bound(i) {
                Some(bound) => assert!(bytes as u64 <= bound, "{bytes} above bound {bound}"),
                None => assert!(bytes as u64 > FallbackSnapshot::bound(i - 1).unwrap_or(0)),
            }
            if i > 0 {
                assert!(bytes as u64 > FallbackSnapshot::bound(i - 1).unwrap_or(u64::MAX));
            }
        }
    }
}
