//! C interface: the malloc family, and Flagstone's own calls, whose contracts are in
//! `include/flagstone.h`.
//!
//! Owns the choice of the process's allocator: linked or preloaded, the library's `malloc` replaces
//! the system's, and its own Rust code allocates from the same heap. Everything else forwards to
//! [`flagstone_slab`]. The one protocol here is the boundary's: no panic crosses it (`guarded`),
//! outputs are written on every path, and a pointer from C is used only as its function's contract
//! allows.
//!
//! The build script says `flagstone_exported`. Without it this is a library for Rust that replaces
//! nothing and runs nothing at startup: for the fuzz targets.

mod background;
#[cfg_attr(not(flagstone_exported), allow(dead_code, reason = "C++ finds it by name"))]
mod cxx;
mod epoch;
mod exit_table;
mod heap;
mod malloc;
mod memory;
mod metrics;
mod port;
mod proof;
mod scavenger;
mod settings;
mod startup;
mod stats;

use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use epoch::{
    flagstone_advance, flagstone_collect, flagstone_enter, flagstone_leave, flagstone_retire,
};
pub use heap::{
    CHeap, HeapOptions, flagstone_heap_alloc, flagstone_heap_dealloc, flagstone_heap_free,
    flagstone_heap_owned, flagstone_heap_purge, flagstone_heap_realloc, flagstone_high_water_reset,
};
pub use memory::{
    PurgeReport, flagstone_alloc, flagstone_free, flagstone_purge, flagstone_usable_size,
};
pub use metrics::flagstone_metrics_serve;
pub use port::{Port, flagstone_port_view};
pub use proof::flagstone_verify;
pub use stats::{
    ResultPtr, Stats, flagstone_stats, flagstone_stats_json, flagstone_stats_json_owned,
};

#[cfg(not(flagstone_exported))]
pub use malloc::*;
#[cfg(not(flagstone_exported))]
pub use settings::complaints_about;

/// Done.
pub const FLAGSTONE_OK: c_int = 0;
/// An argument is out of its range; nothing was done.
pub const FLAGSTONE_INVALID: c_int = -1;
/// An internal error was caught at the boundary.
pub const FLAGSTONE_FAILED: c_int = -2;
/// There is not enough memory; nothing was done.
pub const FLAGSTONE_OUT_OF_MEMORY: c_int = -3;

/// The library's own allocations, wherever it is loaded. A test keeps its own allocator.
#[cfg(all(flagstone_exported, not(test)))]
#[global_allocator]
static ALLOCATOR: flagstone_slab::Flagstone = flagstone_slab::Flagstone::new();

/// Version of the library, as a static C string.
#[unsafe(no_mangle)]
pub extern "C" fn flagstone_version_borrowed() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// One line on standard error, without allocating.
#[cfg_attr(not(flagstone_exported), allow(dead_code, reason = "what `cxx` says"))]
fn tell(message: &CStr) {
    let message = message.to_bytes();
    for part in [b"flagstone: ".as_slice(), message, b"\n"] {
        // SAFETY: the part is valid for its length. If nobody listens, there is nobody to tell.
        unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
    }
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
        let version = unsafe { CStr::from_ptr(flagstone_version_borrowed()) };
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
