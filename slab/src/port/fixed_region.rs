//! A backing over memory of the caller's: a static buffer, a reserved range of an embedded system.
//!
//! Owns a list of free ranges, sorted by address, that lies in the free ranges themselves, under a
//! lock; nothing else is needed (requirement W1). Everything is a multiple of a *grain*. For a heap,
//! ranges aligned to pages are cut from the high end and more strictly aligned ones, segments above all,
//! from the low end, so that small pieces do not spoil the few places where a segment can start; the
//! embedded heap says itself which end. Neighbours are joined when they come back. A range is zeroed
//! when it is handed out, unless it was never used and known to be zeros. Under AddressSanitizer what is
//! free is closed ([`poison`]), heads and all.

use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use super::Backing;
use crate::os::{self, poison};
use crate::sync::{PlainGuard, PlainLock};

/// A fixed region of memory as a [`Backing`].
///
/// For an [`EmbeddedHeap`](crate::embedded::EmbeddedHeap) a region may be of any size from a few pages on
/// and start anywhere.
#[cfg_attr(feature = "std", doc = "")]
#[cfg_attr(
    feature = "std",
    doc = "For a [`Heap`](crate::Heap), segments start at multiples of 4 MiB: of a region that does, it can use"
)]
#[cfg_attr(
    feature = "std",
    doc = "all but the last part below 4 MiB; of another, what lies between such bounds."
)]
///
/// ```
/// use std::mem::MaybeUninit;
/// use flagstone_slab::{Heap, port::FixedRegion};
///
/// let buffer: &'static mut [MaybeUninit<u8>] = Box::leak(Box::new_uninit_slice(16 << 20));
/// let heap = Heap::builder().backing(FixedRegion::new(buffer)).build()?;
/// let block = heap.try_alloc(std::alloc::Layout::new::<u64>())?;
/// assert!(heap.backing().contains(block.as_ptr()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FixedRegion {
    start: usize,
    bytes: usize,
    free: PlainLock<Ranges>,
}

/// The free ranges of a region.
pub(crate) struct Ranges {
    first: *mut Range,
    bytes: usize,
}

/// Where a range is cut from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The lowest place.
    Low,
    /// The highest place of the highest range.
    High,
}

// SAFETY: the list's ranges are memory that belongs to the region; the lock guards them.
unsafe impl Send for Ranges {}

/// What is written at the start of a free range.
#[derive(Clone, Copy)]
struct Range {
    bytes: usize,
    next: *mut Range,
    /// Whether everything behind this head is zeros.
    zeros: bool,
}

const _: () = assert!(size_of::<Range>() <= FixedRegion::GRAIN);

impl FixedRegion {
    /// What ranges are multiples of, in bytes, starts as well as lengths.
    pub(crate) const GRAIN: usize = 512;

    /// A region over a buffer that belongs to it from now on. What of it does not fill whole grains
    /// of 512 bytes is left alone.
    pub fn new(buffer: &'static mut [MaybeUninit<u8>]) -> Self {
        let start = NonNull::from(&mut *buffer).cast();
        // SAFETY: borrowed for ever and exclusively.
        unsafe { Self::from_raw_parts(start, buffer.len(), false) }
    }

    /// A region over the memory at `start`.
    ///
    /// # Safety
    /// The memory is valid for reads and writes and used by nobody else until the region, and with it
    /// every heap on it, has been dropped; after a heap that was forgotten, for ever. If `zeros`,
    /// all its bytes are zero.
    pub unsafe fn from_raw_parts(start: NonNull<u8>, bytes: usize, zeros: bool) -> Self {
        let first = start.addr().get().next_multiple_of(Self::GRAIN);
        let end = (start.addr().get() + bytes) & !(Self::GRAIN - 1);
        let bytes = end.saturating_sub(first);
        let mut free = Ranges { first: ptr::null_mut(), bytes: 0 };
        if bytes > 0 {
            let range = start.as_ptr().with_addr(first);
            // Pieces are made anew from addresses, in which the buffer's provenance must be found.
            range.expose_provenance();
            // SAFETY: whole grains of the caller's memory.
            let listed = unsafe { free.insert(range, bytes, zeros) };
            debug_assert!(listed);
        }
        Self { start: first, bytes, free: PlainLock::new(free) }
    }

    /// Bytes of the whole region, in whole grains of 512 bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that are free now.
    pub fn free_bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Whether an address lies in the region.
    pub fn contains(&self, address: *const u8) -> bool {
        (self.start..self.start + self.bytes).contains(&address.addr())
    }

    /// Address of the first byte.
    #[cfg(not(flagstone_loom))]
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// The free ranges, for whoever has the region alone.
    #[cfg(not(flagstone_loom))]
    pub(crate) fn ranges(&mut self) -> &mut Ranges {
        self.free.get_mut()
    }

    fn lock(&self) -> PlainGuard<'_, Ranges> {
        self.free.lock()
    }
}

impl Range {
    /// What a free range says of itself.
    ///
    /// # Safety
    /// The range is listed, and the caller has the list.
    unsafe fn of(range: *mut Self) -> Self {
        // SAFETY: by contract; each listed range starts with its head.
        unsafe {
            Self {
                bytes: poison::read(&raw const (*range).bytes),
                next: poison::read(&raw const (*range).next),
                zeros: poison::read(&raw const (*range).zeros),
            }
        }
    }

    /// Writes a free range's head.
    ///
    /// # Safety
    /// The caller has the memory of the range.
    unsafe fn write(self, range: *mut Self) {
        // SAFETY: by contract. Field by field: what lies between them stays zero if it was.
        unsafe {
            poison::write(&raw mut (*range).bytes, self.bytes);
            poison::write(&raw mut (*range).next, self.next);
            poison::write(&raw mut (*range).zeros, self.zeros);
        }
    }

    /// Makes zeros of a head.
    ///
    /// # Safety
    /// As [`write`](Self::write).
    unsafe fn wipe(range: *mut Self) {
        // SAFETY: by contract.
        unsafe { Self { bytes: 0, next: ptr::null_mut(), zeros: false }.write(range) };
    }
}

impl Ranges {
    /// Cuts a range out, and says whether it is all zeros. Both are multiples of the grain.
    pub(crate) fn take(&mut self, bytes: usize, align: usize, end: End) -> Option<(*mut u8, bool)> {
        let mut found: Option<(*mut *mut Range, usize)> = None;
        let mut link: *mut *mut Range = &mut self.first;
        // SAFETY: the list's ranges are ours under the lock.
        unsafe {
            while let Some((first, range)) = Self::behind(link) {
                let start = first.addr();
                let past = start + range.bytes;
                if range.bytes < bytes {
                } else if end == End::High {
                    let at = (past - bytes) & !(align - 1);
                    if at >= start {
                        found = Some((link, at));
                    }
                } else if let Some(at) = start.checked_next_multiple_of(align)
                    && at <= past - bytes
                {
                    found = Some((link, at));
                    break;
                }
                link = &raw mut (*first).next;
            }
            let (link, at) = found?;
            Some(self.cut(link, at, bytes))
        }
    }

    /// Cuts the `bytes` at `start` out if they are free; whether they were.
    #[cfg(not(flagstone_loom))]
    pub(crate) fn take_at(&mut self, start: *mut u8, bytes: usize) -> bool {
        let mut link: *mut *mut Range = &mut self.first;
        // SAFETY: the list's ranges are ours under the lock.
        unsafe {
            while let Some((first, range)) = Self::behind(link) {
                let at = first.addr();
                if at > start.addr() {
                    return false;
                }
                // No sum: what is asked for may be anything.
                if start.addr() - at < range.bytes {
                    let fits = range.bytes - (start.addr() - at) >= bytes;
                    if fits {
                        self.cut(link, start.addr(), bytes);
                    }
                    return fits;
                }
                link = &raw mut (*first).next;
            }
        }
        false
    }

    /// The range that a link leads to, if it does.
    ///
    /// # Safety
    /// The caller has the list, and `link` is one of it.
    unsafe fn behind(link: *mut *mut Range) -> Option<(*mut Range, Range)> {
        // SAFETY: by contract.
        unsafe {
            let range = poison::read(link);
            (!range.is_null()).then(|| (range, Range::of(range)))
        }
    }

    /// Cuts `bytes` at `at` out of the range that `link` leads to; where they are, and whether they are
    /// all zeros.
    ///
    /// # Safety
    /// The caller has the list, `link` is one of it, and the bytes lie in its range.
    unsafe fn cut(&mut self, link: *mut *mut Range, at: usize, bytes: usize) -> (*mut u8, bool) {
        // SAFETY: by contract.
        unsafe {
            let range = poison::read(link);
            let Range { bytes: had, next, zeros } = Range::of(range);
            // What was the head is no zeros yet.
            Range::wipe(range);
            poison::write(link, next);
            self.bytes -= had;
            let base = range.cast::<u8>();
            let before = at - base.addr();
            let after = had - before - bytes;
            let listed = (after == 0 || self.insert(base.add(before + bytes), after, zeros))
                && (before == 0 || self.insert(base, before, zeros));
            debug_assert!(listed, "the rest of a free range overlaps another");
            poison::open(base.add(before), bytes);
            (base.add(before), zeros)
        }
    }

    /// Puts a range into the list and joins it with its neighbours. Returns false, and does nothing,
    /// if a part of it is there already.
    ///
    /// # Safety
    /// Whole grains of the region, exclusive.
    #[must_use]
    pub(crate) unsafe fn insert(&mut self, start: *mut u8, bytes: usize, zeros: bool) -> bool {
        let mut link: *mut *mut Range = &mut self.first;
        let mut below: Option<(*mut Range, usize)> = None;
        // SAFETY: as in `take`; the new range is the caller's to give.
        unsafe {
            while let Some((first, range)) = Self::behind(link)
                && first.addr() < start.addr()
            {
                below = Some((first, range.bytes));
                link = &raw mut (*first).next;
            }
            let next = poison::read(link);
            let overlaps = below.is_some_and(|(below, had)| start.addr() - below.addr() < had)
                || !next.is_null() && next.addr() - start.addr() < bytes;
            if overlaps {
                return false;
            }
            self.bytes += bytes;
            poison::close(start, bytes);
            let range = start.cast::<Range>();
            Range { bytes, next, zeros }.write(range);
            poison::write(link, range);
            Self::join(range);
            if let Some((below, _)) = below {
                Self::join(below);
            }
        }
        true
    }

    /// Joins a range with the next one if they touch.
    ///
    /// # Safety
    /// The range is listed, and the caller has the list.
    unsafe fn join(range: *mut Range) {
        // SAFETY: by contract.
        unsafe {
            let head = Range::of(range);
            if head.next.is_null() || range.addr() + head.bytes != head.next.addr() {
                return;
            }
            let Range { bytes, next, zeros } = Range::of(head.next);
            Range::wipe(head.next);
            Range { bytes: head.bytes + bytes, next, zeros: head.zeros && zeros }.write(range);
        }
    }
}

/// The memory is its owner's again, and may be touched anywhere.
#[cfg(flagstone_asan)]
impl Drop for FixedRegion {
    fn drop(&mut self) {
        poison::open(ptr::without_provenance(self.start), self.bytes);
    }
}

// SAFETY: ranges are cut out of the list under its lock, so each is handed out once; they are zeroed
// here if they are not zeros; nothing allocates or panics, and the lock is held for a walk over the
// list only.
unsafe impl Backing for FixedRegion {
    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let end = if align <= os::page_size() { End::High } else { End::Low };
        let (start, zeros) = self.lock().take(bytes, align, end)?;
        if !zeros {
            // SAFETY: just cut out, so nobody else's.
            unsafe { start.write_bytes(0, bytes) };
        }
        NonNull::new(start)
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller gives the range up, whole pages of it.
        if !unsafe { self.lock().insert(start.as_ptr(), bytes, false) } {
            os::fatal(format_args!("a range was given back twice to a region: {start:p}"));
        }
    }

    unsafe fn purge(&self, _: NonNull<u8>, _: usize) -> bool {
        false
    }

    fn joins(&self) -> bool {
        true
    }

    #[cfg(feature = "std")]
    fn before_fork(&self) {
        self.free.hold();
    }

    #[cfg(feature = "std")]
    unsafe fn after_fork(&self) {
        // SAFETY: the caller's contract.
        unsafe { self.free.release() }
    }
}

impl fmt::Debug for FixedRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FixedRegion")
            .field("bytes", &self.bytes)
            .field("free_bytes", &self.free_bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;

    fn region(pages: usize) -> FixedRegion {
        // Named here, so that a leak checker sees that the buffers are meant to stay.
        static BUFFERS: Mutex<Vec<usize>> = Mutex::new(Vec::new());
        let bytes = pages * os::page_size();
        let buffer = Box::leak(Box::new_uninit_slice(bytes + os::page_size()));
        BUFFERS.lock().unwrap().push(buffer.as_ptr().expose_provenance());
        let start =
            buffer.as_ptr().addr().next_multiple_of(os::page_size()) - buffer.as_ptr().addr();
        FixedRegion::new(&mut buffer[start..start + bytes])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        // requirement: W1
        #[test]
        fn ranges_are_aligned_zeroed_and_apart_and_all_come_back(
            steps in proptest::collection::vec((1usize..9, 0u32..5, any::<bool>(), any::<usize>()), 1..60),
        ) {
            let page = os::page_size();
            let region = region(64);
            let whole = region.free_bytes();
            let mut held: Vec<(NonNull<u8>, usize)> = Vec::new();
            for (pages, shift, take, which) in steps {
                if take {
                    let (bytes, align) = (pages * page, page << shift);
                    let Some(start) = region.map(bytes, align) else { continue };
                    prop_assert!(start.addr().get().is_multiple_of(align));
                    prop_assert!(region.contains(start.as_ptr()));
                    // SAFETY: just handed out.
                    let contents = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), bytes) };
                    prop_assert!(contents.iter().all(|&byte| byte == 0));
                    contents.fill(0xa5);
                    for &(other, length) in &held {
                        let (a, b) = (start.addr().get(), other.addr().get());
                        prop_assert!(a + bytes <= b || b + length <= a);
                    }
                    held.push((start, bytes));
                } else if !held.is_empty() {
                    let (start, bytes) = held.swap_remove(which % held.len());
                    // A part first, as a fallback block that shrinks gives it back.
                    let part = bytes / page / 2 * page;
                    // SAFETY: handed out above, given back once.
                    unsafe {
                        if part > 0 {
                            region.unmap(start.add(bytes - part), part);
                        }
                        region.unmap(start, bytes - part);
                    }
                }
                let out: usize = held.iter().map(|&(_, bytes)| bytes).sum();
                prop_assert_eq!(region.free_bytes() + out, whole);
            }
            for (start, bytes) in held {
                // SAFETY: as above.
                unsafe { region.unmap(start, bytes) };
            }
            // One range again: it can be had whole.
            prop_assert!(region.map(whole, page).is_some());
        }
    }
}
