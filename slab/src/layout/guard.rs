//! Guard pages: what of a slab no block covers, so that its last pages can be made inaccessible.
//!
//! Owns the arithmetic. With the feature `hardened` every slab ends with a guard, and its blocks end
//! where the guard begins: what is left over lies in front of them. Blocks stay at multiples of the largest
//! power of two in their size, so alignment is as it was.
//!
//! The room for a guard is a constant, because class tables are; whether pages are small enough for it is
//! asked at run time.

use std::ptr::NonNull;

use super::segment::{SLICE_BYTES, Segment};
use super::slab::Slab;
use crate::os;

/// Whether slabs and large blocks have guards.
pub(crate) const GUARDED: bool = cfg!(all(feature = "hardened", not(flagstone_loom)));

/// Bytes at the end of a slab or of a large block's range that are the guard's: a multiple of every page
/// size that is guarded. x86-64 has one, others mostly 4 or 16 KiB; with pages of 64 KiB a guard
/// would take a whole slice from every slab, so there are none.
pub(crate) const GUARD_ROOM: usize = match () {
    () if !GUARDED => 0,
    () if cfg!(target_arch = "x86_64") => 4 << 10,
    () => 16 << 10,
};

/// Whether this machine's pages fit into the room.
pub(crate) fn guards_fit() -> bool {
    GUARDED && GUARD_ROOM.is_multiple_of(os::page_size())
}

/// Bytes of a slab in front of its first block.
pub(super) const fn lead(block_bytes: usize, capacity: usize, slices: usize) -> usize {
    if !GUARDED {
        return 0;
    }
    let align = 1 << block_bytes.trailing_zeros();
    (slices * SLICE_BYTES - GUARD_ROOM - capacity * block_bytes) & !(align - 1)
}

impl Slab {
    /// Bytes in front of the first block.
    #[inline(always)]
    pub(crate) fn lead(&self) -> usize {
        if !GUARDED {
            return 0;
        }
        lead(self.block_bytes.get() as usize, self.capacity() as usize, self.slices.get() as usize)
    }

    /// The slab's guard, behind its last block: where it starts, and its bytes. `None` where pages are too
    /// large.
    pub(crate) fn guard(&self) -> Option<(NonNull<u8>, usize)> {
        let blocks = self.capacity() as usize * self.block_bytes.get() as usize;
        let start = self.start().wrapping_add(blocks);
        let end = self.base().addr() + self.slices.get() as usize * SLICE_BYTES;
        let start = NonNull::new(start).filter(|_| guards_fit())?;
        Some((start, end - start.addr().get()))
    }
}

impl Segment {
    /// The guard behind a segment's head, in front of its first slab.
    pub(crate) fn head_guard(&self) -> Option<(NonNull<u8>, usize)> {
        let start = NonNull::new(self.start().wrapping_add(Self::head_bytes()));
        Some((start.filter(|_| guards_fit())?, SLICE_BYTES - Self::head_bytes()))
            .filter(|&(_, bytes)| bytes > 0)
    }

    /// Whether the slab that starts at a slice has its guard. Any thread.
    pub(crate) fn is_guarded(&self, first: usize) -> bool {
        #[cfg(feature = "hardened")]
        return self.guarded[first].get() != 0;
        #[cfg(not(feature = "hardened"))]
        return false & (first > 0);
    }

    /// Notes it. The slab's owner, or for the head's slice whoever makes the segment.
    pub(crate) fn set_guarded(&self, first: usize, guarded: bool) {
        #[cfg(feature = "hardened")]
        self.guarded[first].set(u8::from(guarded));
        #[cfg(not(feature = "hardened"))]
        let _ = (first, guarded);
    }
}

#[cfg(test)]
mod tests {
    use super::super::DEFAULT_TABLE;
    use super::*;

    #[test]
    fn blocks_of_every_class_end_at_a_guard_and_stay_aligned() {
        for class in 0..DEFAULT_TABLE.len() {
            let info = DEFAULT_TABLE.info(class);
            let (bytes, capacity) = (info.block_bytes as usize, info.capacity as usize);
            let lead = info.lead();
            assert!(lead.is_multiple_of(1 << bytes.trailing_zeros()), "{info:?}");
            let end = lead + capacity * bytes;
            assert!(end + GUARD_ROOM <= info.slab_bytes(), "{info:?}");
            if GUARDED {
                assert!(end.is_multiple_of(GUARD_ROOM), "{info:?}: bytes before the guard");
            } else {
                assert_eq!(lead, 0);
            }
        }
    }
}
