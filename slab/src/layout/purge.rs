//! Pages of a partly used slab that hold free blocks only: given back, and linked again later.
//!
//! Owns the meaning of `Slab::purged`. A slab is cut into up to 64 *parts*: whole pages, a
//! single one each as long as that many are enough. A part may be purged when every block that
//! reaches into it is free. Blocks that *start* in a purged part are taken off the free list, whose
//! links would be lost with the pages; blocks that start before it and reach into it keep their link
//! and stay. So `purged` alone says which blocks are unlinked, and nothing else is kept. A part in
//! which no block starts lies inside one block. It is purged like any other, but marked only together
//! with the part in which that block starts, and loses its mark with it: else there would be nothing to
//! link again. So the lowest marked part always has a free block.
//!
//! Done for shards that rest: survivors of a peak, one here and one there, would otherwise keep
//! whole slabs resident.

use std::ops::Range;

use super::link::{Block, LinkKey, List};
use super::order::FreeMap;
use super::segment::SLICE_BYTES;
use super::slab::Slab;
use crate::counter::SharedCounter;
use crate::os;

const PARTS: usize = u64::BITS as usize;
impl Slab {
    /// Bytes without pages, as far as `purged` tells.
    pub(crate) fn purged_bytes(&self) -> u64 {
        u64::from(self.purged.get().count_ones()) * self.part_bytes() as u64
    }

    /// Purges the parts that hold free blocks only; returns the bytes of those in which blocks start.
    ///
    /// `purge` gives the pages of a range back and says whether it did.
    ///
    /// # Safety
    /// The caller owns the slab.
    pub(crate) unsafe fn purge_parts(
        &self,
        key: LinkKey,
        purged_bytes: &SharedCounter,
        mut purge: impl FnMut(Block, usize) -> bool,
    ) -> u64 {
        // SAFETY: by contract.
        unsafe { self.link_chains(key) };
        if self.free().is_empty() {
            return 0;
        }
        // SAFETY: by contract.
        let mut free = unsafe { self.free_map(key) };
        for part in (0..PARTS).filter(|part| self.purged.get() & 1 << part != 0) {
            self.starts_in(part).for_each(|i| free.insert(i));
        }
        let wanted = self.parts_of_free_blocks(&free) & !self.purged.get();
        if wanted == 0 {
            return 0;
        }
        let part = self.part_bytes();
        let mut done = 0u64;
        let mut left = wanted;
        while left != 0 {
            let first = left.trailing_zeros() as usize;
            let run = (left >> first).trailing_ones() as usize;
            let bits = (u64::MAX >> (PARTS - run)) << first;
            left &= !bits;
            if purge(self.base().wrapping_add(first * part), run * part) {
                done |= bits;
            }
        }
        // Parts without a start are marked together with the one before; see the top.
        let mut start_is_marked = false;
        for part in 0..PARTS {
            if !self.starts_in(part).is_empty() {
                start_is_marked = (self.purged.get() | done) & 1 << part != 0;
            } else if !start_is_marked {
                done &= !(1 << part);
            }
        }
        // The gauge first: a forked child that takes the slab over takes off it what the mask says.
        let bytes = u64::from(done.count_ones()) * part as u64;
        purged_bytes.add(bytes);
        let reached = self.all_linked() - self.purged_blocks() as usize;
        self.purged.set(self.purged.get() | done);
        let unlinked = reached - (self.all_linked() - self.purged_blocks() as usize);
        // SAFETY: by contract; the blocks of the map are free.
        let rest = unsafe {
            self.link_in_order(key, (0..self.all_linked()).rev().filter(|&i| free.has(i)))
        };
        self.unlink(unlinked as u32, rest);
        bytes
    }

    /// Links the blocks of a purged part; returns whether there was one.
    ///
    /// # Safety
    /// The caller owns the slab, whose free list is empty.
    #[inline]
    pub(crate) unsafe fn relink_purged(&self, key: LinkKey, purged_bytes: &SharedCounter) -> bool {
        if self.purged.get() == 0 {
            return false;
        }
        let part = self.purged.get().trailing_zeros() as usize;
        let marked = (self.purged.get() >> part).trailing_ones() as usize;
        // What is marked behind it and has no start lies inside the last block that starts here.
        let inside = (part + 1..part + marked).take_while(|&p| self.starts_in(p).is_empty());
        let cleared = 1 + inside.count();
        self.purged.set(self.purged.get() & !((u64::MAX >> (PARTS - cleared)) << part));
        purged_bytes.sub((cleared * self.part_bytes()) as u64);
        // SAFETY: by contract; blocks that start in a purged part are free and in no list.
        let list = unsafe { self.link_in_order(key, self.starts_in(part).rev()) };
        self.link(list);
        true
    }

    /// Blocks that are unlinked because they start in a purged part.
    pub(crate) fn purged_blocks(&self) -> u32 {
        if self.purged.get() == 0 {
            return 0;
        }
        let parts = (0..PARTS).filter(|part| self.purged.get() & 1 << part != 0);
        parts.map(|part| self.starts_in(part).len() as u32).sum()
    }

    fn part_bytes(&self) -> usize {
        (self.slices.get() as usize * SLICE_BYTES / PARTS).next_multiple_of(os::page_size())
    }

    fn all_linked(&self) -> usize {
        self.linked() as usize
    }

    fn block_bytes(&self) -> usize {
        self.block_bytes.get() as usize
    }

    /// Linked-ever blocks that start in a part.
    fn starts_in(&self, part: usize) -> Range<usize> {
        let (part_bytes, bytes) = (self.part_bytes(), self.block_bytes());
        let from = |offset: usize| offset.saturating_sub(self.lead()).div_ceil(bytes);
        let (first, end) = (from(part * part_bytes), from((part + 1) * part_bytes));
        first.min(self.all_linked())..end.min(self.all_linked())
    }

    /// Parts that were touched and that no block in use reaches into.
    fn parts_of_free_blocks(&self, free: &FreeMap) -> u64 {
        let (part, bytes) = (self.part_bytes(), self.block_bytes());
        let at = |i: usize| self.lead() + i * bytes;
        let mut parts = 0u64;
        for touched in self.lead() / part..at(self.all_linked()).div_ceil(part) {
            parts |= 1 << touched;
        }
        for i in (0..self.all_linked()).filter(|&i| !free.has(i)) {
            for reached in at(i) / part..=(at(i + 1) - 1) / part {
                parts &= !(1 << reached);
            }
        }
        parts
    }

    /// Makes a list of blocks given from the highest down, without those that start in a purged part.
    ///
    /// # Safety
    /// The caller owns the slab; the blocks are free and in no other list.
    unsafe fn link_in_order(
        &self,
        key: LinkKey,
        from_highest: impl Iterator<Item = usize>,
    ) -> List {
        let (part, bytes) = (self.part_bytes(), self.block_bytes());
        let start = self.start();
        let mut list = List::EMPTY;
        for i in from_highest {
            if self.purged.get() & 1 << ((self.lead() + i * bytes) / part) != 0 {
                continue;
            }
            let block = start.wrapping_add(i * bytes);
            // SAFETY: by contract.
            unsafe { key.set_rest(block, list) };
            list = list.behind(block);
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::Layout;

    use super::super::{DEFAULT_TABLE, Head};
    use super::*;
    use crate::heap::Heap;

    /// Every class that shares slabs: purge what is free around some survivors, allocate it all
    /// again, and find the survivors' contents and the books in order.
    #[test]
    fn survivors_keep_their_contents_and_the_rest_comes_back() {
        for class in 0..DEFAULT_TABLE.len() {
            let info = DEFAULT_TABLE.info(class);
            if info.capacity == 1 {
                continue;
            }
            for stride in [2, 7, 64, 1_000_000] {
                one_slab(class, info.capacity as usize, stride);
            }
        }
    }

    fn one_slab(class: usize, capacity: usize, stride: usize) {
        let info = DEFAULT_TABLE.info(class);
        let layout = Layout::from_size_align(info.slab_bytes() + (4 << 20), 4 << 20).unwrap();
        let base = Heap::global().alloc_fallback_zeroed(layout);
        assert!(!base.is_null());
        // SAFETY: a zeroed range of a segment's size and alignment, used by this test alone.
        unsafe {
            let segment = super::super::Segment::set_up(base, super::super::HeapId::GLOBAL);
            let slab = &(*segment).slabs[1];
            slab.set_up(class, info);
            let (key, gauge) = (LinkKey(0x8000_1234_5678_9abc), SharedCounter::new());
            let mut blocks: Vec<Block> = Vec::new();
            let take = |slab: &Slab| {
                if !slab.link_free(key, &gauge) {
                    return None;
                }
                slab.pop(key)
            };
            while let Some(block) = take(slab) {
                block.write_bytes(7, info.block_bytes as usize);
                blocks.push(block);
            }
            assert_eq!(blocks.len(), capacity);
            assert!(slab.is_full());
            for (i, &block) in blocks.iter().enumerate() {
                if i % stride != 0 {
                    let _ = slab.push_chain(key, Head::new(block, false), 1);
                }
            }
            slab.debug_validate(key);
            let given = slab.purge_parts(key, &gauge, |start, bytes| {
                // Stands in for the kernel: the contents are lost.
                start.write_bytes(0, bytes);
                true
            });
            assert_eq!(given, gauge.get());
            assert_eq!(given, slab.purged_bytes());
            if stride == 1_000_000 && info.block_bytes <= 4096 {
                assert!(given as usize >= info.slab_bytes() * 3 / 4, "{given} of {info:?}");
            }
            slab.debug_validate(key);
            let again = slab.purge_parts(key, &gauge, |_, _| true);
            assert_eq!(again, 0, "nothing is purged twice");
            let survivors: Vec<Block> = blocks.iter().copied().step_by(stride).collect();
            for &block in &survivors {
                assert!((0..info.block_bytes as usize).all(|i| block.add(i).read() == 7));
            }
            let mut seen = survivors.clone();
            let take = |slab: &Slab| {
                if !slab.link_free(key, &gauge) {
                    return None;
                }
                slab.pop(key)
            };
            while !slab.is_full() {
                let block = take(slab).expect("a slab that is not full has a block");
                block.write_bytes(9, info.block_bytes as usize);
                seen.push(block);
            }
            assert_eq!(gauge.get(), 0, "all parts have pages again");
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), capacity, "every block once");
            for &block in &survivors {
                assert!((0..info.block_bytes as usize).all(|i| block.add(i).read() == 7));
            }
            slab.debug_validate(key);
            Heap::global().free_slow(base);
        }
    }
}
