//! The default size classes, and how a request to the global heap finds its class.
//!
//! Owns the default table as constants, so that the global heap's fast path looks classes up without
//! asking a heap for its table; tables of instances are [`ClassTable`](super::ClassTable)s. Steps are 8 bytes up to 128, where alignment allows no finer waste
//! bound, then eight to each doubling, so that a block is at most 12.5 % larger than the class
//! below it. Blocks up to 64 KiB share a slab with others of their class, 32 where that makes it no
//! larger than 512 KiB (ADR 22); larger ones have a slab of their own, whose untouched tail costs address space only.

use super::class::ClassInfo;
use super::guard::{GUARD_ROOM, lead};
use super::segment::SLICE_BYTES;

/// Bytes of the smallest block: two words, the room that a chain of freed blocks needs.
pub(crate) const SMALLEST: usize = 16;
/// Bytes of the largest class; larger requests go to the fallback.
pub(crate) const LARGEST: usize = 512 * 1024;
/// Number of classes in the default table.
pub(crate) const CLASSES: usize = LINEAR + 8 * DOUBLINGS;
/// Room for classes in per-class arrays. Models use few: a lock each would be theirs to make each time.
pub(crate) const MAX_CLASSES: usize = if cfg!(flagstone_loom) { 9 } else { 112 };

/// Classes 16, 24, ... 128.
const LINEAR: usize = (LINEAR_MAX - SMALLEST) / 8 + 1;
const LINEAR_MAX: usize = 128;
const DOUBLINGS: usize = (LARGEST / LINEAR_MAX).ilog2() as usize;
/// Requests up to here find their class in one table load.
pub(super) const TABLE_MAX: usize = 2048;
/// Blocks above this have a slab of their own.
const SHARED_MAX: usize = SLICE_BYTES;
/// A slab that serves several blocks serves at least this many,
const BLOCKS_MIN: usize = 8;
/// and as many as this, if that makes it no larger than [`ROOMY_BYTES`]: a thread that runs out of
/// blocks each few calls spends its time in slow paths.
/// Models fill whole slabs.
const BLOCKS_WANTED: usize = if cfg!(flagstone_loom) { BLOCKS_MIN } else { 32 };
const ROOMY_BYTES: usize = 512 * 1024;

const _: () = {
    assert!(CLASSES <= MAX_CLASSES || cfg!(flagstone_loom));
    assert!(LARGEST == LINEAR_MAX << DOUBLINGS);
    assert!(SMALLEST >= 2 * size_of::<usize>());
    let mut c = 0;
    while c < CLASSES {
        let info = &TABLE[c];
        let bytes = info.block_bytes as usize;
        // The step from the class below is at most 12.5 % once classes are 64 bytes large.
        if c > 0 && bytes > 64 {
            let below = TABLE[c - 1].block_bytes as usize;
            assert!(bytes - below <= below / 8);
        }
        // Blocks cover at least 7/8 of a shared slab.
        let slab = room(info.slices as usize);
        assert!(info.capacity as usize * bytes <= slab);
        assert!(bytes > SHARED_MAX || slab - info.capacity as usize * bytes <= slab / 8);
        assert!(class_of(bytes) == c && class_of(bytes - 7) == c);
        c += 1;
    }
};

impl ClassInfo {
    /// The shape of a class of `bytes`, a multiple of 8 in [`SMALLEST`]..=[`LARGEST`].
    pub(super) const fn of(bytes: usize) -> ClassInfo {
        let slices = slices_for(bytes);
        let capacity = if bytes > SHARED_MAX { 1 } else { room(slices) / bytes };
        Self::new(bytes, capacity, slices)
    }

    /// Whether an offset from a slab's start is a multiple of the block size: one multiplication
    /// (Lemire, Kaser and Kurz, "Faster remainder by direct computation", 2019). What is left over at
    /// a slab's end may start with one; only the slow path asks about that.
    #[inline(always)]
    pub(crate) fn starts_block(&self, offset: usize) -> bool {
        (offset as u64).wrapping_mul(self.inverse) < self.inverse
    }

    /// Bytes of a slab in front of its first block.
    #[inline(always)]
    pub(crate) fn lead(&self) -> usize {
        lead(self.block_bytes as usize, self.capacity as usize, self.slices as usize)
    }

    /// Bytes of one slab.
    pub(crate) fn slab_bytes(&self) -> usize {
        self.slices as usize * SLICE_BYTES
    }
}

static TABLE: [ClassInfo; CLASSES] = {
    let mut table = [ClassInfo::NONE; CLASSES];
    let mut c = 0;
    while c < CLASSES {
        table[c] = ClassInfo::of(block_bytes(c));
        c += 1;
    }
    table
};

static SMALL: [u8; TABLE_MAX / 8 + 1] = {
    let mut table = [0; TABLE_MAX / 8 + 1];
    let mut i = 0;
    while i < table.len() {
        table[i] = class_by_formula(i * 8) as u8;
        i += 1;
    }
    table
};

/// The class of a request of `bytes`, which must not exceed [`LARGEST`].
#[inline(always)]
#[allow(clippy::manual_div_ceil, reason = "`div_ceil` compiles to more instructions here")]
pub(crate) const fn class_of(bytes: usize) -> usize {
    if bytes <= TABLE_MAX { SMALL[(bytes + 7) >> 3] as usize } else { class_by_formula(bytes) }
}

/// The class of a request with an alignment, or `None` when the fallback serves it.
///
/// Rounding the size up to the alignment is enough: a class above a multiple of the alignment is
/// itself one, because steps are powers of two (either the step is a multiple of the alignment, or
/// the rounded size is a multiple of the step and so a class), and slabs start at slice bounds.
#[inline(always)]
pub(crate) fn class_of_layout(bytes: usize, align: usize) -> Option<usize> {
    let rounded = bytes.wrapping_add(align - 1) & align.wrapping_neg();
    // `rounded < bytes` cannot happen for a valid `Layout`, whose size rounds up without overflow.
    if rounded <= LARGEST && align <= SLICE_BYTES { Some(class_of(rounded)) } else { None }
}

/// The class of nearly every request, or `None` when [`class_of_layout`] must be asked: no stricter
/// alignment than every block has, and small enough for the table.
#[inline(always)]
#[allow(clippy::manual_div_ceil, reason = "as in `class_of`")]
pub(crate) fn class_of_common(bytes: usize, align: usize) -> Option<usize> {
    // Both conditions in one comparison: an alignment of 16 reaches the bit of the table's end. The
    // end itself is left out, and goes the longer way.
    const SHIFT: u32 = TABLE_MAX.ilog2() - 4;
    if bytes | align << SHIFT < TABLE_MAX {
        // SAFETY: `bytes` is below the table's end, so the index is at most its last.
        Some(unsafe { *SMALL.get_unchecked((bytes + 7) >> 3) } as usize)
    } else {
        None
    }
}

/// Bytes of a block of class `c` of the default table.
pub(super) const fn block_bytes(c: usize) -> usize {
    if c < LINEAR {
        return SMALLEST + 8 * c;
    }
    let i = c - LINEAR;
    let base = LINEAR_MAX << (i / 8);
    base + (i % 8 + 1) * (base / 8)
}

const fn class_by_formula(bytes: usize) -> usize {
    if bytes <= SMALLEST {
        return 0;
    }
    if bytes <= LINEAR_MAX {
        return (bytes - SMALLEST).div_ceil(8);
    }
    // bytes - 1 lies in [2^e, 2^(e+1)); its three bits below the leading one number the step.
    let below = bytes - 1;
    let e = below.ilog2() as usize;
    LINEAR + (e - LINEAR_MAX.ilog2() as usize) * 8 + ((below >> (e - 3)) & 7)
}

/// Bytes of a slab for blocks.
const fn room(slices: usize) -> usize {
    slices * SLICE_BYTES - GUARD_ROOM
}

const fn slices_for(bytes: usize) -> usize {
    if bytes > SHARED_MAX {
        return (bytes + GUARD_ROOM).div_ceil(SLICE_BYTES);
    }
    let wanted =
        if bytes * BLOCKS_WANTED < ROOMY_BYTES { bytes * BLOCKS_WANTED } else { ROOMY_BYTES };
    let least = bytes * BLOCKS_MIN + GUARD_ROOM;
    let mut slices = (if wanted > least { wanted } else { least }).div_ceil(SLICE_BYTES);
    loop {
        let slab = room(slices);
        if slab % bytes <= slab / 8 {
            return slices;
        }
        slices += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_fits_its_class_and_not_the_one_below() {
        for bytes in 1..=LARGEST {
            let c = class_of(bytes);
            assert!(TABLE[c].block_bytes as usize >= bytes, "{bytes} in class {c}");
            assert!(c == 0 || (TABLE[c - 1].block_bytes as usize) < bytes, "{bytes} above");
        }
    }

    #[test]
    fn rounding_to_the_alignment_makes_every_block_aligned() {
        let mut align = 1;
        while align <= SLICE_BYTES {
            for bytes in (1..=4096).chain((4096..=LARGEST).step_by(97)) {
                if let Some(c) = class_of_layout(bytes, align) {
                    let block = TABLE[c].block_bytes as usize;
                    assert_eq!(block % align, 0, "{bytes} aligned to {align} in class of {block}");
                }
            }
            align *= 2;
        }
    }

    #[test]
    fn requests_above_the_largest_class_or_a_slice_of_alignment_have_none() {
        assert!(class_of_layout(LARGEST, 8).is_some());
        assert!(class_of_layout(LARGEST + 1, 8).is_none());
        assert!(class_of_layout(64, SLICE_BYTES * 2).is_none());
    }
}
