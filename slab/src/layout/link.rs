//! What is written inside a free block: the link to the next one.
//!
//! Owns word 0 of every free block: the next free block of the same slab, XORed with the heap's key,
//! so that a stray write or an attacker's overwrite yields no usable address. Word 1 is
//! [`chain`](super::chain)'s.

use core::ptr;

use crate::os::poison::{read_word, write_word};
use crate::sync;

/// The address of a block, free or in use.
pub(crate) type Block = *mut u8;

/// The heap's key for links. Zero only before the heap's first use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkKey(pub(crate) usize);

impl LinkKey {
    /// The link stored in a free block.
    ///
    /// # Safety
    /// `block` is a free block that the caller owns and whose link was written with this key.
    #[inline(always)]
    pub(crate) unsafe fn next(self, block: Block) -> Block {
        sync::read(block.cast());
        // SAFETY: blocks are 8-aligned and at least two words large; the caller owns it.
        let word = unsafe { read_word(block.cast()) };
        ptr::with_exposed_provenance_mut(word ^ self.0)
    }

    /// Writes the link of a free block.
    ///
    /// # Safety
    /// The caller owns `block`, which is free.
    #[inline(always)]
    pub(crate) unsafe fn set_next(self, block: Block, next: Block) {
        sync::written(block.cast());
        // SAFETY: blocks are 8-aligned and at least two words large; the caller owns it.
        unsafe { write_word(block.cast(), next.expose_provenance() ^ self.0) };
    }
}

/// Wipes the link of a block that is handed out, so that one given back unwritten does not look free
/// already.
///
/// # Safety
/// The caller owns the block.
#[inline(always)]
pub(crate) unsafe fn wipe_link(block: Block) {
    sync::written(block.cast());
    // SAFETY: blocks are 8-aligned and at least two words large; the caller owns it.
    unsafe { write_word(block.cast(), 0) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn links_round_trip_and_hide_the_address(key: usize, address in 0usize..(1 << 44)) {
            let mut words = [0usize; 2];
            let block: Block = words.as_mut_ptr().cast();
            let key = LinkKey(key);
            let next = ptr::without_provenance_mut::<u8>(address * 8);
            // SAFETY: the array is a block of two words that only this test uses.
            let back = unsafe {
                key.set_next(block, next);
                key.next(block)
            };
            prop_assert_eq!(back.addr(), address * 8);
            prop_assert_eq!(words[0] ^ key.0, address * 8);
        }
    }
}
