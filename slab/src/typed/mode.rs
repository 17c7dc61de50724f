//! What becomes of a value when its grace period is over: dropped, as in a slab, or cleared and kept
//! for the next use, as in a pool.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::pool::Clear;

/// The difference between a slab and a pool.
pub(super) trait Mode<T>: Sized {
    /// Whether a vacated slot still holds a value.
    const KEEPS: bool;
    /// Whether [`vacate`](Self::vacate) does anything.
    const ACTS: bool;

    /// Vacates a slot whose value nobody can see.
    ///
    /// # Safety
    /// `value` is the slot's value, initialised, and the caller has it to itself. It is initialised
    /// afterwards if and only if `KEEPS`, also after a panic.
    unsafe fn vacate(value: *mut T);
}

/// A slab's way.
pub(super) struct Drops;

impl<T> Mode<T> for Drops {
    const KEEPS: bool = false;
    const ACTS: bool = std::mem::needs_drop::<T>();

    unsafe fn vacate(value: *mut T) {
        // SAFETY: the caller's promise.
        unsafe { value.drop_in_place() };
    }
}

/// A pool's way.
pub(super) struct Keeps;

impl<T: Clear> Mode<T> for Keeps {
    const KEEPS: bool = true;
    const ACTS: bool = true;

    unsafe fn vacate(value: *mut T) {
        // SAFETY: the caller's promise. A value that panics while it is cleared is still a value.
        unsafe { (*value).clear() };
    }
}

/// Calls `step` until it says that nothing is left, through panics; returns the first of them.
pub(super) fn through_panics(mut step: impl FnMut() -> bool) -> Option<Box<dyn Any + Send>> {
    let mut first = None;
    while let Err(payload) = catch_unwind(AssertUnwindSafe(|| while step() {})) {
        if first.is_none() {
            first = Some(payload);
        } else if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            // A payload may panic in its own drop; that one is leaked.
            std::mem::forget(again);
        }
    }
    first
}
