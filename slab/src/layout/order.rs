//! Free lists in the order of addresses.
//!
//! Owns the map of a slab's free blocks, and the moment at which chains of them become a list. Blocks that
//! come back from other threads come in runs that are cut and mixed anew each time round; before long
//! neighbours in a list would be far apart in memory. A thread that then reads what was allocated after
//! each other, as a consumer does, misses on each block, and no prefetcher helps it: it took a third of the
//! time of a producer and a consumer. So they are linked in the order of addresses (as jemalloc's
//! and tcmalloc's slabs hand out their lowest free blocks first), by stores that need not wait for each
//! other. What the owner freed keeps its order: the block freed last is the likeliest to be in its cache.

use super::chain::{ChainWord, for_each_other};
use super::classes::SMALLEST;
use super::link::{Block, LinkKey};
use super::segment::SLICE_BYTES;
use super::slab::{NO_CHAIN, Slab};
use crate::heap::freed_twice;

/// Blocks of the smallest class in a slab: one bit each.
const MAP_WORDS: usize = SLICE_BYTES / SMALLEST / 64;

/// The free blocks of a slab, a bit each.
pub(super) struct FreeMap([u64; MAP_WORDS]);

impl FreeMap {
    pub(super) fn new() -> Self {
        Self([0; MAP_WORDS])
    }

    pub(super) fn insert(&mut self, i: usize) {
        self.0[i / 64 % MAP_WORDS] |= 1 << (i % 64);
    }

    pub(super) fn has(&self, i: usize) -> bool {
        self.0[i / 64 % MAP_WORDS] & 1 << (i % 64) != 0
    }

    /// Calls `each` for every block in the map, which are among the first `blocks`, from the highest down.
    fn for_each_down(&self, blocks: usize, mut each: impl FnMut(usize)) {
        for (i, &word) in self.0[..blocks.div_ceil(64).min(MAP_WORDS)].iter().enumerate().rev() {
            let mut left = word;
            while left != 0 {
                let bit = left.ilog2();
                left ^= 1 << bit;
                each(i * 64 + bit as usize);
            }
        }
    }
}

impl Slab {
    /// The number of the block that starts at an offset from the slab's start.
    pub(super) fn number_at(&self, offset: usize) -> usize {
        ((u128::from(self.inverse.get()) * offset as u128) >> 64) as usize
    }

    /// The blocks on the free list.
    ///
    /// # Safety
    /// The caller owns the slab.
    pub(super) unsafe fn free_map(&self, key: LinkKey) -> FreeMap {
        let mut map = FreeMap::new();
        let start = self.start().addr();
        let mut list = self.free();
        while !list.is_empty() {
            map.insert(self.number_at(list.first().addr() - start));
            // SAFETY: a block on the free list is free and linked.
            list = unsafe { key.rest(list.first()) };
        }
        map
    }

    /// Links what came back in chains, in the order of addresses, in front of the free list.
    ///
    /// Ends the process over a block that is there twice.
    ///
    /// # Safety
    /// The caller owns the slab.
    pub(crate) unsafe fn link_chains(&self, key: LinkKey) {
        if self.unlinked.get() == 0 {
            return;
        }
        let (start, bytes) = (self.start(), self.block_bytes.get() as usize);
        let mut map = FreeMap::new();
        let mut insert = |block: Block| {
            let i = self.number_at(block.addr().wrapping_sub(start.addr()));
            if map.has(i) {
                freed_twice(self, block);
            }
            map.insert(i);
        };
        let mut head = self.chain_at(self.chain.get());
        while !head.is_none() {
            // SAFETY: the chains of a slab are its owner's.
            unsafe {
                let word = ChainWord::read(head);
                for_each_other(start, head, word.count(), &mut insert);
                insert(head.block());
                head = word.next_chain();
            }
        }
        let mut list = self.free();
        map.for_each_down(self.linked() as usize, |i| {
            let block = start.wrapping_add(i * bytes);
            // SAFETY: the block came back in a chain.
            unsafe {
                if key.looks_free(block) && !key.is_marked(block) && self.is_linked(key, block) {
                    freed_twice(self, block);
                }
                key.set_rest(block, list);
            }
            list = list.behind(block);
        });
        self.look.set(self.look.get().saturating_add(self.unlinked.get()));
        self.chain.set(NO_CHAIN);
        self.unlinked.set(0);
        self.set_free(list);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_map_names_what_was_put_in_from_the_highest_down(
            blocks in prop::collection::btree_set(0usize..MAP_WORDS * 64, 0..300),
        ) {
            let mut map = FreeMap::new();
            blocks.iter().for_each(|&i| map.insert(i));
            let mut seen = Vec::new();
            map.for_each_down(MAP_WORDS * 64, |i| seen.push(i));
            prop_assert!(seen.iter().rev().eq(&blocks));
            prop_assert!((0..MAP_WORDS * 64).all(|i| map.has(i) == blocks.contains(&i)));
        }
    }
}
