//! What is written into a chain of free blocks on its way to another shard.
//!
//! Owns word 1 of a chain's *first* block, a [`ChainWord`]: where the next chain in the inbox starts,
//! how many blocks this chain has, and where its last block lies, so that the owner splices the whole
//! chain without walking it (after snmalloc's BatchIt). Also the look at a block that may be free
//! already, which takes a segment's bounds.

use std::ptr;

use super::link::{Block, LinkKey};
use super::map::ADDRESS_BITS;
use crate::os::poison::{read_word, write_word};
use crate::sync;

/// Most blocks in one posted chain: what the count field of a [`ChainWord`] holds.
pub(crate) const MAX_CHAIN: u32 = (1 << COUNT_BITS) - 1;

/// What the address and the tail leave: 7 bits, 6 where addresses have 48 bits.
const COUNT_BITS: u32 = usize::BITS - (ADDRESS_BITS - GRAIN.ilog2()) - TAIL_BITS;
const TAIL_BITS: u32 = 13;
const NEXT_SHIFT: u32 = COUNT_BITS + TAIL_BITS;
/// Blocks start at multiples of this many bytes.
const GRAIN: usize = 8;

const _: () = {
    assert!(usize::BITS == 64, "packed chain words need 64-bit addresses");
    assert!(COUNT_BITS >= 6, "short chains would cost an exchange for few blocks");
    // Every block start of a one-slice slab is a tail offset.
    assert!(super::SLICE_BYTES / GRAIN <= 1 << TAIL_BITS);
};

impl LinkKey {
    /// Whether the first word of a block reads like the link of a free block: the end of a list, or an
    /// address in the block's segment. The key has its highest bit set, so neither zero nor a plain
    /// address does.
    ///
    /// # Safety
    /// The caller owns `block`.
    #[inline(always)]
    pub(crate) unsafe fn looks_free(self, block: Block) -> bool {
        // SAFETY: by contract.
        let next = unsafe { self.next(block) }.addr();
        next == 0 || (next ^ block.addr()) < super::SEGMENT_BYTES
    }
}

/// Word 1 of the first block of a posted chain.
///
/// Layout, from the low end: 7 bits count, 13 bits offset of the last block in its slice in units of
/// 8 bytes, 44 bits address of the next chain's first block in units of 8 bytes. Where addresses
/// have 48 bits, the count has 6 and the address 45.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct ChainWord(usize);

impl ChainWord {
    /// A chain of `count` blocks (1..=[`MAX_CHAIN`]) that ends with `tail`, before `next_chain`.
    pub(crate) fn new(next_chain: Block, tail: Block, count: u32) -> Self {
        debug_assert!((1..=MAX_CHAIN).contains(&count));
        let next = next_chain.expose_provenance();
        debug_assert!(next >> ADDRESS_BITS == 0 && next.is_multiple_of(GRAIN));
        let tail = tail.addr() % super::SLICE_BYTES / GRAIN;
        Self((next / GRAIN) << NEXT_SHIFT | tail << COUNT_BITS | count as usize)
    }

    /// The same chain before another one.
    pub(crate) fn with_next(self, next_chain: Block) -> Self {
        let next = next_chain.expose_provenance();
        debug_assert!(next >> ADDRESS_BITS == 0 && next.is_multiple_of(GRAIN));
        Self(self.0 & ((1 << NEXT_SHIFT) - 1) | (next / GRAIN) << NEXT_SHIFT)
    }

    /// The first block of the chain after this one, or null.
    pub(crate) fn next_chain(self) -> Block {
        ptr::with_exposed_provenance_mut((self.0 >> NEXT_SHIFT) * GRAIN)
    }

    /// The last block of the chain that `head` starts. Chains of several blocks stay within one
    /// slice; a single block is its own tail.
    pub(crate) fn tail(self, head: Block) -> Block {
        if self.count() == 1 {
            return head;
        }
        let offset = (self.0 >> COUNT_BITS & ((1 << TAIL_BITS) - 1)) * GRAIN;
        head.map_addr(|a| a & !(super::SLICE_BYTES - 1) | offset)
    }

    /// Blocks in the chain.
    pub(crate) fn count(self) -> u32 {
        (self.0 & MAX_CHAIN as usize) as u32
    }

    /// Reads the word from a chain's first block.
    ///
    /// # Safety
    /// `head` starts a posted chain and the caller has taken it from an inbox.
    pub(crate) unsafe fn read(head: Block) -> Self {
        sync::read(head.cast::<usize>().wrapping_add(1));
        // SAFETY: blocks are at least two words large and 8-aligned.
        Self(unsafe { read_word(head.cast::<usize>().add(1)) })
    }

    /// Writes the word into a chain's first block.
    ///
    /// # Safety
    /// The caller owns the free block `head`.
    pub(crate) unsafe fn write(self, head: Block) {
        sync::written(head.cast::<usize>().wrapping_add(1));
        // SAFETY: blocks are at least two words large and 8-aligned.
        unsafe { write_word(head.cast::<usize>().add(1), self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chain_words_round_trip(
            slice in 1usize..(1 << 31),
            head in 0usize..8192,
            tail in 0usize..8192,
            next in 0usize..(1 << (ADDRESS_BITS - 3)),
            other in 0usize..(1 << (ADDRESS_BITS - 3)),
            count in 2u32..=MAX_CHAIN,
        ) {
            let at = |offset: usize| ptr::without_provenance_mut::<u8>(slice * 65536 + offset * 8);
            let block = |word: usize| ptr::without_provenance_mut::<u8>(word * 8);
            let word = ChainWord::new(block(next), at(tail), count);
            prop_assert_eq!(word.next_chain().addr(), next * 8);
            prop_assert_eq!(word.tail(at(head)).addr(), at(tail).addr());
            prop_assert_eq!(word.count(), count);
            let moved = word.with_next(block(other));
            prop_assert_eq!(moved.next_chain().addr(), other * 8);
            prop_assert_eq!(moved.tail(at(head)).addr(), at(tail).addr());
            prop_assert_eq!(moved.count(), count);
        }
    }

    #[test]
    fn a_single_block_is_its_own_tail_wherever_it_lies() {
        let head = ptr::without_provenance_mut::<u8>(0x7f00_0008_2340);
        assert_eq!(ChainWord::new(ptr::null_mut(), head, 1).tail(head), head);
    }
}
