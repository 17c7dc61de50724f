//! A backing over memory of the caller's: a static buffer, a reserved range of an embedded system.
//!
//! Owns a list of free ranges, sorted by address, that lies in the free ranges themselves, under a
//! lock; nothing else is needed (requirement W1). Ranges aligned to pages are cut from the high end
//! and more strictly aligned ones, segments above all, from the low end, so that small pieces do not
//! spoil the few places where a segment can start. Neighbours are joined when they come back.
//! A range is zeroed when it is handed out, unless it was never used and known to be zeros.

use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::PoisonError;

use super::Backing;
use crate::os;
use crate::sync::Mutex;

/// A fixed region of memory as a [`Backing`].
///
/// Segments start at multiples of 4 MiB: of a region that does, a heap can use all but the last part
/// below 4 MiB; of another, what lies between such bounds.
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
    free: Mutex<Free>,
}

/// The list's head.
struct Free {
    first: *mut Range,
    bytes: usize,
}

// SAFETY: the list's ranges are memory that belongs to the region; the lock guards them.
unsafe impl Send for Free {}

/// What is written at the start of a free range.
struct Range {
    bytes: usize,
    next: *mut Range,
    /// Whether everything behind this head is zeros.
    zeros: bool,
}

impl FixedRegion {
    /// A region over a buffer that belongs to it from now on. What of it does not fill whole pages
    /// is left alone.
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
        let page = os::page_size();
        let first = start.addr().get().next_multiple_of(page);
        let end = (start.addr().get() + bytes) & !(page - 1);
        let bytes = end.saturating_sub(first);
        let mut free = Free { first: ptr::null_mut(), bytes: 0 };
        if bytes > 0 {
            let range = start.as_ptr().with_addr(first);
            // Pieces are made anew from addresses, in which the buffer's provenance must be found.
            range.expose_provenance();
            // SAFETY: whole pages of the caller's memory.
            unsafe { free.insert(range, bytes, zeros) };
        }
        Self { start: first, bytes, free: Mutex::new(free) }
    }

    /// Bytes of the whole region, in whole pages.
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

    fn lock(&self) -> crate::sync::MutexGuard<'_, Free> {
        // Nothing panics under the lock.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Free {
    /// Cuts a range out; whether it is zeros but for the heads that lay in it.
    fn take(&mut self, bytes: usize, align: usize) -> Option<(*mut u8, bool)> {
        let from_top = align <= os::page_size();
        let mut found: Option<(*mut *mut Range, usize)> = None;
        let mut link: *mut *mut Range = &mut self.first;
        // SAFETY: the list's ranges are ours under the lock, and each starts with its head.
        unsafe {
            while let Some(range) = (*link).as_ref() {
                let start = (*link).addr();
                let end = start + range.bytes;
                if from_top {
                    if range.bytes >= bytes {
                        found = Some((link, end - bytes));
                    }
                } else if let Some(at) = start.checked_next_multiple_of(align)
                    && at.checked_add(bytes).is_some_and(|sum| sum <= end)
                {
                    found = Some((link, at));
                    break;
                }
                link = &raw mut (**link).next;
            }
            let (link, at) = found?;
            let range = *link;
            let Range { bytes: had, next, zeros } = range.read();
            // What was the head is no zeros yet.
            range.write_bytes(0, 1);
            *link = next;
            self.bytes -= had;
            let base = range.cast::<u8>();
            let before = at - base.addr();
            let after = had - before - bytes;
            if after > 0 {
                self.insert(base.add(before + bytes), after, zeros);
            }
            if before > 0 {
                self.insert(base, before, zeros);
            }
            Some((base.add(before), zeros))
        }
    }

    /// Puts a range into the list and joins it with its neighbours.
    ///
    /// # Safety
    /// Whole pages, exclusive, in no listed range.
    unsafe fn insert(&mut self, start: *mut u8, bytes: usize, zeros: bool) {
        self.bytes += bytes;
        let mut link: *mut *mut Range = &mut self.first;
        let mut below: *mut Range = ptr::null_mut();
        // SAFETY: as in `take`; the new range is the caller's to give.
        unsafe {
            while !(*link).is_null() && (*link).addr() < start.addr() {
                below = *link;
                link = &raw mut (**link).next;
            }
            let range = start.cast::<Range>();
            range.write(Range { bytes, next: *link, zeros });
            *link = range;
            Self::join(range);
            if !below.is_null() {
                Self::join(below);
            }
        }
    }

    /// Joins a range with the next one if they touch.
    ///
    /// # Safety
    /// The range is listed, and the caller has the list.
    unsafe fn join(range: *mut Range) {
        // SAFETY: by contract.
        unsafe {
            let next = (*range).next;
            if next.is_null() || range.addr() + (*range).bytes != next.addr() {
                return;
            }
            let Range { bytes, next: after, zeros } = next.read();
            next.write_bytes(0, 1);
            (*range).bytes += bytes;
            (*range).next = after;
            (*range).zeros &= zeros;
        }
    }
}

// SAFETY: ranges are cut out of the list under its lock, so each is handed out once; they are zeroed
// here if they are not zeros; nothing allocates or panics, and the lock is held for a walk over the
// list only.
unsafe impl Backing for FixedRegion {
    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let (start, zeros) = self.lock().take(bytes, align)?;
        if !zeros {
            // SAFETY: just cut out, so nobody else's.
            unsafe { start.write_bytes(0, bytes) };
        }
        NonNull::new(start)
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller gives the range up, whole pages of it.
        unsafe { self.lock().insert(start.as_ptr(), bytes, false) };
    }

    unsafe fn purge(&self, _: NonNull<u8>, _: usize) -> bool {
        false
    }

    fn joins(&self) -> bool {
        true
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
        FixedRegion::new(buffer)
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
