//! Environment variables, read without allocating.
//!
//! Owns nothing. What `std::env` offers allocates, which an allocator that is being asked for its
//! first block must not.

use std::ffi::CStr;

/// The value of a variable, handed to `read`; `None` if it is not set or not UTF-8.
pub(crate) fn environment<R>(name: &CStr, read: impl FnOnce(&str) -> R) -> Option<R> {
    // SAFETY: the name ends in NUL. The value stays valid until somebody changes the environment,
    // which no program may do while other threads read it.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: as above; environment values end in NUL.
    unsafe { CStr::from_ptr(value) }.to_str().ok().map(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read_and_what_is_not_is_not() {
        let path = std::env::var("PATH").ok();
        assert_eq!(environment(c"PATH", str::to_owned), path);
        assert_eq!(environment(c"FLAGSTONE_NO_SUCH_VARIABLE", str::to_owned), None);
    }
}
