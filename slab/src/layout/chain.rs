//! A chain of freed blocks on its way to their owner: what is written into one of them.
//!
//! Owns the words of a chain's *head*, the block that stands for it. One is a [`ChainWord`]: where the
//! next chain in the inbox starts, and how many blocks this one has. The words behind it say which
//! other blocks of the same slab belong to it, four to a word. The others stay as they were freed: a
//! thread that frees for another reads and writes none of their lines, so these do not travel to its
//! core and back. Only the owner links them, with stores that need not wait for each other
//! (the pointer arrays of jemalloc's and tcmalloc's thread caches, sent by snmalloc's batches).
//!
//! Where frees are checked, every block of a chain is *marked*: its first word is a link to itself, so
//! that whoever frees it again finds it free at once, and not only when its owner links it. No free list has
//! such a link. A marked head has its chain's word behind the mark, and a pointer to it has the lowest
//! bit set. A chain is marked as a whole, or not at all.

use std::ptr;

use super::link::{Block, LENGTH_BITS, LinkKey, List};
use super::map::ADDRESS_BITS;
use super::segment::SLICE_BYTES;
use crate::os::poison::{read_word, write_word};
use crate::sync::{self, weakened};

/// Most blocks in one chain. A gathered one fills a cache line.
pub(crate) const MAX_CHAIN: usize = 25;

/// Blocks start at multiples of this many bytes.
pub(super) const GRAIN: usize = 8;
const OFFSET_BITS: u32 = u16::BITS;
/// Largest slab whose blocks an offset tells apart: those of larger ones travel alone.
pub(crate) const NAMED_BYTES: usize = GRAIN << OFFSET_BITS;
const OFFSETS_PER_WORD: usize = (usize::BITS / OFFSET_BITS) as usize;

const _: () = {
    assert!(ADDRESS_BITS + LENGTH_BITS <= u64::BITS, "a list is an address and a count");
    assert!(NAMED_BYTES.is_multiple_of(SLICE_BYTES));
    assert!(MAX_CHAIN > 1 && MAX_CHAIN < 1 << u8::BITS);
};

/// The head of a chain. The lowest bit of the address says whether the block is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Head(*mut u8);

impl Head {
    /// No chain.
    pub(crate) const NONE: Head = Head(ptr::null_mut());

    /// A block that stands for a chain of marked blocks, or of others.
    #[inline(always)]
    pub(crate) fn new(block: Block, marked: bool) -> Self {
        Self(block.wrapping_add(usize::from(marked)))
    }

    /// As it was before it was made [raw](Self::raw).
    pub(crate) fn of_raw(raw: *mut u8) -> Self {
        Self(raw)
    }

    /// The head as a pointer that only stands for it.
    pub(crate) fn raw(self) -> *mut u8 {
        self.0
    }

    pub(crate) fn is_none(self) -> bool {
        self.0.is_null()
    }

    pub(crate) fn block(self) -> Block {
        self.0.map_addr(|a| a & !1)
    }

    pub(crate) fn is_marked(self) -> bool {
        self.0.addr() & 1 != 0
    }

    /// The words that describe the chain.
    fn words(self) -> *mut usize {
        self.block().cast::<usize>().wrapping_add(usize::from(self.is_marked()))
    }
}

impl LinkKey {
    /// Marks a block as free and on its way to its owner.
    ///
    /// # Safety
    /// The caller owns the free block, which nobody else knows of: it is in no chain that was posted.
    #[inline]
    pub(crate) unsafe fn mark(self, block: Block) {
        // SAFETY: by contract.
        unsafe { self.set_rest(block, List::starting(block, 0)) };
    }

    /// Whether a block is so marked.
    ///
    /// # Safety
    /// The caller owns `block`.
    #[inline]
    pub(crate) unsafe fn is_marked(self, block: Block) -> bool {
        // SAFETY: by contract.
        unsafe { self.rest(block) == List::starting(block, 0) && !weakened("mark_is_a_link") }
    }

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

/// Where a block starts, in units of 8 bytes, modulo [`NAMED_BYTES`].
pub(crate) type Offset = u16;

/// The offset of a block. Of its address alone: where its slab starts need not be looked up.
#[inline(always)]
pub(crate) fn offset_of(block: Block) -> Offset {
    (block.addr() / GRAIN) as Offset
}

/// The block with an offset, in a slab of at most [`NAMED_BYTES`] that starts at `start`.
#[inline(always)]
pub(crate) fn block_at(start: Block, offset: Offset) -> Block {
    let from_start = offset.wrapping_sub(offset_of(start));
    start.wrapping_add(from_start as usize * GRAIN)
}

/// Blocks of which a chain can consist if they are so large: what its head has room for.
#[inline(always)]
pub(crate) const fn chain_room(block_bytes: u32, marked: bool) -> usize {
    let words = block_bytes as usize / size_of::<usize>() - 1 - marked as usize;
    let others = words * OFFSETS_PER_WORD;
    if others + 1 < MAX_CHAIN { others + 1 } else { MAX_CHAIN }
}

/// The first word that describes a chain. A [`List`]'s layout: from the low end 16 bits count, 48 bits address of the
/// next chain's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct ChainWord(List);

impl ChainWord {
    /// A chain of `count` blocks, at least one, before the chain that starts with `next`, if any.
    pub(crate) fn new(next: Head, count: u32) -> Self {
        debug_assert!((1..=MAX_CHAIN as u32).contains(&count));
        Self(List::starting(next.raw(), count))
    }

    /// The same chain before another one.
    pub(crate) fn with_next(self, next: Head) -> Self {
        Self::new(next, self.count())
    }

    /// The head of the chain after this one, if any.
    pub(crate) fn next_chain(self) -> Head {
        Head(self.0.first())
    }

    /// Blocks in the chain.
    pub(crate) fn count(self) -> u32 {
        self.0.len()
    }

    /// Reads the word from a chain's head.
    ///
    /// # Safety
    /// `head` starts a posted chain and the caller has taken it from an inbox.
    pub(crate) unsafe fn read(head: Head) -> Self {
        sync::read(head.words());
        // SAFETY: blocks are at least two words large and 8-aligned.
        Self(List::of(unsafe { read_word(head.words()) } as u64))
    }

    /// Writes the word into a chain's head.
    ///
    /// # Safety
    /// The caller owns the free block `head`.
    pub(crate) unsafe fn write(self, head: Head) {
        sync::written(head.words());
        // SAFETY: blocks are at least two words large and 8-aligned.
        unsafe { write_word(head.words(), self.0.word() as usize) };
    }
}

/// Writes into a chain's head which other blocks belong to it.
///
/// # Safety
/// The caller owns the head, whose size has [`chain_room`] for so many others.
pub(crate) unsafe fn write_others(head: Head, others: impl ExactSizeIterator<Item = Offset>) {
    let mut word = 0;
    let count = others.len();
    for (i, offset) in others.enumerate() {
        let place = i % OFFSETS_PER_WORD;
        word |= (offset as usize) << (place as u32 * OFFSET_BITS);
        if place + 1 == OFFSETS_PER_WORD || i + 1 == count {
            let at = head.words().wrapping_add(1 + i / OFFSETS_PER_WORD);
            sync::written(at);
            // SAFETY: by contract the word lies in the block.
            unsafe { write_word(at, word) };
            word = 0;
        }
    }
}

/// Calls `each` for the other blocks of a chain of `count` in the slab that starts at `start`.
///
/// # Safety
/// The caller owns the chain.
#[inline(always)]
pub(crate) unsafe fn for_each_other(
    start: Block,
    head: Head,
    count: u32,
    mut each: impl FnMut(Block),
) {
    let others = count as usize - 1;
    let mut done = 0;
    while done < others {
        let at = head.words().wrapping_add(1 + done / OFFSETS_PER_WORD);
        sync::read(at);
        // SAFETY: by contract `write_others` wrote so many.
        let mut word = unsafe { read_word(at) };
        for _ in 0..OFFSETS_PER_WORD.min(others - done) {
            each(block_at(start, word as Offset));
            word >>= OFFSET_BITS;
        }
        done += OFFSETS_PER_WORD;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head((words, marked): (usize, bool)) -> Head {
        Head::new(ptr::without_provenance_mut(words * 8), marked)
    }

    fn any_head() -> impl Strategy<Value = Head> {
        (0usize..(1 << (ADDRESS_BITS - 3)), any::<bool>()).prop_map(head)
    }

    proptest! {
        #[test]
        fn chain_words_round_trip(
            next in any_head(),
            other in any_head(),
            count in 1u32..=MAX_CHAIN as u32,
        ) {
            let word = ChainWord::new(next, count);
            prop_assert_eq!((word.next_chain(), word.count()), (next, count));
            let moved = word.with_next(other);
            prop_assert_eq!((moved.next_chain(), moved.count()), (other, count));
        }

        #[test]
        fn a_head_names_every_other_block(
            bytes in 2u32..40,
            marked: bool,
            offsets in prop::collection::vec(any::<Offset>(), 0..MAX_CHAIN),
        ) {
            let mut head = [0usize; 40];
            let block: Block = head.as_mut_ptr().cast();
            let at = Head::new(block, marked);
            let named = offsets.len().min(chain_room(bytes * 8, marked) - 1);
            let start = block.map_addr(|a| a & !(SLICE_BYTES - 1));
            let mut seen = Vec::new();
            // SAFETY: the array is large enough for a block of so many words.
            unsafe {
                write_others(at, offsets[..named].iter().copied());
                for_each_other(start, at, named as u32 + 1, |block| seen.push(block));
            }
            let inside = start.addr()..start.addr() + NAMED_BYTES;
            prop_assert!(seen.iter().all(|block| inside.contains(&block.addr())));
            let seen: Vec<Offset> = seen.into_iter().map(offset_of).collect();
            prop_assert_eq!(&seen[..], &offsets[..named]);
            prop_assert!(head[..1 + usize::from(marked)].iter().all(|&word| word == 0));
            prop_assert!(head[bytes as usize..].iter().all(|&word| word == 0));
        }
    }

    #[test]
    fn an_offset_tells_the_blocks_of_a_slab_apart_wherever_it_starts() {
        for slice in [0, 1, 5, 63] {
            let start = ptr::without_provenance_mut::<u8>(0x7f00_0000_0000 + slice * SLICE_BYTES);
            for at in [0, 8, 4096, SLICE_BYTES - 8, SLICE_BYTES, NAMED_BYTES - 8] {
                let block = start.wrapping_add(at);
                assert_eq!(block_at(start, offset_of(block)), block);
            }
        }
    }

    #[test]
    fn the_smallest_blocks_have_room_for_a_few_and_a_cache_line_for_all() {
        let smallest = super::super::SMALLEST as u32;
        assert_eq!((chain_room(smallest, false), chain_room(smallest, true)), (5, 1));
        assert_eq!((chain_room(64, false), chain_room(64, true)), (MAX_CHAIN, MAX_CHAIN));
    }

    #[test]
    fn a_mark_looks_free_and_is_known_from_links_and_contents() {
        let mut words = [[0usize; 2]; 2];
        let key = LinkKey(0x8000_1234_5678_9abc);
        let [one, other] = words.each_mut().map(|words| words.as_mut_ptr().cast::<u8>());
        // SAFETY: two blocks of two words that only this test uses.
        unsafe {
            assert!(!key.looks_free(one) && !key.is_marked(one));
            key.mark(one);
            assert!(key.looks_free(one) && key.is_marked(one));
            for rest in [List::EMPTY, List::starting(other, 1), List::starting(one, 1)] {
                key.set_rest(one, rest);
                assert!(key.looks_free(one) && !key.is_marked(one), "{rest:?}");
            }
        }
    }
}
