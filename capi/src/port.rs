//! The allocator port: a table of functions, theirs as a heap's source or ours for their code.
//!
//! Owns the table's layout and both directions (requirement G1). A caller's table is copied; its
//! context stays the caller's. Our tables have the heap as their context and live as long as it does.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_void};

use flagstone_slab::Heap;

use crate::heap::{CHeap, heap_or_global};
use crate::{FLAGSTONE_INVALID, FLAGSTONE_OK, guarded};

type Alloc = unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void;
type Realloc = unsafe extern "C" fn(*mut c_void, *mut c_void, usize, usize, usize) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void, *mut c_void, usize, usize);
type Figure = unsafe extern "C" fn(*mut c_void) -> u64;

/// `flagstone_port` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "documented in include/flagstone.h, once")]
pub struct Port {
    pub context: *mut c_void,
    pub alloc: Option<Alloc>,
    pub realloc: Option<Realloc>,
    pub free: Option<Free>,
    pub bytes_outstanding: Option<Figure>,
    pub bytes_peak: Option<Figure>,
    pub failures: Option<Figure>,
}

/// A caller's port as a source of memory for a heap.
pub(crate) struct Theirs {
    context: *mut c_void,
    alloc: Alloc,
    free: Free,
}

// SAFETY: the header asks that the functions may be called from any thread.
unsafe impl Send for Theirs {}
// SAFETY: as above.
unsafe impl Sync for Theirs {}

impl Theirs {
    /// The port, if it has what a heap needs.
    pub(crate) fn new(port: &Port) -> Option<Self> {
        Some(Self { context: port.context, alloc: port.alloc?, free: port.free? })
    }
}

// SAFETY: the header asks of the functions what `GlobalAlloc` asks: exclusive blocks, large and
// aligned enough, until freed with the same size and alignment; null when there is none; no unwinding.
unsafe impl GlobalAlloc for Theirs {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the port's contract.
        unsafe { (self.alloc)(self.context, layout.size(), layout.align()).cast() }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the port's contract; the caller gives a block of it up.
        unsafe { (self.free)(self.context, block.cast(), layout.size(), layout.align()) }
    }
}

/// The functions of a heap, as a port that is valid as long as the heap.
///
/// # Safety
/// `heap` is null or a heap in use; `port` is null or valid for writing a port.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_port_view(heap: *const CHeap, port: *mut Port) -> c_int {
    if port.is_null() {
        return FLAGSTONE_INVALID;
    }
    let ours = Port {
        context: heap.cast_mut().cast(),
        alloc: Some(port_alloc),
        realloc: Some(port_realloc),
        free: Some(port_free),
        bytes_outstanding: Some(port_bytes_outstanding),
        bytes_peak: None,
        failures: Some(port_failures),
    };
    // SAFETY: the caller's promise.
    unsafe { port.write(ours) };
    FLAGSTONE_OK
}

unsafe extern "C" fn port_alloc(heap: *mut c_void, size: usize, align: usize) -> *mut c_void {
    // SAFETY: the context is what `flagstone_port_view` was given.
    unsafe { crate::heap::flagstone_heap_alloc(heap.cast(), size, align) }
}

unsafe extern "C" fn port_realloc(
    heap: *mut c_void,
    block: *mut c_void,
    old: usize,
    new: usize,
    align: usize,
) -> *mut c_void {
    // SAFETY: as above; the caller's promise about the block.
    unsafe { crate::heap::flagstone_heap_realloc(heap.cast(), block, old, new, align) }
}

unsafe extern "C" fn port_free(heap: *mut c_void, block: *mut c_void, size: usize, align: usize) {
    // SAFETY: as above. A status has nowhere to go: what it would tell is a broken contract.
    let _ = unsafe { crate::heap::flagstone_heap_dealloc(heap.cast(), block, size, align) };
}

unsafe extern "C" fn port_bytes_outstanding(heap: *mut c_void) -> u64 {
    // SAFETY: the context is what `flagstone_port_view` was given.
    guarded(0, || unsafe { heap_or_global(heap.cast()) }.live_bytes())
}

unsafe extern "C" fn port_failures(heap: *mut c_void) -> u64 {
    // SAFETY: as above.
    let heap: &Heap = unsafe { heap_or_global(heap.cast()) };
    guarded(0, || heap.snapshot().tiers.failures)
}
