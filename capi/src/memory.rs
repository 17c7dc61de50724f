//! Blocks: allocate, free, measure, purge.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_void};
use std::ptr;

use flagstone_slab::{Flagstone, Heap};

use crate::{FLAGSTONE_FAILED, FLAGSTONE_INVALID, FLAGSTONE_OK, guarded};

/// Alignment that C expects of any allocation: that of `max_align_t`.
const DEFAULT_ALIGN: usize = 2 * size_of::<usize>();

/// What [`flagstone_purge`] did; fields as in the header.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "documented in include/flagstone.h, once")]
pub struct PurgeReport {
    pub bytes_purged: u64,
    pub blocks_drained: u64,
    pub slabs_returned: u64,
    pub segments_unmapped: u64,
    pub shards_claimed: u64,
    pub unreachable_shards: u64,
    pub pinned_free_bytes: u64,
}

/// The layout of a block, if there can be one.
pub(crate) fn layout(size: usize, align: usize) -> Option<Layout> {
    let align = if align == 0 { DEFAULT_ALIGN } else { align };
    Layout::from_size_align(size.max(1), align).ok()
}

/// Allocates `size` bytes aligned to `align`; null on bad arguments or for want of memory.
#[unsafe(no_mangle)]
pub extern "C" fn flagstone_alloc(size: usize, align: usize) -> *mut c_void {
    let Some(layout) = layout(size, align) else { return ptr::null_mut() };
    guarded(ptr::null_mut(), || {
        // SAFETY: the layout's size is not zero.
        unsafe { Flagstone::new().alloc(layout) }.cast()
    })
}

/// Frees a block of [`flagstone_alloc`]; null is allowed.
///
/// # Safety
/// `block` is null, or came from [`flagstone_alloc`] with the same `size` and `align` and has not been
/// freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_free(block: *mut c_void, size: usize, align: usize) -> c_int {
    if block.is_null() {
        return FLAGSTONE_OK;
    }
    let Some(layout) = layout(size, align) else { return FLAGSTONE_INVALID };
    guarded(FLAGSTONE_FAILED, || {
        // SAFETY: the caller's promise; `layout` gives what `flagstone_alloc` computed.
        unsafe { Flagstone::new().dealloc(block.cast(), layout) };
        FLAGSTONE_OK
    })
}

/// Bytes that the block at `block` holds; 0 if it is not this heap's. Any address, at any time: reads
/// nothing foreign, and nothing that is unmapped meanwhile.
#[unsafe(no_mangle)]
pub extern "C" fn flagstone_usable_size(block: *const c_void) -> usize {
    guarded(0, || Heap::global().usable_size(block.cast()).unwrap_or(0))
}

/// Gives every free page that can be reached back to the operating system.
///
/// # Safety
/// `report` is null or valid for writing a report.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_purge(report: *mut PurgeReport) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { purge(Heap::global(), report) }
}

/// # Safety
/// As [`flagstone_purge`].
pub(crate) unsafe fn purge(heap: &Heap, report: *mut PurgeReport) -> c_int {
    let done = guarded(None, || {
        let purge = heap.purge();
        let scavenged = purge.scavenged;
        Some(PurgeReport {
            bytes_purged: scavenged.bytes_purged,
            blocks_drained: scavenged.blocks_drained,
            slabs_returned: scavenged.slabs_returned,
            segments_unmapped: scavenged.segments_unmapped,
            shards_claimed: scavenged.shards_claimed as u64,
            unreachable_shards: purge.unreachable_shards as u64,
            pinned_free_bytes: purge.pinned_free_bytes,
        })
    });
    if !report.is_null() {
        // SAFETY: the caller's promise.
        unsafe { report.write(done.unwrap_or_default()) };
    }
    if done.is_some() { FLAGSTONE_OK } else { FLAGSTONE_FAILED }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_every_shape_hold_what_was_asked() {
        for size in [0, 1, 24, 4096, 1 << 20] {
            for align in [0, 1, 16, 64, 4096] {
                let block = flagstone_alloc(size, align);
                assert!(!block.is_null(), "{size} at {align}");
                assert!(block.addr().is_multiple_of(if align == 0 {
                    DEFAULT_ALIGN
                } else {
                    align
                }));
                // SAFETY: the block holds one byte at least, and `size` of them.
                unsafe { block.cast::<u8>().write_bytes(0xA5, size.max(1)) };
                let usable = flagstone_usable_size(block);
                assert_eq!(usable, Heap::global().usable_size(block.cast()).unwrap_or(0));
                // SAFETY: allocated above, with these.
                assert_eq!(unsafe { flagstone_free(block, size, align) }, FLAGSTONE_OK);
            }
        }
    }

    #[test]
    fn arguments_out_of_range_are_refused() {
        assert!(flagstone_alloc(8, 3).is_null());
        assert!(flagstone_alloc(usize::MAX, 1).is_null());
        assert!(flagstone_alloc(isize::MAX as usize, 4096).is_null());
        let mut byte = 0u8;
        let block = ptr::from_mut(&mut byte).cast();
        // SAFETY: the refusal comes before the block is used.
        assert_eq!(unsafe { flagstone_free(block, 8, 3) }, FLAGSTONE_INVALID);
        // SAFETY: null is allowed.
        assert_eq!(unsafe { flagstone_free(ptr::null_mut(), 8, 8) }, FLAGSTONE_OK);
        assert_eq!(flagstone_usable_size(ptr::null()), 0);
        assert_eq!(flagstone_usable_size(block), 0);
    }

    #[test]
    fn purge_fills_its_report_and_needs_none() {
        let poison = PurgeReport { bytes_purged: u64::MAX, ..PurgeReport::default() };
        let mut report = poison;
        // SAFETY: the report is valid, or null.
        unsafe {
            assert_eq!(flagstone_purge(&mut report), FLAGSTONE_OK);
            assert_eq!(flagstone_purge(ptr::null_mut()), FLAGSTONE_OK);
        }
        assert_ne!(report, poison);
    }
}
