//! Another allocator behind the ports: the system's, mimalloc, or any `GlobalAlloc`.
//!
//! Owns no state. As a port for blocks it adds nothing but the test for "no bytes", which goes away
//! where the size is known (requirement Z2). As a backing it asks for zeroed memory with room for
//! the alignment, because general allocators fill aligned memory by hand but get large unaligned
//! memory zeroed from the kernel; the true start is noted before the range. Such a backing cannot
//! give back parts, nor pages.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;

use super::{AllocError, Backing, BlockPort, no_bytes};

/// An allocator passed through.
#[derive(Clone, Copy, Debug, Default)]
pub struct PassThrough<G>(G);

/// The system's allocator.
pub type System = PassThrough<std::alloc::System>;

/// mimalloc.
#[cfg(feature = "mimalloc")]
pub type Mimalloc = PassThrough<mimalloc::MiMalloc>;

impl<G> PassThrough<G> {
    /// Passes `allocator` through.
    pub const fn new(allocator: G) -> Self {
        Self(allocator)
    }
}

impl System {
    /// The system's allocator.
    pub const SYSTEM: System = PassThrough(std::alloc::System);
}

#[cfg(feature = "mimalloc")]
impl Mimalloc {
    /// mimalloc.
    pub const MIMALLOC: Mimalloc = PassThrough(mimalloc::MiMalloc);
}

// SAFETY: `GlobalAlloc` promises what the port does for layouts of some bytes; those of none get an
// aligned address that is never passed on.
unsafe impl<G: GlobalAlloc> BlockPort for PassThrough<G> {
    #[inline]
    fn try_alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        if layout.size() == 0 {
            return Ok(no_bytes(layout));
        }
        // SAFETY: the layout is not empty.
        let block = unsafe { self.0.alloc(layout) };
        NonNull::new(block).ok_or(AllocError::OutOfMemory { layout })
    }

    #[inline]
    fn try_alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        if layout.size() == 0 {
            return Ok(no_bytes(layout));
        }
        // SAFETY: the layout is not empty.
        let block = unsafe { self.0.alloc_zeroed(layout) };
        NonNull::new(block).ok_or(AllocError::OutOfMemory { layout })
    }

    #[inline]
    unsafe fn dealloc(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() != 0 {
            // SAFETY: the caller's contract; the layout is not empty, so the block is real.
            unsafe { self.0.dealloc(block.as_ptr(), layout) }
        }
    }

    #[inline]
    unsafe fn try_realloc(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocError> {
        if old.align() == new.align() && old.size() != 0 && new.size() != 0 {
            // SAFETY: the caller's contract; neither layout is empty.
            let moved = unsafe { self.0.realloc(block.as_ptr(), old, new.size()) };
            return NonNull::new(moved).ok_or(AllocError::OutOfMemory { layout: new });
        }
        let moved = self.try_alloc(new)?;
        // SAFETY: both blocks hold the smaller size and are distinct; the old one is given up.
        unsafe {
            moved.copy_from_nonoverlapping(block, old.size().min(new.size()));
            self.dealloc(block, old);
        }
        Ok(moved)
    }
}

/// What is noted right before a range.
struct Note {
    /// Where the inner allocator's block starts.
    raw: NonNull<u8>,
    /// The range's alignment, from which the block's layout follows.
    align: usize,
}

const NOTE: usize = size_of::<Note>();

/// The layout of a range with room for its alignment and the note.
fn wide(bytes: usize, align: usize) -> Option<Layout> {
    let wide = bytes.checked_add(align)?.checked_add(NOTE)?;
    Layout::from_size_align(wide, align_of::<Note>()).ok()
}

// SAFETY: ranges come zeroed and exclusive from the inner allocator, which does not unwind; the start
// is aligned within the room taken for that.
unsafe impl<G: GlobalAlloc + Send + Sync> Backing for PassThrough<G> {
    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let layout = wide(bytes, align)?;
        // SAFETY: the layout is not empty.
        let raw = NonNull::new(unsafe { self.0.alloc_zeroed(layout) })?;
        let start = (raw.addr().get() + NOTE).next_multiple_of(align);
        // SAFETY: the bound lies at most `NOTE + align` bytes above the block's start, so the range
        // and the note before it are inside; ranges are aligned to pages, so the note is aligned.
        unsafe {
            let start = raw.add(start - raw.addr().get());
            start.cast::<Note>().sub(1).write(Note { raw, align });
            Some(start)
        }
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: the range was handed out whole by `map`, which noted this before it.
        let Note { raw, align } = unsafe { start.cast::<Note>().sub(1).read() };
        if let Some(layout) = wide(bytes, align) {
            // SAFETY: allocated in `map` with this layout; the caller gives it up.
            unsafe { self.0.dealloc(raw.as_ptr(), layout) }
        }
    }

    unsafe fn purge(&self, _: NonNull<u8>, _: usize) -> bool {
        false
    }

    fn can_split(&self) -> bool {
        false
    }
}
