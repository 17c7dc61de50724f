//! rpmalloc, through `rpmalloc-sys` with a global allocator of our own.
//!
//! The `rpmalloc` crate's allocator never initialises threads nor finalises them, and has no
//! `realloc`, so that it would copy every growing vector. This one does all three: a thread is
//! initialised at its first allocation and finalised when it exits, as the library asks for.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ffi::c_int;
use std::ptr::null_mut;

use rpmalloc_sys as ffi;

#[global_allocator]
static GLOBAL: RpMalloc = RpMalloc;

/// Its name in the table.
pub const NAME: &str = "rpmalloc";
/// What [`owns`] looks at.
pub const PROOF: &str = "rpmalloc_usable_size of every block, and glibc's accounts at rest";
/// Whether the C library's accounts must move.
pub const IS_SYSTEM: bool = false;

/// Whether rpmalloc's header of the block fits its size. It cannot be asked about a foreign one.
pub fn owns(ptr: *const u8, size: usize) -> bool {
    // SAFETY: only called with blocks that the global allocator gave out. Were it another than
    // rpmalloc, the read of a header would most likely fault: loud, too.
    let usable = unsafe { ffi::rpmalloc_usable_size(ptr.cast_mut().cast()) };
    (size..=2 * size + 64 * 1024).contains(&usable)
}

/// rpmalloc does not say its version at run time; the driver adds that of the crate.
pub fn version() -> String {
    NAME.to_owned()
}

/// Whether the library is the one asked for, beyond its name.
pub fn is_as_built() -> Result<(), &'static str> {
    Ok(())
}

/// Told by a thread before it sleeps; rpmalloc can only be told that a thread ends.
pub fn about_to_sleep() {}

/// Called now and then while threads sleep; rpmalloc has no call that reaches other threads.
pub fn housekeep() {}

struct RpMalloc;

unsafe extern "C" {
    /// As the C header declares it; the declaration in `rpmalloc-sys` lacks the argument.
    #[link_name = "rpmalloc_thread_finalize"]
    fn thread_finalize(release_caches: c_int);
}

/// The thread's cached spans go to the global cache instead of staying with its heap.
const RELEASE_CACHES: c_int = 1;

thread_local! {
    static READY: Cell<bool> = const { Cell::new(false) };
    static AT_EXIT: AtExit = const { AtExit };
}

struct AtExit;

impl Drop for AtExit {
    fn drop(&mut self) {
        READY.set(false);
        // SAFETY: ends what `initialise` began on this thread; an allocation by a later
        // destructor begins anew.
        unsafe { thread_finalize(RELEASE_CACHES) };
    }
}

#[cold]
#[inline(never)]
fn initialise() {
    // SAFETY: both may be called again, from any thread; the first is guarded by the library, and
    // runs before `main` starts another thread.
    unsafe {
        ffi::rpmalloc_initialize();
        ffi::rpmalloc_thread_initialize();
    }
    READY.set(true);
    // Registers the destructor. When the thread is ending already, it is too late for that, and the
    // thread's heap stays with the library.
    let _ = AT_EXIT.try_with(|_| ());
}

#[inline]
fn ensure_ready() {
    if !READY.get() {
        initialise();
    }
}

// SAFETY: rpmalloc gives blocks of at least the size and alignment asked for, which do not
// overlap, and keeps their contents on `realloc`.
unsafe impl GlobalAlloc for RpMalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ensure_ready();
        // SAFETY: the thread is initialised; rpmalloc refuses alignments it cannot serve with null.
        unsafe { ffi::rpaligned_alloc(layout.align(), layout.size()).cast() }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ensure_ready();
        // SAFETY: as above.
        unsafe { ffi::rpaligned_calloc(layout.align(), 1, layout.size()).cast() }
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, _layout: Layout) {
        // SAFETY: by the caller's contract the block is rpmalloc's. Freeing needs no initialised
        // thread: the block goes to its span's heap.
        unsafe { ffi::rpfree(ptr.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ensure_ready();
        if new_size == 0 {
            return null_mut();
        }
        // SAFETY: the block is rpmalloc's and of the layout's size, by the caller's contract.
        unsafe {
            ffi::rpaligned_realloc(ptr.cast(), layout.align(), new_size, layout.size(), 0).cast()
        }
    }
}
