//! Lent blocks: a few of a bucket's common slab, for a class of which the shard has used less than
//! half a page.
//!
//! Owns one chain per class. Protocol: lent blocks are free blocks that their slab counts as out;
//! whoever has the shard hands them out and counts them, one by one, beyond the fast path. A shard has
//! lent blocks of a class only while it has no slab of it from the pool; what it did not use goes back
//! when it rests. Freed, they go to the bucket, which owns their slab.

use super::imp::Shard;
use crate::bucket::{GRADES, Grade};
use crate::layout::{Block, ClassInfo, List, open_block, wipe_link};
use crate::sync::{Ordering, fence};

/// What part of a page the first grade is; each ends at twice the one before.
const FIRST_GRADE: usize = 8;
/// Bytes lent at a time: two pairs of cache lines at least, so that the blocks of two shards seldom
/// share one.
pub(crate) const LEND_BYTES: usize = 512;

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
        if info.capacity == 1 {
            return None;
        }
        // All that was lent before is in use, or was.
        let used = self.class_allocs(class);
        (0..GRADES).find_map(|grade| {
            let end = (((page / FIRST_GRADE) / bytes).max(1) << grade) as u64;
            let left = end.checked_sub(used).filter(|&left| left > 0)?;
            let most = (LEND_BYTES / bytes).max(1).min(left as usize);
            Some((most as u32, grade))
        })
    }

    /// Takes a lent block of a class, or null.
    ///
    /// # Safety
    /// The caller has the shard.
    pub(crate) unsafe fn take_lent(&self, class: usize) -> Block {
        let list = List::of(self.lent[class].get());
        let block = list.first();
        if !block.is_null() {
            // SAFETY: lent blocks are free, ours by the lease (rule H1), and linked.
            unsafe {
                self.lent[class].set(self.key.rest(block).word());
                open_block(block);
                wipe_link(block);
            }
        }
        block
    }

    /// Keeps lent blocks of a class, of which the shard has none.
    ///
    /// # Safety
    /// The caller has the shard and owns the blocks.
    pub(crate) unsafe fn keep_lent(&self, class: usize, list: List) {
        self.taken[class].add_after(u64::from(list.len()));
        self.lent[class].set(list.word());
    }

    /// Counts lent blocks that were [taken out](Self::take_all_lent) as never taken, before they go
    /// back. The holder only.
    pub(crate) fn untake_lent(&self, class: usize, blocks: u32) {
        self.returned[class].add(u64::from(blocks));
        // As in `stow_ready`.
        fence(Ordering::Release);
    }

    /// Counts them as allocated after all: somebody else will count them as freed. The holder only.
    pub(crate) fn use_lent(&self, class: usize, blocks: u32) {
        self.taken[class].add_after(u64::from(blocks));
    }

    /// Takes out all lent blocks of a class, if there are any. The holder only.
    pub(crate) fn take_all_lent(&self, class: usize) -> Option<List> {
        let list = List::of(self.lent[class].get());
        if list.is_empty() {
            return None;
        }
        self.lent[class].set(List::EMPTY.word());
        Some(list)
    }
}
