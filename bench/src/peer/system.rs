//! The system's allocator: no global allocator is set.

/// Its name in the table.
pub const NAME: &str = "system";
/// What [`owns`] looks at.
pub const PROOF: &str = "malloc_usable_size and mallinfo2";
/// Whether the C library's accounts must move.
pub const IS_SYSTEM: bool = true;

/// Whether the C library knows the block. It cannot be asked about a foreign one; the accounts
/// that [`prove`](super::prove) reads besides are what decides.
pub fn owns(ptr: *const u8, size: usize) -> bool {
    // SAFETY: only called with blocks that the global allocator gave out, which here is the
    // system's.
    unsafe { libc::malloc_usable_size(ptr.cast_mut().cast()) >= size }
}

/// The C library's version.
pub fn version() -> String {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: returns a C string that lives for ever.
        let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
        format!("glibc {}", version.to_string_lossy())
    }
    #[cfg(not(target_env = "gnu"))]
    String::from("unknown")
}

/// Whether the library is the one asked for, beyond its name.
pub fn is_as_built() -> Result<(), &'static str> {
    Ok(())
}

/// Told by a thread before it sleeps; nothing to do.
pub fn about_to_sleep() {}

/// Called now and then while threads sleep; nothing to do.
pub fn housekeep() {}
