//! The guard of the collector that a participant forgot, to be had back.

use std::mem;
use std::ptr::NonNull;

use crossbeam_epoch as cb;

/// What a collector's guard of one handle is as a value: a pointer to the handle's state. Every guard of
/// the handle is the same value, so one that was forgotten can be had back from this.
///
/// Not an `Option<cb::Guard>` written when a guard is forgotten: that store and its load would cost more
/// than all else that a guard of ours does.
#[derive(Clone, Copy)]
pub(crate) struct GuardValue(NonNull<()>);

// If a guard were more than a pointer, two of one handle could differ.
const _: () = assert!(size_of::<cb::Guard>() == size_of::<NonNull<()>>());

impl GuardValue {
    pub(crate) fn of(handle: &cb::LocalHandle) -> Self {
        let guard = handle.pin();
        // SAFETY: of one size, as asserted above; a pointer to a handle's state is not null. What is
        // kept is no guard: nobody drops it as such.
        Self(unsafe { mem::transmute_copy(&guard) })
    }

    /// A guard that was forgotten.
    ///
    /// # Safety
    /// A guard of the handle was forgotten, and has not been had back since; the handle is alive.
    #[inline]
    pub(crate) unsafe fn recall(self) -> cb::Guard {
        // SAFETY: the bits are those of the guard that was forgotten.
        unsafe { mem::transmute::<NonNull<()>, cb::Guard>(self.0) }
    }
}
