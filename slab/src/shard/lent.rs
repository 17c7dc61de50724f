//! Lent blocks: a few of a bucket's common slab, for a class of which the shard has used less than
//! half a page.
//!
//! Owns one chain per class. Protocol: lent blocks are free blocks that their slab counts as out;
//! whoever has the shard hands them out and counts them, one by one, beyond the fast path. A shard has
//! lent blocks of a class only while it has no slab of it from the pool; what it did not use goes back
//! when it rests. Freed, they go to the bucket, which owns their slab.

use std::ptr;

use super::imp::Shard;
use super::outbox::Chain;
use crate::bucket::{GRADES, Grade};
use crate::layout::{Block, ClassInfo, open_block, slab_of, wipe_link};
use crate::os::debug_check;

/// What part of a page the first grade is; each ends at twice the one before.
const FIRST_GRADE: usize = 8;
/// Bytes lent at a time: two pairs of cache lines at least, so that the blocks of two shards seldom
/// share one.
const LEND_BYTES: usize = 512;

impl Shard {
    /// How many blocks of a class to borrow instead of taking a slab, and of which grade; `None` when
    /// the shard has had its share of every grade: half a page, or four blocks.
    ///
    /// The blocks of a grade lie one shard's after the other's. What a shard borrows and then frees
    /// separates its survivors from the next shard's, which is why the very first lie apart.
    pub(crate) fn blocks_to_borrow(
        &self,
        class: usize,
        info: &ClassInfo,
        page: usize,
    ) -> Option<(u32, Grade)> {
        let bytes = info.block_bytes as usize;
        // What was used of a class is not known without counters.
        if info.capacity == 1 || cfg!(flagstone_no_counters) {
            return None;
        }
        let used = self.allocs[class].get();
        (0..GRADES).find_map(|grade| {
            let end = (((page / FIRST_GRADE) / bytes).max(1) << grade) as u64;
            let left = end.checked_sub(used).filter(|&left| left > 0)?;
            let most = (LEND_BYTES / bytes).max(1).min(left as usize);
            // Should a shard take their slab over, they are posted as one chain, whose word says where
            // its tail is within one slice.
            debug_check!(most == 1 || info.slices == 1, "lent blocks of a slab of several slices");
            Some((most as u32, grade))
        })
    }

    /// Takes a lent block of a class, or null.
    ///
    /// # Safety
    /// The caller has the shard.
    pub(crate) unsafe fn take_lent(&self, class: usize) -> Block {
        let block = self.lent[class].get();
        if !block.is_null() {
            // SAFETY: lent blocks are free, ours by the lease (rule H1), and linked.
            unsafe {
                self.lent[class].set(self.key.next(block));
                open_block(block);
                wipe_link(block);
            }
            self.allocs[class].count(1);
        }
        block
    }

    /// Keeps lent blocks of a class, of which the shard has none.
    ///
    /// # Safety
    /// The caller has the shard and owns the chain.
    pub(crate) unsafe fn keep_lent(&self, class: usize, chain: &Chain) {
        self.lent[class].set(chain.head);
    }

    /// Counts lent blocks as allocated, because their new owner will count them as freed. The holder
    /// only.
    pub(crate) fn count_lent_as_used(&self, class: usize, blocks: u32) {
        self.allocs[class].count(u64::from(blocks));
    }

    /// Takes out all lent blocks of a class.
    ///
    /// # Safety
    /// The caller has the shard.
    pub(crate) unsafe fn take_all_lent(&self, class: usize) -> Option<Chain> {
        let head = self.lent[class].replace(ptr::null_mut());
        if head.is_null() {
            return None;
        }
        // SAFETY: as in `take_lent`; the blocks are out of their slab, which is therefore in use.
        unsafe {
            let mut chain =
                Chain { slab: slab_of(head), head, tail: head, count: 1, block_bytes: 0 };
            loop {
                let next = self.key.next(chain.tail);
                if next.is_null() {
                    return Some(chain);
                }
                (chain.tail, chain.count) = (next, chain.count + 1);
            }
        }
    }
}
