//! The one door to atomics, locks and yielding: std's, or loom's under `--cfg flagstone_loom`.
//!
//! Owns nothing. Everything else in the crate names these items and never `std::sync::atomic`, so a
//! model that runs our protocols sees every access. `crossbeam-epoch` has a facade of its own, which
//! follows `--cfg crossbeam_loom`; the two are switched apart on purpose, because most models are
//! over our own protocols and need no collector underneath.
//!
//! The atomics are type aliases, not re-exports: the lint that bans the std types looks through a
//! `pub use` but stops at an alias.

#[cfg(not(flagstone_loom))]
#[allow(clippy::disallowed_types, reason = "this is the facade")]
mod imp {
    use std::sync::atomic;

    pub(crate) type AtomicBool = atomic::AtomicBool;
    pub(crate) type AtomicU64 = atomic::AtomicU64;

    pub(crate) use std::sync::atomic::{Ordering, fence};
    pub(crate) use std::sync::{Mutex, MutexGuard};
    pub(crate) use std::thread::yield_now;

    /// A thread-local without a destructor; reading it is one load.
    macro_rules! thread_cell {
        ($name:ident: $type:ty = $value:expr) => {
            std::thread_local! { static $name: $type = const { $value } }
        };
    }
    pub(crate) use thread_cell;
}

#[cfg(flagstone_loom)]
mod imp {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    pub(crate) use loom::thread::yield_now;

    macro_rules! thread_cell {
        ($name:ident: $type:ty = $value:expr) => {
            loom::thread_local! { static $name: $type = $value }
        };
    }
    pub(crate) use thread_cell;
}

pub(crate) use imp::*;

/// Whether the negative control of this name is on. It may be in builds with `--cfg flagstone_weaken`,
/// which nothing but `loom_tests/run.sh` makes: there `FLAGSTONE_WEAKEN` says which. Else a constant.
#[cfg(not(flagstone_weaken))]
#[inline(always)]
pub(crate) const fn weakened(_control: &str) -> bool {
    false
}

#[cfg(flagstone_weaken)]
pub(crate) fn weakened(control: &str) -> bool {
    static NAME: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    NAME.get_or_init(|| std::env::var("FLAGSTONE_WEAKEN").ok()).as_deref() == Some(control)
}
