//! Heaps of a caller's own: created, allocated from, asked, ended.
//!
//! Owns the handle, a boxed [`OwnedHeap`]. A null handle stands for the process-wide heap, for every
//! function but the one that ends a heap. Memory of a heap comes from the system, from a buffer of the
//! caller's, or through a port of the caller's.

use std::alloc::Layout;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};

use flagstone_slab::port::{Backing, FixedRegion, OsPages, PassThrough};
use flagstone_slab::{ClassTable, Heap, OwnedHeap};

use crate::memory::{PurgeReport, layout, purge};
use crate::port::{Port, Theirs};
use crate::{FLAGSTONE_FAILED, FLAGSTONE_INVALID, FLAGSTONE_OK, FLAGSTONE_OUT_OF_MEMORY, guarded};

/// `flagstone_heap` of the header: opaque there.
pub struct CHeap {
    heap: OwnedHeap<Box<dyn Backing>>,
}

/// `flagstone_heap_options` of the header.
#[repr(C)]
#[derive(Debug)]
#[allow(missing_docs, reason = "documented in include/flagstone.h, once")]
pub struct HeapOptions {
    pub name: *const c_char,
    pub cap: usize,
    pub class_sizes: *const usize,
    pub class_count: usize,
    pub shards: usize,
    pub region: *mut c_void,
    pub region_bytes: usize,
    pub port: *const Port,
}

/// The heap behind a handle; the process-wide one behind null.
///
/// # Safety
/// `heap` is null or a heap in use, for as long as the reference is used.
pub(crate) unsafe fn heap_or_global<'a>(heap: *const CHeap) -> &'a Heap {
    // SAFETY: the caller's promise.
    match unsafe { heap.as_ref() } {
        Some(heap) => &heap.heap,
        None => Heap::global(),
    }
}

/// Creates a heap.
///
/// # Safety
/// `options` is null or valid, with everything it points to; `heap` is null or valid for writing. A
/// region is given up until the heap is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_heap_owned(
    options: *const HeapOptions,
    heap: *mut *mut CHeap,
) -> c_int {
    if heap.is_null() {
        return FLAGSTONE_INVALID;
    }
    let mut made = ptr::null_mut();
    let status = guarded(FLAGSTONE_FAILED, || {
        // SAFETY: the caller's promise.
        match unsafe { build(options.as_ref()) } {
            Ok(built) => {
                made = Box::into_raw(Box::new(CHeap { heap: built }));
                FLAGSTONE_OK
            }
            Err(status) => status,
        }
    });
    // SAFETY: the caller's promise.
    unsafe { heap.write(made) };
    status
}

/// # Safety
/// As [`flagstone_heap_owned`].
unsafe fn build(options: Option<&HeapOptions>) -> Result<OwnedHeap<Box<dyn Backing>>, c_int> {
    use flagstone_slab::BuildFailure;
    let mut builder = Heap::builder().backing(Box::new(OsPages) as Box<dyn Backing>);
    if let Some(options) = options {
        if !options.name.is_null() {
            // SAFETY: the caller's promise: a string that ends in NUL.
            let name = unsafe { CStr::from_ptr(options.name) };
            builder = builder.name(name.to_str().map_err(|_| FLAGSTONE_INVALID)?);
        }
        // SAFETY: the caller's promise.
        builder = builder.backing(unsafe { backing(options)? });
        if options.cap != 0 {
            builder = builder.cap(options.cap);
        }
        if options.class_count != 0 {
            if options.class_sizes.is_null() {
                return Err(FLAGSTONE_INVALID);
            }
            // SAFETY: the caller's promise.
            let sizes =
                unsafe { std::slice::from_raw_parts(options.class_sizes, options.class_count) };
            builder = builder.class_table(ClassTable::new(sizes).map_err(|_| FLAGSTONE_INVALID)?);
        }
        if options.shards != 0 {
            builder = builder.shards(options.shards);
        }
    }
    builder.build().map_err(|error| match error.failure {
        BuildFailure::CapTooSmall { .. } => FLAGSTONE_INVALID,
        _ => FLAGSTONE_OUT_OF_MEMORY,
    })
}

/// # Safety
/// As [`flagstone_heap_owned`].
unsafe fn backing(options: &HeapOptions) -> Result<Box<dyn Backing>, c_int> {
    // SAFETY: the caller's promise.
    let port = unsafe { options.port.as_ref() };
    match (NonNull::new(options.region.cast::<u8>()), port) {
        (None, None) => Ok(Box::new(OsPages)),
        (Some(start), None) => {
            // SAFETY: the caller gives the region up until the heap is freed.
            let region = unsafe { FixedRegion::from_raw_parts(start, options.region_bytes, false) };
            Ok(Box::new(region))
        }
        (None, Some(port)) => {
            let theirs = Theirs::new(port).ok_or(FLAGSTONE_INVALID)?;
            Ok(Box::new(PassThrough::new(theirs)))
        }
        (Some(_), Some(_)) => Err(FLAGSTONE_INVALID),
    }
}

/// Ends a heap and gives all its memory back.
///
/// # Safety
/// `heap` is null, or came from [`flagstone_heap_owned`] and is given up: no thread uses it or a block
/// of it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_heap_free(heap: *mut CHeap) -> c_int {
    if heap.is_null() {
        return FLAGSTONE_OK;
    }
    guarded(FLAGSTONE_FAILED, || {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(heap) });
        FLAGSTONE_OK
    })
}

/// Allocates from a heap.
///
/// # Safety
/// `heap` is null or a heap in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_heap_alloc(
    heap: *const CHeap,
    size: usize,
    align: usize,
) -> *mut c_void {
    let Some(layout) = layout(size, align) else { return ptr::null_mut() };
    guarded(ptr::null_mut(), || {
        // SAFETY: the caller's promise.
        let heap = unsafe { heap_or_global(heap) };
        heap.try_alloc(layout).map_or(ptr::null_mut(), |block| block.as_ptr().cast())
    })
}

/// Changes a block's size.
///
/// # Safety
/// `heap` is null or a heap in use; `block` is null, or a block of it that was last asked for with
/// `old_size` and `align`, and is given up unless the result is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_heap_realloc(
    heap: *const CHeap,
    block: *mut c_void,
    old_size: usize,
    new_size: usize,
    align: usize,
) -> *mut c_void {
    let Some(block) = NonNull::new(block.cast::<u8>()) else {
        // SAFETY: the caller's promise.
        return unsafe { flagstone_heap_alloc(heap, new_size, align) };
    };
    let (Some(old), Some(new)) = (layout(old_size, align), layout(new_size, align)) else {
        return ptr::null_mut();
    };
    guarded(ptr::null_mut(), || {
        // SAFETY: the caller's promise.
        let moved = unsafe { heap_or_global(heap).try_realloc(block, old, new) };
        moved.map_or(ptr::null_mut(), |block| block.as_ptr().cast())
    })
}

/// Gives a block back to its heap.
///
/// # Safety
/// `heap` is null or a heap in use; `block` is null, or a block of it that was last asked for with
/// `size` and `align`, and is given up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_heap_dealloc(
    heap: *const CHeap,
    block: *mut c_void,
    size: usize,
    align: usize,
) -> c_int {
    let Some(block) = NonNull::new(block.cast::<u8>()) else { return FLAGSTONE_OK };
    let Some(layout): Option<Layout> = layout(size, align) else { return FLAGSTONE_INVALID };
    guarded(FLAGSTONE_FAILED, || {
        // SAFETY: the caller's promise.
        unsafe { heap_or_global(heap).dealloc(block, layout) };
        FLAGSTONE_OK
    })
}

/// Purges a heap; as `flagstone_purge`.
///
/// # Safety
/// `heap` is null or a heap in use; `report` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_heap_purge(
    heap: *const CHeap,
    report: *mut PurgeReport,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { purge(heap_or_global(heap), report) }
}

/// Starts a new high-water window.
///
/// # Safety
/// `heap` is null or a heap in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_high_water_reset(heap: *const CHeap) -> c_int {
    guarded(FLAGSTONE_FAILED, || {
        // SAFETY: the caller's promise.
        unsafe { heap_or_global(heap) }.reset_window_high_water();
        FLAGSTONE_OK
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::flagstone_port_view;
    use crate::stats::{Stats, flagstone_stats};

    const NO_OPTIONS: HeapOptions = HeapOptions {
        name: ptr::null(),
        cap: 0,
        class_sizes: ptr::null(),
        class_count: 0,
        shards: 0,
        region: ptr::null_mut(),
        region_bytes: 0,
        port: ptr::null(),
    };

    fn made(options: &HeapOptions) -> *mut CHeap {
        let mut heap = ptr::null_mut();
        // SAFETY: both places are valid.
        assert_eq!(unsafe { flagstone_heap_owned(options, &mut heap) }, FLAGSTONE_OK);
        assert!(!heap.is_null());
        heap
    }

    fn use_and_free(heap: *mut CHeap) {
        // SAFETY: the heap is in use until the end; each block is given up once.
        unsafe {
            let block = flagstone_heap_alloc(heap, 100, 64);
            assert!(block.addr().is_multiple_of(64) && !block.is_null());
            block.cast::<u8>().write_bytes(7, 100);
            let block = flagstone_heap_realloc(heap, block, 100, 70_000, 64);
            assert!((0..100).all(|i| block.cast::<u8>().add(i).read() == 7));
            let mut stats = Stats::default();
            assert_eq!(flagstone_stats(heap, &mut stats), FLAGSTONE_OK);
            assert!(stats.live >= 70_000 && stats.mapped >= stats.live, "{stats:?}");
            assert_eq!(flagstone_heap_dealloc(heap, block, 70_000, 64), FLAGSTONE_OK);
            assert_eq!(flagstone_heap_purge(heap, ptr::null_mut()), FLAGSTONE_OK);
            assert_eq!(flagstone_high_water_reset(heap), FLAGSTONE_OK);
            assert_eq!(flagstone_heap_free(heap), FLAGSTONE_OK);
        }
    }

    // requirement: G1
    #[test]
    fn heaps_come_from_pages_a_region_or_a_port() {
        use_and_free(made(&NO_OPTIONS));
        let sizes = [16usize, 64, 256, 1024];
        let name = c"pool";
        let options = HeapOptions {
            name: name.as_ptr(),
            cap: 64 << 20,
            class_sizes: sizes.as_ptr(),
            class_count: sizes.len(),
            shards: 2,
            ..NO_OPTIONS
        };
        use_and_free(made(&options));

        let mut region = vec![0x77u8; 32 << 20];
        let (start, bytes) = (region.as_mut_ptr(), region.len());
        let options = HeapOptions { region: start.cast(), region_bytes: bytes, ..NO_OPTIONS };
        let heap = made(&options);
        // SAFETY: the heap is in use.
        let block = unsafe { flagstone_heap_alloc(heap, 1000, 0) };
        assert!((start.addr()..start.addr() + bytes).contains(&block.addr()));
        use_and_free(heap);

        // One heap over the port of another.
        let below = made(&NO_OPTIONS);
        let mut port = std::mem::MaybeUninit::uninit();
        // SAFETY: the port is written, and its heap outlives the heap above.
        unsafe {
            assert_eq!(flagstone_port_view(below, port.as_mut_ptr()), FLAGSTONE_OK);
            let port = port.assume_init();
            let outstanding = port.bytes_outstanding.expect("ours tells");
            let options = HeapOptions { port: &port, ..NO_OPTIONS };
            let above = made(&options);
            assert!(outstanding(port.context) > 0);
            use_and_free(above);
            assert_eq!(outstanding(port.context), 0, "everything came back through the port");
            assert_eq!(flagstone_heap_free(below), FLAGSTONE_OK);
        }
    }

    // requirement: G5
    #[test]
    fn what_cannot_be_made_is_refused_and_outputs_are_null() {
        let wrong = [24usize, 16];
        for (options, status) in [
            (HeapOptions { cap: 1, ..NO_OPTIONS }, FLAGSTONE_INVALID),
            (
                HeapOptions { class_sizes: wrong.as_ptr(), class_count: 2, ..NO_OPTIONS },
                FLAGSTONE_INVALID,
            ),
            (HeapOptions { class_count: 2, ..NO_OPTIONS }, FLAGSTONE_INVALID),
            (HeapOptions { name: c"\xff".as_ptr(), ..NO_OPTIONS }, FLAGSTONE_INVALID),
            (
                HeapOptions {
                    region: ptr::dangling_mut::<u64>().cast(),
                    region_bytes: 0,
                    ..NO_OPTIONS
                },
                FLAGSTONE_OUT_OF_MEMORY,
            ),
        ] {
            let mut heap = ptr::dangling_mut();
            // SAFETY: the places are valid.
            assert_eq!(unsafe { flagstone_heap_owned(&options, &mut heap) }, status, "{options:?}");
            assert!(heap.is_null());
        }
        // SAFETY: null is allowed.
        unsafe {
            assert_eq!(flagstone_heap_owned(&NO_OPTIONS, ptr::null_mut()), FLAGSTONE_INVALID);
            assert_eq!(flagstone_heap_free(ptr::null_mut()), FLAGSTONE_OK);
            assert!(flagstone_heap_alloc(ptr::null(), 8, 3).is_null());
        }
    }
}
