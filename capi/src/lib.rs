//! C interface of the process-wide heap; the contract of each function is in `include/flagstone.h`.
//!
//! Owns nothing: every function forwards to [`flagstone_slab`]. The one protocol here is the
//! boundary's: no panic crosses it (`guarded`), outputs are written on every path, and a pointer
//! from C is used only as its function's contract allows.

mod memory;
mod stats;

use std::ffi::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use memory::{
    PurgeReport, flagstone_alloc, flagstone_free, flagstone_purge, flagstone_usable_size,
};
pub use stats::flagstone_stats_json;

/// Done.
pub const FLAGSTONE_OK: c_int = 0;
/// An argument is out of its range; nothing was done.
pub const FLAGSTONE_INVALID: c_int = -1;
/// An internal error was caught at the boundary.
pub const FLAGSTONE_FAILED: c_int = -2;

/// Version of the library, as a static C string.
#[unsafe(no_mangle)]
pub extern "C" fn flagstone_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Runs `f`, and gives `failed` in place of a panic.
fn guarded<T>(failed: T, f: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| {
        // A payload whose drop panics would carry the panic out after all.
        std::mem::forget(payload);
        failed
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn the_version_is_the_packages() {
        // SAFETY: the function gives a static string that ends in NUL.
        let version = unsafe { CStr::from_ptr(flagstone_version()) };
        assert_eq!(version.to_str(), Ok(env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn a_panic_becomes_a_status() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("second (expected by the test)");
            }
        }
        assert_eq!(guarded(FLAGSTONE_FAILED, || panic!("first (expected)")), FLAGSTONE_FAILED);
        let nasty = || std::panic::panic_any(Bomb);
        assert_eq!(guarded(FLAGSTONE_FAILED, nasty), FLAGSTONE_FAILED);
        assert_eq!(guarded(FLAGSTONE_FAILED, || FLAGSTONE_OK), FLAGSTONE_OK);
    }
}
