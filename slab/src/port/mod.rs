//! The `Backing` port: where a heap's segments, tables and fallback blocks come from.
//!
//! Owns the contract (requirement G1: an allocator is injected, never assumed) and its default,
//! [`OsPages`]. A backing hands out page-aligned zeroed ranges; it never sees single blocks.

mod os_pages;

use std::ptr::NonNull;

pub use os_pages::OsPages;

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

    /// Whether ranges that happen to touch may be purged, moved and given back as one.
    fn joins(&self) -> bool {
        false
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
