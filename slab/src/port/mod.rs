//! Ports: where memory comes from, injected and never assumed (requirement G1).
//!
//! Owns two contracts and their implementations. A [`Backing`] hands out page-aligned zeroed ranges to
//! a heap and never sees single blocks; a [`BlockPort`] hands out blocks to whoever allocates.
//!
//! | implementation | backing | blocks |
//! |---|---|---|
//! | [`OsPages`] | pages of the operating system, the default | |
//! | [`System`], [`Mimalloc`](PassThrough), any [`PassThrough`] | ranges of another allocator | passed through |
//! | [`FixedRegion`] | a buffer of the caller's | |
//! | [`Heap`](crate::Heap), [`Flagstone`](crate::Flagstone) | | from shards |
//! | [`EmbeddedHeap`](crate::embedded::EmbeddedHeap) | | from a [`FixedRegion`] |
//! | [`FailAfter`] of any | refuses from the N-th request on, or the N-th alone | the same |
//! | [`Tracing`] of any | knows what is out, and whence | the same |

mod block;
#[cfg(feature = "std")]
mod fail_after;
mod fixed_region;
#[cfg(feature = "std")]
mod os_pages;
#[cfg(feature = "std")]
mod pass_through;
#[cfg(feature = "std")]
mod tracing;

use core::ptr::NonNull;
#[cfg(feature = "std")]
use std::sync::Arc;

pub(crate) use block::no_bytes;
pub use block::{AllocError, BlockPort};
#[cfg(feature = "std")]
pub use fail_after::{FailAfter, FailAfterEnvError};
#[cfg(not(flagstone_loom))]
pub(crate) use fixed_region::End;
pub use fixed_region::FixedRegion;
#[cfg(feature = "std")]
pub use os_pages::OsPages;
#[cfg(feature = "mimalloc")]
pub use pass_through::Mimalloc;
#[cfg(feature = "std")]
pub use pass_through::{PassThrough, System};
#[cfg(feature = "std")]
pub use tracing::{Leak, Tracing};

/// A source of page ranges.
///
/// # Safety
/// Ranges handed out are exclusive, zeroed, writable, aligned as asked, and stay so until given back
/// by `unmap`. No method may allocate through a heap that the backing serves, panic or block for
/// long.
pub unsafe trait Backing: Send + Sync {
    /// Maps `bytes` (a multiple of the page size) at a multiple of `align` (a power of two, at
    /// least the page size). `None` when there is no memory.
    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>>;

    /// Takes a range back.
    ///
    /// # Safety
    /// The range was handed out by this backing, whole or as a page-aligned part, and is unused.
    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize);

    /// Gives the pages of a range back but keeps the range; it reads as zeros next. Returns false
    /// when the range stays populated.
    ///
    /// # Safety
    /// The range is a page-aligned part of one handed out here; its contents are not needed.
    unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool;

    /// Moves the pages of `[from, from + old)` to `[to, to + new)` without copying bytes; the range
    /// at `from` is given back by that, the new tail reads as zeros. `new` is not less than `old`.
    ///
    /// # Safety
    /// Both ranges were handed out here, do not overlap, and nobody uses the one at `to`.
    unsafe fn remap(&self, from: NonNull<u8>, old: usize, to: NonNull<u8>, new: usize) -> Remapped {
        let _ = (from, old, to, new);
        Remapped::Unsupported
    }

    /// Asks for huge pages in a range, or for none. Only advice: contents and sizes stay.
    ///
    /// # Safety
    /// The range is a page-aligned part of what was handed out here.
    unsafe fn advise_huge(&self, start: NonNull<u8>, bytes: usize, huge: bool) {
        let _ = (start, bytes, huge);
    }

    /// Makes the pages of a range inaccessible, so that whoever touches them faults; returns false, and
    /// nothing is changed, where that cannot be done. [`unguard`](Self::unguard) undoes it; until then
    /// [`purge`](Self::purge) and [`unmap`](Self::unmap) may meet such pages. Only asked with the feature
    /// `hardened`.
    ///
    /// # Safety
    /// The range is a page-aligned part of what was handed out here, and nobody uses it.
    unsafe fn guard(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let _ = (start, bytes);
        false
    }

    /// Makes a range accessible again, with any contents; returns whether it is.
    ///
    /// # Safety
    /// The range was given to [`guard`](Self::guard) as it is, which returned true.
    unsafe fn unguard(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let _ = (start, bytes);
        false
    }

    /// Whether ranges that happen to touch may be purged, moved and given back as one.
    fn joins(&self) -> bool {
        false
    }

    /// The process is about to fork: takes every lock that the other methods take, so that the child
    /// finds none that a thread has which it does not have. [`after_fork`](Self::after_fork) follows, in
    /// parent and child. A backing without locks has nothing to do.
    fn before_fork(&self) {}

    /// Lets go of what [`before_fork`](Self::before_fork) took.
    ///
    /// # Safety
    /// The calling thread, or in the child the thread that it is a copy of, called `before_fork`, and
    /// this is the first call since.
    unsafe fn after_fork(&self) {}

    /// Whether a part of a range may go back alone. To a backing that cannot do this heaps give
    /// back whole ranges only.
    fn can_split(&self) -> bool {
        true
    }
}

/// What became of a request to move pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Remapped {
    /// The pages are in their new place; the old one is given back.
    Moved,
    /// This backing moves no pages. Both ranges are as before.
    Unsupported,
    /// It went wrong. The old range is as before; the new one may or may not have been given back,
    /// so it must not be touched any more.
    Failed,
}

macro_rules! backing_behind_a_pointer {
    ($($pointer:ty),*) => {$(
        // SAFETY: all calls go to the backing behind the pointer.
        unsafe impl<B: Backing + ?Sized> Backing for $pointer {
            fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
                (**self).map(bytes, align)
            }

            unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
                // SAFETY: the caller's contract.
                unsafe { (**self).unmap(start, bytes) }
            }

            unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool {
                // SAFETY: the caller's contract.
                unsafe { (**self).purge(start, bytes) }
            }

            unsafe fn remap(
                &self,
                from: NonNull<u8>,
                old: usize,
                to: NonNull<u8>,
                new: usize,
            ) -> Remapped {
                // SAFETY: the caller's contract.
                unsafe { (**self).remap(from, old, to, new) }
            }

            unsafe fn advise_huge(&self, start: NonNull<u8>, bytes: usize, huge: bool) {
                // SAFETY: the caller's contract.
                unsafe { (**self).advise_huge(start, bytes, huge) }
            }

            unsafe fn guard(&self, start: NonNull<u8>, bytes: usize) -> bool {
                // SAFETY: the caller's contract.
                unsafe { (**self).guard(start, bytes) }
            }

            unsafe fn unguard(&self, start: NonNull<u8>, bytes: usize) -> bool {
                // SAFETY: the caller's contract.
                unsafe { (**self).unguard(start, bytes) }
            }

            fn joins(&self) -> bool {
                (**self).joins()
            }

            fn before_fork(&self) {
                (**self).before_fork();
            }

            unsafe fn after_fork(&self) {
                // SAFETY: the caller's contract.
                unsafe { (**self).after_fork() }
            }

            fn can_split(&self) -> bool {
                (**self).can_split()
            }
        }
    )*};
}

backing_behind_a_pointer!(&B);
#[cfg(feature = "std")]
backing_behind_a_pointer!(Box<B>, Arc<B>);
