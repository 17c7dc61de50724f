//! A heap instance as a value: made by its builder, gone with its owner.
//!
//! Owns the *estate*: one range of the backing with the heap, its class table, its name and its
//! holdings, so that an instance needs no other allocator. Protocol of the end: the gate closes
//! (whoever visits without a borrow has left), then everything that the segment map says is this
//! heap's goes back to the backing, blocks still out or not, then the shards, then the estate itself,
//! and at last the heap's number is free.

use std::fmt;
use std::mem::{ManuallyDrop, align_of, size_of};
use std::ops::Deref;
use std::ptr::{self, NonNull};

use super::Heap;
use super::builder::{BuildError, BuildFailure, HeapBuilder, Shards};
use super::guard::forget_head;
use super::holdings::Holdings;
use super::registry::Number;
use super::shards::ShardList;
use crate::layout::{ClassTable, Kind, SEGMENT_BYTES, Segment, SegmentMap};
use crate::os::{self, debug_check};
use crate::port::{Backing, OsPages};

/// A heap of one's own (requirement D4): made with [`Heap::builder`], used through [`Heap`]'s
/// methods or as an `Allocator` by reference, and given back when dropped.
///
/// Dropping gives every byte back to the backing, also those of blocks that nobody freed: memory
/// that outlives its heap is gone, as that of an arena is. Blocks taken through `&Heap` as an
/// `Allocator` cannot outlive it, because they borrow it; for blocks taken by layout this is what
/// the contract of `dealloc` rests on. A heap that is forgotten instead of dropped stays for ever.
///
/// The child of a fork may go on using its copy, and drop it, whatever other threads of the parent were
/// doing with the heap; memory that these had free, or were about to take or give back, is not used there.
/// This takes a backing that sees to forks as well ([`Backing::before_fork`]; those of this crate do), and
/// a heap without retired blocks: guards of threads that the child does not have are held for ever.
///
/// ```
/// use flagstone_slab::{ClassTable, Heap};
/// use std::alloc::Layout;
///
/// let heap = Heap::builder()
///     .name("index")
///     .class_table(ClassTable::SMALL_POOL)
///     .cap(64 << 20)
///     .build()?;
/// let layout = Layout::new::<[u64; 4]>();
/// let block = heap.try_alloc(layout)?;
/// assert_eq!(heap.live_bytes(), 32);
/// // SAFETY: allocated above with this layout.
/// unsafe { heap.dealloc(block, layout) };
/// assert_eq!(heap.live_bytes(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct OwnedHeap<B: Backing + 'static = OsPages> {
    estate: NonNull<Estate<B>>,
    bytes: usize,
}

struct Estate<B> {
    heap: Heap,
    table: ClassTable,
    holdings: Holdings<B>,
    number: Number,
}

// SAFETY: the heap is shared by threads by design, and so is a `Backing`; the owner's end takes the
// value, so it is alone.
unsafe impl<B: Backing> Send for OwnedHeap<B> {}
// SAFETY: as above.
unsafe impl<B: Backing> Sync for OwnedHeap<B> {}

impl<B: Backing + 'static> OwnedHeap<B> {
    /// The backing that the heap takes its memory from.
    pub fn backing(&self) -> &B {
        // SAFETY: the estate is there as long as its owner.
        unsafe { (*self.estate.as_ptr()).holdings.backing() }
    }

    /// Ends the heap, as dropping it does, and hands out the backing, to which everything has been
    /// given back.
    pub fn into_backing(self) -> B {
        ManuallyDrop::new(self).end()
    }

    pub(super) fn build(builder: HeapBuilder<'_, B>) -> Result<Self, BuildError<B>> {
        let HeapBuilder { name, backing, settings } = builder;
        let cap = settings.cap;
        let fail = |failure, backing| Err(BuildError { failure, backing });
        let page = os::page_size();
        let bytes = size_of::<Estate<B>>().checked_add(name.len());
        let Some(bytes) = bytes.and_then(|bytes| bytes.checked_next_multiple_of(page)) else {
            return fail(BuildFailure::OutOfMemory { bytes: usize::MAX }, backing);
        };
        if align_of::<Estate<B>>() > page {
            return fail(BuildFailure::OutOfMemory { bytes }, backing);
        }
        let least = bytes + SEGMENT_BYTES;
        if cap < least {
            return fail(BuildFailure::CapTooSmall { cap, least }, backing);
        }
        let Some(number) = Number::take() else {
            return fail(BuildFailure::NoNumberLeft, backing);
        };
        let holdings = Holdings::new(backing, cap);
        let Some(start) = holdings.map(bytes, page) else {
            return fail(BuildFailure::OutOfMemory { bytes }, holdings.into_backing());
        };
        let estate = start.cast::<Estate<B>>();
        let at = estate.as_ptr();
        // SAFETY:
        // 1. the range is exclusive and, by the checks above, large and aligned enough;
        // 2. the references are to fields written before, which stay where they are until the
        //    heap's end; `'static` says only that no borrow tracks that.
        unsafe {
            let name_at = start.as_ptr().add(size_of::<Estate<B>>());
            ptr::copy_nonoverlapping(name.as_ptr(), name_at, name.len());
            let name = std::slice::from_raw_parts(name_at, name.len());
            let name: &'static str = std::str::from_utf8_unchecked(name);
            (&raw mut (*at).table).write(settings.table);
            (&raw mut (*at).holdings).write(holdings);
            let holdings: &'static Holdings<B> = &(*at).holdings;
            let table: &'static ClassTable = &(*at).table;
            let mut heap = Heap::new(number.id(), name, holdings, table);
            heap.generation = number.generation();
            heap.estate_bytes = bytes as u64;
            heap.retires = settings.retires;
            if let Some(domain) = settings.domain {
                heap.domain = domain.into();
            }
            heap.holdings = Some(holdings);
            heap.shards = match settings.shards {
                Shards::OnDemand { most } => ShardList::new(most),
                Shards::Fixed(count) => ShardList::fixed(count),
            };
            (&raw mut (*at).heap).write(heap);
            (&raw mut (*at).number).write(number);
        }
        let owned = Self { estate, bytes };
        if let Some(policy) = settings.huge_pages {
            owned.set_huge_pages(policy);
        }
        if let Some(decay) = settings.decay {
            owned.set_decay(decay);
        }
        if let Some(wait) = settings.contention {
            owned.set_contention_threshold(wait);
        }
        if let Shards::Fixed(_) = settings.shards {
            // Fewer than asked are no error: threads without one use the buckets, and
            // `missing_shards` tells.
            owned.shards.fill(owned.key(), owned.backing, &owned.threshold);
        }
        // SAFETY: the heap stays where it is until `end` has closed the gate.
        unsafe { (*at).number.open(&raw const (*at).heap) };
        Ok(owned)
    }

    fn end(&self) -> B {
        let at = self.estate.as_ptr();
        // SAFETY: the caller gives the heap up, so nobody borrows it; after `close` nobody visits it.
        unsafe {
            let number = ptr::read(&raw const (*at).number);
            number.close();
            // What waits in the domain may lie in this heap: it goes while the heap's memory is there.
            // Retired blocks find the gate closed, and go with the rest.
            drop((*at).heap.domain.take());
            (*at).give_back_blocks();
            (*at).heap.shards.give_back((*at).heap.backing);
            debug_check!(
                (*at).holdings.held() == self.bytes || (*at).heap.over_fork.may_have_lost_memory(),
                "a heap's end lost track of memory"
            );
            ptr::drop_in_place(&raw mut (*at).heap);
            let backing = ptr::read(&raw const (*at).holdings).into_backing();
            backing.unmap(self.estate.cast(), self.bytes);
            drop(number);
            backing
        }
    }
}

impl<B: Backing> Estate<B> {
    /// Gives large blocks and segments back, whatever is in them.
    ///
    /// # Safety
    /// Nobody else uses the heap, now or later.
    unsafe fn give_back_blocks(&self) {
        // SAFETY: by contract.
        unsafe { self.heap.fallback.end(&self.heap.means()) };
        self.heap.guards.end();
        // Those that wait for walkers, of which none are left, are in the map no more.
        self.heap.pool.release_waiting(self.heap.backing, &self.heap.threshold);
        for address in self.holdings.regions().flat_map(|region| region.step_by(SEGMENT_BYTES)) {
            if SegmentMap::kind(address) != Kind::Segment(self.heap.id) {
                continue;
            }
            SegmentMap::set(address, Kind::Foreign);
            if let Some(base) = NonNull::new(ptr::with_exposed_provenance_mut(address)) {
                os::poison::open(base.as_ptr(), SEGMENT_BYTES);
                // SAFETY: the head of a segment of this heap, which is mapped.
                forget_head(unsafe { base.cast::<Segment>().as_ref() });
                // SAFETY: mapped by this heap; by contract nobody uses what is in it.
                unsafe { self.holdings.unmap(base, SEGMENT_BYTES) };
            }
        }
    }
}

impl<B: Backing + 'static> Deref for OwnedHeap<B> {
    type Target = Heap;

    fn deref(&self) -> &Heap {
        // SAFETY: as in `backing`.
        unsafe { &(*self.estate.as_ptr()).heap }
    }
}

impl<B: Backing + 'static> Drop for OwnedHeap<B> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<B: Backing + 'static> fmt::Debug for OwnedHeap<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedHeap").field("name", &self.name()).finish_non_exhaustive()
    }
}
