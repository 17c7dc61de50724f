//! Guards and retiring for C (requirement D6): entered and left by calls, since C holds no values that
//! end by themselves.
//!
//! Owns nothing; the calling thread's participant is the heap's affair. The first `flagstone_enter` of a
//! thread in a heap registers it, and the end of the thread takes it out.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

use crate::heap::{CHeap, heap_or_global};
use crate::{FLAGSTONE_FAILED, FLAGSTONE_INVALID, FLAGSTONE_OK, guarded};

/// Keeps retired blocks from being freed until the matching leave.
///
/// # Safety
/// `heap` is null or a heap in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_enter(heap: *const CHeap) -> c_int {
    guarded(FLAGSTONE_FAILED, || {
        // SAFETY: the caller's promise.
        unsafe { heap_or_global(heap) }.enter();
        FLAGSTONE_OK
    })
}

/// Ends the latest enter of the calling thread.
///
/// # Safety
/// As [`flagstone_enter`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_leave(heap: *const CHeap) -> c_int {
    guarded(FLAGSTONE_FAILED, || {
        // SAFETY: the caller's promise.
        match unsafe { heap_or_global(heap) }.leave() {
            Ok(()) => FLAGSTONE_OK,
            Err(_) => FLAGSTONE_INVALID,
        }
    })
}

/// Frees a block when everybody who has entered by now has left.
///
/// # Safety
/// `heap` is null or a heap in use; `block` is null, or a block of it that is given up. Nobody who enters
/// from now on finds it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_retire(heap: *const CHeap, block: *mut c_void) -> c_int {
    let Some(block) = NonNull::new(block.cast::<u8>()) else { return FLAGSTONE_OK };
    guarded(FLAGSTONE_FAILED, || {
        // SAFETY: the caller's promise.
        unsafe { heap_or_global(heap).retire_here(block) };
        FLAGSTONE_OK
    })
}

/// Pushes the heap's epoch on; writes its number.
///
/// # Safety
/// `heap` is null or a heap in use; `epoch` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_advance(heap: *const CHeap, epoch: *mut u64) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { counted(epoch, || heap_or_global(heap).advance()) }
}

/// Frees what may be freed; writes how many blocks that were.
///
/// # Safety
/// `heap` is null or a heap in use; `blocks` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_collect(heap: *const CHeap, blocks: *mut u64) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { counted(blocks, || heap_or_global(heap).collect().blocks) }
}

/// # Safety
/// `out` is null or valid for writing.
unsafe fn counted(out: *mut u64, count: impl FnOnce() -> u64) -> c_int {
    let done = guarded(None, || Some(count()));
    if !out.is_null() {
        // SAFETY: the caller's promise.
        unsafe { out.write(done.unwrap_or_default()) };
    }
    if done.is_some() { FLAGSTONE_OK } else { FLAGSTONE_FAILED }
}
