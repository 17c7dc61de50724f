//! Pages: mapped, moved, purged, unmapped; the page size and the resident set.
//!
//! Owns the `mmap` family. All functions report failure by null, `false` or `None`; none panics and
//! none allocates, because they run inside `GlobalAlloc`.

use std::ffi::CStr;
use std::ptr;

use crate::port::Remapped;
use crate::sync::{Ordering, process};

/// The page size in bytes, read at run time: 4, 16 or 64 KiB on the platforms served.
pub(crate) fn page_size() -> usize {
    static SIZE: process::AtomicUsize = process::AtomicUsize::new(0);
    // Relaxed: the value is a constant of the machine; a second thread at worst asks again.
    let known = SIZE.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    // SAFETY: sysconf only reads.
    let asked = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let size = if asked > 0 { asked as usize } else { 4096 };
    SIZE.store(size, Ordering::Relaxed);
    size
}

/// Maps `bytes` of zeroed, private memory at an address that is a multiple of `align`.
///
/// `bytes` is a multiple of the page size, `align` a power of two. Returns null when the system
/// refuses. Tries an exact mapping first: consecutive requests mostly land aligned because the
/// kernel places them side by side; otherwise maps too much and trims both ends.
pub(crate) fn map_aligned(bytes: usize, align: usize) -> *mut u8 {
    let first = map(bytes);
    if first.is_null() || (first as usize).is_multiple_of(align) {
        return first;
    }
    // SAFETY: just mapped, nobody else knows of it.
    unsafe { unmap(first, bytes) };
    let Some(span) = bytes.checked_add(align) else { return ptr::null_mut() };
    let wide = map(span);
    if wide.is_null() {
        return wide;
    }
    let base = (wide as usize).next_multiple_of(align);
    let before = base - wide as usize;
    let after = span - before - bytes;
    // SAFETY: both ends lie inside the mapping just made and outside the part handed out.
    unsafe {
        if before > 0 {
            unmap(wide, before);
        }
        let kept = wide.add(before);
        if after > 0 {
            unmap(kept.add(bytes), after);
        }
        kept
    }
}

fn map(bytes: usize) -> *mut u8 {
    // SAFETY: an anonymous private mapping at an address of the kernel's choice touches nothing
    // that exists.
    let p = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if p == libc::MAP_FAILED { ptr::null_mut() } else { p.cast() }
}

/// Gives address space back.
///
/// # Safety
/// `[p, p + bytes)` was mapped here, is page-aligned, and nobody uses it any more.
pub(crate) unsafe fn unmap(p: *mut u8, bytes: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        if libc::munmap(p.cast(), bytes) != 0 {
            // The kernel is out of mapping slots, and this would take one more. The address space is
            // lost; the pages need not be, for giving those back splits no mapping.
            purge(p, bytes);
        }
    }
}

/// Gives the pages of a range back and keeps the address space; the range reads as zeros next.
/// Returns whether the kernel agreed.
///
/// # Safety
/// `[p, p + bytes)` was mapped here, is page-aligned, and its contents are not needed any more.
pub(crate) unsafe fn purge(p: *mut u8, bytes: usize) -> bool {
    // MADV_DONTNEED and not MADV_FREE: the resident set then says the truth at once
    // (field note: lazily freed pages made the resident set look twice as large as it was).
    // SAFETY: the caller's contract.
    unsafe { libc::madvise(p.cast(), bytes, libc::MADV_DONTNEED) == 0 }
}

/// Makes a range inaccessible, or accessible again. Returns whether the kernel agreed: it refuses where the
/// process has as many mappings as it may have, for a guarded range is one by itself.
///
/// # Safety
/// `[p, p + bytes)` was mapped here and is page-aligned; nobody uses it.
pub(crate) unsafe fn protect(p: *mut u8, bytes: usize, guarded: bool) -> bool {
    let access = if guarded { libc::PROT_NONE } else { libc::PROT_READ | libc::PROT_WRITE };
    // SAFETY: the caller's contract.
    unsafe { libc::mprotect(p.cast(), bytes, access) == 0 }
}

/// Mappings that the system lets a process have, or what Linux does unless told otherwise. Without
/// allocating.
pub(crate) fn most_mappings() -> usize {
    const USUAL: usize = 65_530;
    let mut text = [0u8; 32];
    let read = read_file(c"/proc/sys/vm/max_map_count", &mut text);
    read.and_then(|text| text.trim().parse().ok()).unwrap_or(USUAL)
}

/// Asks for huge pages in a range, or for none. The system may decline, and then nothing is lost.
///
/// # Safety
/// `[p, p + bytes)` was mapped here and is page-aligned.
pub(crate) unsafe fn advise_huge(p: *mut u8, bytes: usize, huge: bool) {
    #[cfg(target_os = "linux")]
    {
        let advice = if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
        // SAFETY: the caller's contract; the advice changes no contents.
        unsafe { libc::madvise(p.cast(), bytes, advice) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (p, bytes, huge);
}

/// Moves a mapping's pages to the exact place `to`, which must be mapped and expendable.
///
/// On failure the old range is as before. Not so the new one: kernels unmap it before they find out
/// most of what can be wrong (an old range that is several mappings, too many mappings, a limit).
///
/// # Safety
/// Both ranges were mapped here and are page-aligned; nobody uses `[to, to + new_bytes)`.
pub(crate) unsafe fn remap_fixed(
    from: *mut u8,
    old_bytes: usize,
    to: *mut u8,
    new_bytes: usize,
) -> Remapped {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the caller's contract; MREMAP_FIXED replaces the expendable range atomically.
        let moved = unsafe {
            libc::mremap(
                from.cast(),
                old_bytes,
                new_bytes,
                libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                to.cast::<libc::c_void>(),
            )
        };
        if moved == libc::MAP_FAILED { Remapped::Failed } else { Remapped::Moved }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (from, old_bytes, to, new_bytes);
        Remapped::Unsupported
    }
}

/// The resident set of this process in bytes, from `/proc/self/statm`, without allocating.
pub(crate) fn resident_bytes() -> Option<u64> {
    let mut text = [0u8; 128];
    let text = read_file(c"/proc/self/statm", &mut text)?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_size() as u64)
}

/// The beginning of a file.
fn read_file<'a>(path: &CStr, text: &'a mut [u8]) -> Option<&'a str> {
    // SAFETY:
    // 1. the path is NUL-terminated;
    // 2. `read` writes at most the buffer's length into it;
    // 3. the descriptor is closed exactly once.
    let n = unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return None;
        }
        let n = libc::read(fd, text.as_mut_ptr().cast(), text.len());
        libc::close(fd);
        n
    };
    std::str::from_utf8(text.get(..usize::try_from(n).ok()?)?).ok()
}

/// A word that an attacker who sees no memory cannot guess: the kernel's gift to the process,
/// mixed with the clock for platforms that give none.
pub(crate) fn entropy() -> usize {
    let mut word = super::clock::nanos() as usize;
    #[cfg(target_os = "linux")]
    {
        // SAFETY: getauxval only reads the auxiliary vector.
        let at = unsafe { libc::getauxval(libc::AT_RANDOM) } as *const u8;
        if !at.is_null() {
            // SAFETY: AT_RANDOM points to 16 bytes that live as long as the process.
            word ^= unsafe { at.cast::<usize>().read_unaligned() };
        }
    }
    word ^ (word << 25) ^ (&raw const word as usize)
}
