//! Memory that nobody may touch, as AddressSanitizer is told.
//!
//! Owns no state. Built with `--cfg flagstone_asan` and `-Zsanitizer=address`, free memory of every heap
//! is *closed*: whoever reads or writes it is reported as a use after poison, with both stacks. Without
//! the cfg nothing here does anything.
//!
//! Protocol: a slab is closed as it is cut, and a range of the large space as it is mapped; a block is
//! open from the moment that it is handed out until it is given up, on whatever thread, so that one on
//! its way to its owner is closed too; a range is open when its address space goes back to the backing,
//! which may be anybody's code. A retired block stays open until its grace period is over, and so does a
//! value of a typed slab. What is free in a [`FixedRegion`](crate::port::FixedRegion) is closed from the
//! region's making to its end. The links in free blocks and the heads of free ranges are read and written
//! through the functions here, which are not checked.

pub(crate) use imp::{close, open};

/// Reads a word that may be closed.
///
/// # Safety
/// As for a read through the pointer.
#[inline(always)]
pub(crate) unsafe fn read_word(at: *const usize) -> usize {
    // SAFETY: by contract.
    unsafe { read(at) }
}

/// Writes a word that may be closed.
///
/// # Safety
/// As for a write through the pointer.
#[inline(always)]
pub(crate) unsafe fn write_word(at: *mut usize, word: usize) {
    // SAFETY: by contract.
    unsafe { write(at, word) };
}

/// Reads a value of a word or less that may be closed.
///
/// # Safety
/// As for a read through the pointer.
#[cfg_attr(flagstone_asan, sanitize(address = "off"), inline(never))]
#[cfg_attr(not(flagstone_asan), inline(always))]
pub(crate) unsafe fn read<W: Copy>(at: *const W) -> W {
    const { assert!(size_of::<W>() <= size_of::<usize>(), "a copy by function is checked") };
    // Not `at.read()`: unless inlined, that is a function of its own, which is checked.
    // SAFETY: by contract.
    unsafe { *at }
}

/// Writes a value of a word or less that may be closed.
///
/// # Safety
/// As for a write through the pointer.
#[cfg_attr(flagstone_asan, sanitize(address = "off"), inline(never))]
#[cfg_attr(not(flagstone_asan), inline(always))]
pub(crate) unsafe fn write<W: Copy>(at: *mut W, value: W) {
    const { assert!(size_of::<W>() <= size_of::<usize>(), "a copy by function is checked") };
    // SAFETY: by contract.
    unsafe { *at = value };
}

#[cfg(flagstone_asan)]
mod imp {
    use core::ffi::c_void;

    unsafe extern "C" {
        fn __asan_poison_memory_region(start: *const c_void, bytes: usize);
        fn __asan_unpoison_memory_region(start: *const c_void, bytes: usize);
    }

    /// From now on nobody may touch the range.
    pub(crate) fn close(start: *const u8, bytes: usize) {
        // SAFETY: changes what the sanitizer knows of the range, and not the range.
        unsafe { __asan_poison_memory_region(start.cast(), bytes) };
    }

    /// From now on the range may be touched.
    pub(crate) fn open(start: *const u8, bytes: usize) {
        // SAFETY: as in `close`.
        unsafe { __asan_unpoison_memory_region(start.cast(), bytes) };
    }
}

#[cfg(not(flagstone_asan))]
mod imp {
    /// From now on nobody may touch the range.
    #[inline(always)]
    pub(crate) fn close(_: *const u8, _: usize) {}

    /// From now on the range may be touched.
    #[inline(always)]
    pub(crate) fn open(_: *const u8, _: usize) {}
}
