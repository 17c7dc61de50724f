//! The one place where this crate gets its atomics, shared cells, locks and statics.
//!
//! Owns the switch between `std`, nothing, and loom. Without `std` there are a cell and a [`PlainLock`]
//! that spins, which is all that the embedded heap needs. Under `--cfg flagstone_loom` the same code runs
//! on loom's types and is model-checked from `loom_tests/`. What differs there, and how the code bears it:
//!
//! * Loom's atomics and locks cannot be built in a `const`: [`const_off_loom!`] and [`each!`].
//! * A static would outlive one execution of a model: [`per_execution!`] makes it anew for each.
//!   [`process`] has atomics of statics that no protocol rests on, and which stay `std`'s.
//! * Plain cells that change hands are [`Cell`]s, and words in blocks are announced by [`read`] and
//!   [`written`]: loom is told of each access by address, so it sees races on memory that no type of
//!   its own lies in. Elsewhere these are `std`'s cell and nothing.
//!
//! Telemetry counters do not come from here but from [`counter`](crate::counter), on purpose: they
//! guard nothing, and in a model they would only multiply the interleavings. Those that promise readers
//! something of other counters do, because the promise is modelled.

#![allow(clippy::disallowed_types, reason = "this is the facade that the ban points at")]

#[cfg(flagstone_loom)]
pub(crate) mod watched;

mod plain;

#[cfg(not(flagstone_loom))]
mod cells {
    pub(crate) use core::cell::Cell;

    /// A word of a block is about to be read.
    #[inline(always)]
    pub(crate) fn read(_word: *const usize) {}

    /// A word of a block is about to be written.
    #[inline(always)]
    pub(crate) fn written(_word: *const usize) {}
}

#[cfg(all(feature = "std", not(flagstone_loom)))]
mod imp {
    use std::sync::atomic;

    pub(crate) use std::sync::{Mutex, MutexGuard, TryLockError};

    // Aliases and not re-exports: the lint looks through a re-export, but not through these.
    pub(crate) type AtomicPtr<T> = atomic::AtomicPtr<T>;
    pub(crate) type AtomicU8 = atomic::AtomicU8;
    pub(crate) type AtomicU32 = atomic::AtomicU32;
    pub(crate) type AtomicU64 = atomic::AtomicU64;
    pub(crate) type AtomicUsize = atomic::AtomicUsize;
    pub(crate) use atomic::{Ordering, fence};

    macro_rules! const_off_loom {
        ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $result:ty $body:block)*) => {
            $($(#[$meta])* $vis const fn $name($($arg: $type),*) -> $result $body)*
        };
    }

    macro_rules! each {
        ($value:expr; $count:expr) => {
            [const { $value }; $count]
        };
    }

    macro_rules! per_execution {
        ($(#[$meta:meta])* $vis:vis static $name:ident: $type:ty = $value:expr;) => {
            $(#[$meta])* $vis static $name: $type = $value;
        };
    }

    #[cfg(not(all(
        target_os = "linux",
        target_arch = "x86_64",
        target_pointer_width = "64",
        not(miri)
    )))]
    pub(crate) use std::thread::LocalKey;
    pub(crate) use {const_off_loom, each, per_execution, std::thread_local as per_thread};
}

#[cfg(flagstone_loom)]
mod imp {
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
    pub(crate) use loom::sync::atomic::{Ordering, fence};
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    pub(crate) use std::sync::TryLockError;

    macro_rules! const_off_loom {
        ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $result:ty $body:block)*) => {
            $(
                $(#[$meta])*
                #[allow(clippy::new_without_default, reason = "mirrors the const constructor")]
                $vis fn $name($($arg: $type),*) -> $result $body
            )*
        };
    }

    macro_rules! each {
        ($value:expr; $count:expr) => {
            std::array::from_fn::<_, { $count }, _>(|_| $value)
        };
    }

    macro_rules! per_execution {
        ($(#[$meta:meta])* $vis:vis static $name:ident: $type:ty = $value:expr;) => {
            // The macro wants to be told a visibility word by word.
            loom::lazy_static! { $(#[$meta])* pub(crate) static ref $name: $type = $value; }
        };
    }

    macro_rules! per_thread {
        ($($(#[$meta:meta])* $vis:vis static $name:ident: $type:ty = const { $value:expr };)*) => {
            loom::thread_local! { $($(#[$meta])* $vis static $name: $type = $value;)* }
        };
    }

    pub(crate) use loom::thread::LocalKey;
    pub(crate) use {const_off_loom, each, per_execution, per_thread};
}

#[cfg(not(flagstone_loom))]
pub(crate) use cells::{Cell, read, written};
#[cfg(any(feature = "std", flagstone_loom))]
pub(crate) use imp::*;
pub(crate) use plain::{PlainGuard, PlainLock};
#[cfg(flagstone_loom)]
pub(crate) use watched::{Cell, read, written};

/// Whether the negative control of this name is on. It may be in builds with `--cfg flagstone_weaken`,
/// which nothing but `loom_tests/run.sh` makes: there `FLAGSTONE_WEAKEN` says which. Else a constant.
#[cfg(all(feature = "std", not(flagstone_weaken)))]
#[inline(always)]
pub(crate) const fn weakened(_control: &str) -> bool {
    false
}

#[cfg(flagstone_weaken)]
pub(crate) fn weakened(control: &str) -> bool {
    static NAME: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    NAME.get_or_init(|| std::env::var("FLAGSTONE_WEAKEN").ok()).as_deref() == Some(control)
}

/// Atomics of statics that belong to the process and that no protocol under a model rests on: a page
/// size, a key made once, the segment map. They are `std`'s under loom too, and so unseen there.
#[cfg(feature = "std")]
pub(crate) mod process {
    use std::sync::atomic;

    pub(crate) type AtomicPtr<T> = atomic::AtomicPtr<T>;
    pub(crate) type AtomicU8 = atomic::AtomicU8;
    pub(crate) type AtomicUsize = atomic::AtomicUsize;
}
