//! The malloc family, for programs that are linked with the library or run with it preloaded.
//!
//! Owns no state. Rules are those of POSIX.1-2024 and, where that leaves a choice, of glibc 2.36:
//! a request for no bytes gets a block of its own; one above `PTRDIFF_MAX` fails with `ENOMEM`;
//! `realloc` to no bytes frees and gives null; `free` leaves `errno` alone. Blocks are aligned to
//! 16 bytes at least. Statistics calls that are glibc's alone (`malloc_info`, `mallopt`) are not
//! replaced: they speak of glibc's heap, which stays empty.
//!
//! The names are exported from the libraries only: a test of this crate keeps its own allocator.

use std::ffi::{c_int, c_void};
use std::ptr;

use flagstone_slab::{Heap, untyped};

use crate::startup;

/// Reports that a request failed, as C wants it.
#[cold]
fn refuse(error: c_int) -> *mut c_void {
    startup::keep();
    set_errno(error);
    ptr::null_mut()
}

fn set_errno(error: c_int) {
    // SAFETY: the place is the calling thread's `errno`.
    #[cfg(target_os = "linux")]
    unsafe {
        libc::__errno_location().write(error);
    }
    // SAFETY: as above.
    #[cfg(target_os = "macos")]
    unsafe {
        libc::__error().write(error);
    }
}

/// The block, or the failure for want of memory.
#[inline(always)]
fn or_enomem(block: *mut u8) -> *mut c_void {
    if block.is_null() { refuse(libc::ENOMEM) } else { block.cast() }
}

fn page_size() -> usize {
    // SAFETY: sysconf only reads.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// C11 7.24.3.6.
#[cfg_attr(all(flagstone_exported, not(test)), unsafe(no_mangle))]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    or_enomem(untyped::alloc(size))
}

/// C11 7.24.3.2.
#[cfg_attr(all(flagstone_exported, not(test)), unsafe(no_mangle))]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(bytes) => or_enomem(untyped::alloc_zeroed(bytes)),
        None => refuse(libc::ENOMEM),
    }
}

/// C11 7.24.3.7.
///
/// # Safety
/// `block` is null or in use; it is given up unless the result is null and `size` is not.
#[cfg_attr(all(flagstone_exported, not(test)), unsafe(no_mangle))]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() {
        return malloc(size);
    }
    if size == 0 {
        // SAFETY: the caller's promise.
        unsafe { untyped::free(block.cast()) };
        return ptr::null_mut();
    }
    // SAFETY: the caller's promise.
    or_enomem(unsafe { untyped::resize(block.cast(), size) })
}

/// `realloc` for `count` elements of `size` bytes, which may overflow.
///
/// # Safety
/// As [`realloc`].
#[cfg_attr(all(flagstone_exported, not(test)), unsafe(no_mangle))]
pub unsafe extern "C" fn reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: the caller's promise.
        Some(bytes) => unsafe { realloc(block, bytes) },
        None => refuse(libc::ENOMEM),
    }
}

/// C11 7.24.3.3.
///
/// # Safety
/// `block` is null, or in use and given up.
#[cfg_attr(all(flagstone_exported, not(test)), unsafe(no_mangle))]
pub unsafe extern "C" fn free(block: *mut c_void) {
    if !block.is_null() {
        // SAFETY: the caller's promise.
        unsafe { untyped::free(block.cast()) };
    }
}

/// C23 7.24.3.4. The size is a promise that is not needed.
///
/// # Safety
/// As [`free`].
#[cfg_attr(all(flagstone_exported, not(test)), unsafe(no_mangle))]
pub unsafe extern "C" fn free_sized(block: *mut c_void, _size: usize) {
    // SAFETY: the caller's promise.
    unsafe { free(block) };
}

/// C23 7.24.3.5. Alignment and size are promises that are not needed.
///
/// # Safety
/// As [`free`].
#[cfg_attr(all(flagstone_exported, not(test)), unsafe(no_mangle))]
pub unsafe extern "C" fn free_aligned_sized(block: *mut c_void, _align: usize, _size: usize) {
    // SAFETY: the caller's promise.
    unsafe { free(block) };
}

/// POSIX `posix_memalign`: the error is returned and `errno` left alone.
///
/// # Safety
/// `place` is valid for writing a pointer; it is written on success only.
#[cfg_attr(all(flagstone_exported, not(test)), unsafe(no_mangle))]
pub unsafe extern "C" fn posix_memalign(
    place: *mut *mut c_void,
    align: usize,
    size: usize,
) -> c_int {
    if !align.is_power_of_two() || !align.is_multiple_of(size_of::<*mut c_void>()) {
        return libc::EINVAL;
    }
    let block = untyped::alloc_aligned(size, align);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's promise.
    unsafe { place.write(block.cast()) };
    0
}

/// C11 7.24.3.1. As in glibc, `size` need not be a multiple of `align`.
#[cfg_attr(all(flagstone_exported, not(test)), unsafe(no_mangle))]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        return refuse(libc::EINVAL);
    }
    or_enomem(untyped::alloc_aligned(size, align))
}

/// As [`aligned_alloc`]; as in glibc, an alignment that is no power of two is rounded up to one.
#[cfg_attr(all(flagstone_exported, not(test)), unsafe(no_mangle))]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    match align.max(1).checked_next_power_of_two() {
        Some(align) => or_enomem(untyped::alloc_aligned(size, align)),
        None => refuse(libc::EINVAL),
    }
}

/// A block at the start of a page.
#[cfg_attr(all(flagstone_exported, not(test)), unsafe(no_mangle))]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    or_enomem(untyped::alloc_aligned(size, page_size()))
}

/// A block of whole pages.
#[cfg_attr(all(flagstone_exported, not(test)), unsafe(no_mangle))]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    let page = page_size();
    match size.max(1).checked_next_multiple_of(page) {
        Some(bytes) => or_enomem(untyped::alloc_aligned(bytes, page)),
        None => refuse(libc::ENOMEM),
    }
}

/// Bytes that a block really holds; 0 for null and for what is not this heap's.
///
/// # Safety
/// `block` is null, a block in use, or no address of this heap. Of any other address
/// [`flagstone_usable_size`](crate::flagstone_usable_size) may be asked.
#[cfg_attr(all(flagstone_exported, not(test)), unsafe(no_mangle))]
pub unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    // SAFETY: the caller's promise.
    unsafe { untyped::usable_size(block.cast()) }.unwrap_or(0)
}

/// Gives free memory back to the system, as much as can be reached; `pad` is not used. Returns 1 if
/// any was given back.
#[cfg_attr(all(flagstone_exported, not(test)), unsafe(no_mangle))]
pub extern "C" fn malloc_trim(_pad: usize) -> c_int {
    c_int::from(Heap::global().purge().scavenged.bytes_purged > 0)
}

/// `struct mallinfo2` of glibc.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mallinfo2 {
    /// Bytes of segments, populated or not.
    pub arena: usize,
    /// Free blocks in slabs in use.
    pub ordblks: usize,
    /// Always 0: there are no fastbins.
    pub smblks: usize,
    /// Blocks with a mapping of their own.
    pub hblks: usize,
    /// Bytes of those mappings.
    pub hblkhd: usize,
    /// Always 0, as in glibc.
    pub usmblks: usize,
    /// Always 0: there are no fastbins.
    pub fsmblks: usize,
    /// Bytes of blocks in use.
    pub uordblks: usize,
    /// Bytes of free memory that is populated.
    pub fordblks: usize,
    /// Bytes of free slices that are populated: what a trim can give back at once.
    pub keepcost: usize,
}

/// Figures of the heap in glibc's words.
#[cfg_attr(all(flagstone_exported, not(test)), unsafe(no_mangle))]
pub extern "C" fn mallinfo2() -> Mallinfo2 {
    crate::guarded(Mallinfo2::default(), || {
        let snapshot = Heap::global().snapshot();
        let (bytes, fallback) = (&snapshot.bytes, &snapshot.fallback);
        let segments = &snapshot.segments;
        Mallinfo2 {
            arena: (segments.segments * segments.segment_bytes) as usize,
            ordblks: snapshot.classes.iter().map(|class| class.free_blocks as usize).sum(),
            hblks: fallback.allocs.saturating_sub(fallback.frees) as usize,
            hblkhd: fallback.mapped_bytes as usize,
            uordblks: bytes.live as usize,
            fordblks: bytes.cached as usize,
            keepcost: segments.free_dirty_bytes as usize,
            ..Mallinfo2::default()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errno_of(failed: impl FnOnce() -> *mut c_void) -> Option<c_int> {
        set_errno(0);
        failed().is_null().then(|| std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_right_errno() {
        assert_eq!(errno_of(|| malloc(usize::MAX)), Some(libc::ENOMEM));
        assert_eq!(errno_of(|| malloc(isize::MAX as usize + 1)), Some(libc::ENOMEM));
        assert_eq!(errno_of(|| calloc(usize::MAX / 2, 3)), Some(libc::ENOMEM));
        assert_eq!(errno_of(|| aligned_alloc(24, 64)), Some(libc::EINVAL));
        assert_eq!(errno_of(|| aligned_alloc(0, 64)), Some(libc::EINVAL));
        assert_eq!(errno_of(|| memalign(usize::MAX, 64)), Some(libc::EINVAL));
        assert_eq!(errno_of(|| pvalloc(usize::MAX)), Some(libc::ENOMEM));
        let mut place = ptr::dangling_mut::<c_void>();
        let untouched = place;
        for align in [0, 1, 4, 24] {
            // SAFETY: the place is valid.
            assert_eq!(unsafe { posix_memalign(&mut place, align, 8) }, libc::EINVAL);
        }
        // SAFETY: as above.
        assert_eq!(unsafe { posix_memalign(&mut place, 64, usize::MAX) }, libc::ENOMEM);
        assert_eq!(place, untouched);
        let block = malloc(10);
        // SAFETY: the block is in use until freed at the end.
        unsafe {
            assert_eq!(errno_of(|| realloc(block, usize::MAX)), Some(libc::ENOMEM));
            assert_eq!(errno_of(|| reallocarray(block, usize::MAX, 2)), Some(libc::ENOMEM));
            free(block);
        }
    }

    #[test]
    fn nothing_is_a_block_of_its_own() {
        let blocks =
            [malloc(0), calloc(0, 9), calloc(9, 0), aligned_alloc(64, 0), pvalloc(0), valloc(0)];
        for (i, &block) in blocks.iter().enumerate() {
            assert!(!block.is_null() && !blocks[..i].contains(&block));
        }
        // SAFETY: each block is given up once; null is allowed.
        unsafe {
            assert!(realloc(blocks[0], 0).is_null());
            blocks[1..].iter().for_each(|&block| free(block));
            free(ptr::null_mut());
            let fresh = realloc(ptr::null_mut(), 40);
            assert!(malloc_usable_size(fresh) >= 40);
            assert_eq!(malloc_usable_size(ptr::null_mut()), 0);
            free_sized(fresh, 40);
            free_aligned_sized(memalign(40, 9), 64, 9);
        }
    }

    #[test]
    fn free_leaves_errno_alone() {
        let blocks: Vec<_> = [1usize, 600, 5 << 20, 70_000].map(|size| malloc(size)).into();
        for block in blocks {
            set_errno(77);
            // SAFETY: given up once.
            unsafe { free(block) };
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(77));
        }
    }

    #[test]
    fn the_figures_tell_of_a_large_block() {
        let before = mallinfo2();
        let block = malloc(64 << 20);
        let with = mallinfo2();
        // Other tests allocate too, but none as much as this.
        assert!(with.uordblks >= before.uordblks + (32 << 20));
        // SAFETY: given up once.
        unsafe { free(block) };
        assert!(malloc_trim(0) <= 1);
    }
}
