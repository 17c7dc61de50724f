//! The default backing: anonymous private pages of the operating system.

use std::ptr::NonNull;

use super::{Backing, Remapped};
use crate::os;

/// Pages from the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsPages;

// SAFETY: anonymous private mappings are zeroed, writable and exclusive until unmapped; `os` aligns
// them; none of its functions allocates, panics or blocks on anything but the kernel.
unsafe impl Backing for OsPages {
    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        NonNull::new(os::map_aligned(bytes, align))
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller's contract.
        unsafe { os::unmap(start.as_ptr(), bytes) }
    }

    unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's contract.
        unsafe { os::purge(start.as_ptr(), bytes) }
    }

    unsafe fn remap(&self, from: NonNull<u8>, old: usize, to: NonNull<u8>, new: usize) -> Remapped {
        // SAFETY: the caller's contract.
        unsafe { os::remap_fixed(from.as_ptr(), old, to.as_ptr(), new) }
    }

    unsafe fn advise_huge(&self, start: NonNull<u8>, bytes: usize, huge: bool) {
        // SAFETY: the caller's contract.
        unsafe { os::advise_huge(start.as_ptr(), bytes, huge) }
    }

    unsafe fn guard(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's contract.
        unsafe { os::protect(start.as_ptr(), bytes, true) }
    }

    unsafe fn unguard(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's contract.
        unsafe { os::protect(start.as_ptr(), bytes, false) }
    }

    fn joins(&self) -> bool {
        true
    }
}
