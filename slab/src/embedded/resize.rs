//! Blocks that change their size.
//!
//! Owns the choice: in place where the block is large enough or what is behind a range is free; a move
//! else. A block that shrinks moves only where a smaller class has a block for it, so shrinking in place
//! of need never fails.

use core::alloc::Layout;
use core::ptr::NonNull;

use super::classes::{block_bytes, class_of};
use super::core::{Core, Place, range_bytes};

impl Core {
    /// The block with its new size; `None` if there is no memory, and then it is as before.
    ///
    /// # Safety
    /// The block came from this heap and was last asked for with `old`; if this succeeds it is given up
    /// at its old address. Neither size is zero.
    pub(super) unsafe fn realloc(
        &mut self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Option<NonNull<u8>> {
        if block.addr().get().is_multiple_of(new.align()) {
            let room = match self.place_of(block.as_ptr()) {
                Place::Slab(slab) => slab.block_bytes.get() as usize,
                Place::Range => range_bytes(old)?,
            };
            let smaller = class_of(new.size(), new.align())
                .filter(|&class| new.size() <= room && block_bytes(class) < room);
            if let Some(moved) = smaller.and_then(|class| self.alloc_in(class))
                && let Some(moved) = NonNull::new(moved)
            {
                self.note_alloc();
                // SAFETY: by contract; the new block is large enough for what stays.
                unsafe { self.move_to(moved, block, old, new) };
                return Some(moved);
            }
            // SAFETY: by contract.
            if unsafe { self.resize_in_place(block, room, new) } {
                return Some(block);
            }
        }
        let (moved, _) = self.alloc(new)?;
        // SAFETY: as above.
        unsafe { self.move_to(moved, block, old, new) };
        Some(moved)
    }

    /// Whether a block with so much room has the new size now.
    ///
    /// # Safety
    /// As [`realloc`](Self::realloc).
    unsafe fn resize_in_place(&mut self, block: NonNull<u8>, room: usize, new: Layout) -> bool {
        if let Place::Slab(_) = self.place_of(block.as_ptr()) {
            return new.size() <= room;
        }
        let Some(bytes) = range_bytes(new) else { return false };
        if bytes > room {
            return self.extend_range(block.as_ptr(), room, bytes - room);
        }
        if bytes < room {
            // SAFETY: the end of the range, which nobody needs any more.
            unsafe { self.free_range(block.as_ptr().wrapping_add(bytes), room - bytes) };
        }
        true
    }

    /// # Safety
    /// As [`realloc`](Self::realloc), which succeeds; `to` is a new block of the new size.
    unsafe fn move_to(&mut self, to: NonNull<u8>, from: NonNull<u8>, old: Layout, new: Layout) {
        // SAFETY: both have so many bytes, and one is new.
        unsafe {
            to.copy_from_nonoverlapping(from, old.size().min(new.size()));
            self.free(from, old);
        }
    }
}
