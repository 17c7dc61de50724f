//! What is written inside a free block: the list behind it.
//!
//! Owns that word, which lives in user memory between a free and the next allocation, and the word that
//! stands for a whole list. Word 0 of every free block is the list behind it, a [`List`] of free blocks
//! of the same slab, XORed with the heap's key, so that a stray write or an attacker's overwrite yields
//! no usable address.

use core::ptr;

use crate::os::poison::{read_word, write_word};
use crate::sync;

/// The address of a block, free or in use.
pub(crate) type Block = *mut u8;

/// A list of free blocks in one word: where the first one is, and how many there are.
///
/// Layout, from the low end: 16 bits count, 48 bits address. A push or a pop keeps the count without
/// an instruction that touches memory for it, and whoever sees the word knows both at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct List(u64);

pub(super) const LENGTH_BITS: u32 = 16;

impl List {
    pub(crate) const EMPTY: List = List(0);

    /// From a word that was made by [`word`](Self::word).
    #[inline(always)]
    pub(crate) const fn of(word: u64) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub(crate) const fn word(self) -> u64 {
        self.0
    }

    /// The list of `len` blocks that starts with `first`.
    pub(crate) fn starting(first: Block, len: u32) -> Self {
        debug_assert!(len >> LENGTH_BITS == 0);
        Self((first.expose_provenance() as u64) << LENGTH_BITS | u64::from(len))
    }

    /// The first block, or null.
    #[inline(always)]
    pub(crate) fn first(self) -> Block {
        ptr::with_exposed_provenance_mut((self.0 >> LENGTH_BITS) as usize)
    }

    /// The number of blocks.
    #[inline(always)]
    pub(crate) const fn len(self) -> u32 {
        self.0 as u16 as u32
    }

    /// Whether there is no block.
    #[inline(always)]
    pub(crate) const fn is_empty(self) -> bool {
        self.0 >> LENGTH_BITS == 0
    }

    /// This list behind one more block, whose link is to be written.
    #[inline(always)]
    pub(crate) fn behind(self, block: Block) -> Self {
        debug_assert!(self.len() < u32::from(u16::MAX));
        Self(((block.expose_provenance() as u64) << LENGTH_BITS) + (self.0 as u16 as u64) + 1)
    }
}

/// The heap's key for links. Zero only before the heap's first use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkKey(pub(crate) usize);

impl LinkKey {
    /// The list behind a free block.
    ///
    /// # Safety
    /// `block` is a free block that the caller owns and whose link was written with this key.
    #[inline(always)]
    pub(crate) unsafe fn rest(self, block: Block) -> List {
        sync::read(block.cast());
        // SAFETY: blocks are 8-aligned and at least two words large; the caller owns it.
        List(unsafe { read_link(block) } ^ self.0 as u64)
    }

    /// Writes the list behind a free block.
    ///
    /// # Safety
    /// The caller owns `block`, which is free.
    #[inline(always)]
    pub(crate) unsafe fn set_rest(self, block: Block, rest: List) {
        sync::written(block.cast());
        // SAFETY: blocks are 8-aligned and at least two words large; the caller owns it.
        unsafe { write_link(block, rest.0 ^ self.0 as u64) };
    }

    /// The block behind a free block, or null.
    ///
    /// # Safety
    /// As [`rest`](Self::rest).
    #[inline(always)]
    pub(crate) unsafe fn next(self, block: Block) -> Block {
        // SAFETY: by contract.
        unsafe { self.rest(block) }.first()
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

/// Reads a link, which is two words where words are short.
///
/// # Safety
/// The caller owns the block, of 8 bytes at least and aligned to a word.
#[inline(always)]
unsafe fn read_link(block: Block) -> u64 {
    let words = block.cast::<usize>();
    // SAFETY: by contract.
    unsafe {
        let low = read_word(words) as u64;
        if usize::BITS == u64::BITS {
            return low;
        }
        (read_word(words.add(1)) as u64) << u32::BITS | low
    }
}

/// Writes one.
///
/// # Safety
/// As [`read_link`].
#[inline(always)]
unsafe fn write_link(block: Block, link: u64) {
    let words = block.cast::<usize>();
    // SAFETY: by contract.
    unsafe {
        write_word(words, link as usize);
        if usize::BITS != u64::BITS {
            write_word(words.add(1), (link >> u32::BITS) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn links_round_trip_and_hide_the_address(key: usize, address in 0usize..(1 << 44), len in 0u32..1 << 16) {
            let mut words = [0usize; 2];
            let block: Block = words.as_mut_ptr().cast();
            let key = LinkKey(key);
            let list = List::starting(ptr::without_provenance_mut::<u8>(address * 8), len);
            // SAFETY: the array is a block of two words that only this test uses.
            let back = unsafe {
                key.set_rest(block, list);
                key.rest(block)
            };
            prop_assert_eq!(back, list);
            prop_assert_eq!((back.first().addr(), back.len()), (address * 8, len));
            prop_assert_eq!((words[0] ^ key.0) as u64, list.word());
        }
    }

    #[test]
    fn a_list_counts_what_is_pushed_and_popped() {
        let mut words = [[0usize; 2]; 5];
        let key = LinkKey(0x8000_1234_5678_9abc);
        let mut list = List::EMPTY;
        for (i, words) in words.iter_mut().enumerate() {
            let block: Block = words.as_mut_ptr().cast();
            // SAFETY: the array is a block of two words that only this test uses.
            unsafe { key.set_rest(block, list) };
            list = list.behind(block);
            assert_eq!((list.first(), list.len()), (block, i as u32 + 1));
            assert_eq!(list, List::starting(block, list.len()));
        }
        for (left, words) in words.iter_mut().enumerate().rev() {
            assert_eq!(list.first(), words.as_mut_ptr().cast());
            // SAFETY: as above.
            list = unsafe { key.rest(list.first()) };
            assert_eq!((list.len(), list.is_empty()), (left as u32, left == 0));
        }
        assert_eq!(list, List::EMPTY);
    }
}
