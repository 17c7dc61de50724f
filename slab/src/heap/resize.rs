//! Resizing beyond "same class": pages moved, rest left alone, or contents copied.
//!
//! Owns the choice. What a block really is, is asked of the segment map and not concluded from its
//! layout: a block may hold more than its layout's class after a shrink that stayed, or be aligned
//! more strictly than its layout says by now. But it never holds less than its layout's class (rule S4):
//! who finds that old and new layout have one class leaves the block where it is and looks no further.

use std::alloc::Layout;
use std::ptr::{self, NonNull};

use super::Heap;
use crate::large::Place;
use crate::layout::Block;

impl Heap {
    /// A block of the new layout with the contents of the old one; null when there is no memory, and
    /// the old block is then as it was.
    ///
    /// # Safety
    /// `block` is in use, of this heap, of the layout `old`, and given up if this succeeds. Neither
    /// size is zero.
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn realloc_slow(&self, block: Block, old: Layout, new: Layout) -> Block {
        let new_class = self.table.class_of_layout(new.size(), new.align());
        let fallback = self.is_fallback(block);
        let aligned = block.addr().is_multiple_of(new.align());
        // Readers may look at the old block, wherever the new one is: nothing moves under them.
        let in_place = !self.retires;
        if in_place && fallback && new_class.is_none() && aligned {
            // SAFETY: by contract, and the map says that it is a fallback block.
            let resized =
                unsafe { self.fallback.resize(block, new.align(), new.size(), &self.means()) };
            if let Some(resized) = resized {
                return resized;
            }
        }
        if !fallback
            && let Some(class) = new_class
            && aligned
            // SAFETY: by contract.
            && let Some(bytes) = unsafe { self.usable_size_in_use(block) }
        {
            // Shrinking by less than half stays: the copy would cost more than the rest is worth. A block
            // that is large enough and happens to lie well may yet be of a smaller class than an alignment
            // demands.
            let holds = self.table.info(class).block_bytes as usize <= bytes;
            if holds && new.size() >= bytes / 2 {
                return block;
            }
        }
        let moved = match new_class {
            Some(class) => self.alloc_class(class),
            None if new.size() > old.size() => self.alloc_fallback(new, Place::Growing),
            None => self.alloc_fallback(new, Place::Best),
        };
        if moved.is_null() {
            return moved;
        }
        // SAFETY: both blocks hold the smaller size and are distinct; the old one is given up.
        unsafe {
            ptr::copy_nonoverlapping(block, moved, old.size().min(new.size()));
            match NonNull::new(block) {
                Some(retired) if self.retires => self.retire_here(retired),
                _ => self.free_any(block),
            }
        }
        if fallback {
            self.fallback.count_copied_resize(&self.threshold);
        }
        moved
    }
}
