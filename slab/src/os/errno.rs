//! `errno`, kept over system calls that a caller must not notice.
//!
//! Owns nothing. POSIX wants `free` to leave `errno` as it was.

/// Runs `f` and puts `errno` back to what it was before.
pub(crate) fn keep_errno<R>(f: impl FnOnce() -> R) -> R {
    let place = place();
    // SAFETY: the place is the calling thread's `errno`, valid for its life.
    let before = unsafe { place.read() };
    let result = f();
    // SAFETY: as above.
    unsafe { place.write(before) };
    result
}

fn place() -> *mut libc::c_int {
    // SAFETY: the calls only give an address.
    #[cfg(any(target_os = "macos", target_os = "ios", target_os = "freebsd"))]
    return unsafe { libc::__error() };
    // SAFETY: as above.
    #[cfg(not(any(target_os = "macos", target_os = "ios", target_os = "freebsd")))]
    return unsafe { libc::__errno_location() };
}
