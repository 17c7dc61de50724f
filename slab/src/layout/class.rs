//! What a size class is made of.
//!
//! Owns the shape of one class, whatever table it is in and whatever a slab of it lies in.

/// What a class is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClassInfo {
    /// Bytes of one block.
    pub(crate) block_bytes: u32,
    /// Blocks in one slab.
    pub(crate) capacity: u32,
    /// Slices of one slab.
    pub(crate) slices: u32,
    /// 2^64 / `block_bytes`, rounded up: for `starts_block`.
    pub(crate) inverse: u64,
}

impl ClassInfo {
    /// No class.
    pub(crate) const NONE: ClassInfo =
        ClassInfo { block_bytes: 0, capacity: 0, slices: 0, inverse: 0 };

    /// The shape of a class with so many blocks of `bytes`, a multiple of 8, in a slab of `slices`.
    pub(crate) const fn new(bytes: usize, capacity: usize, slices: usize) -> ClassInfo {
        // A free list counts its blocks in 16 bits, of which one value stands for "never".
        assert!(capacity < u16::MAX as usize);
        ClassInfo {
            block_bytes: bytes as u32,
            capacity: capacity as u32,
            slices: slices as u32,
            inverse: u64::MAX / bytes as u64 + 1,
        }
    }
}
