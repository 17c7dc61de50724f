//! The batch that a participant adds to.
//!
//! Owned by one participant and touched by its thread alone (rule P1). Nothing here calls out, so
//! reclaim functions that retire more find it in order at any time (rule R5).

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;

use super::chunk::{Chunk, Entry};
use super::node::{Reclaim, RetireNode};
use crate::domain::Core;

#[derive(Debug, Default)]
pub(crate) struct OpenBatch {
    head: Cell<Option<NonNull<RetireNode>>>,
    /// The chunk that still has room, if the batch has one.
    chunk: Cell<Option<NonNull<Chunk>>>,
    /// Objects in the batch.
    blocks: Cell<u32>,
    /// Their bytes.
    bytes: Cell<u64>,
    /// Bytes reserved for the batch and not used yet.
    quota: Cell<u64>,
    /// Tells this batch from every other of the domain (rule R7); kept when it is taken out.
    number: Cell<u64>,
}

/// What an [`OpenBatch`] held.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) head: NonNull<RetireNode>,
    pub(crate) blocks: u32,
    pub(crate) bytes: u64,
    /// Bytes reserved for it that it did not need.
    pub(crate) unused: u64,
}

impl OpenBatch {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.get() == 0
    }

    #[inline]
    pub(crate) fn blocks(&self) -> u32 {
        self.blocks.get()
    }

    /// Bytes that may still join.
    #[inline]
    pub(crate) fn quota(&self) -> u64 {
        self.quota.get()
    }

    /// The batch's number, see [`renumber`](Self::renumber).
    #[inline]
    pub(crate) fn number(&self) -> u64 {
        self.number.get()
    }

    /// The batch is a new one, of a number that no other batch of the domain has had.
    pub(crate) fn renumber(&self, number: u64) {
        self.number.set(number);
    }

    /// Adds `bytes` to the quota; they are reserved in the ledger (rule L1).
    pub(crate) fn grant(&self, bytes: u64) {
        self.quota.set(self.quota.get() + bytes);
    }

    /// Adds an object with a node.
    ///
    /// # Safety
    /// Rules R1 to R4 hold for the object; `bytes` is at most the quota.
    #[inline]
    pub(crate) unsafe fn push(&self, node: NonNull<RetireNode>, bytes: u64, reclaim: Reclaim) {
        // SAFETY: the caller's promise: the node is in no batch, and ours until it is reclaimed.
        unsafe { RetireNode::link(node, self.head.get(), reclaim) };
        self.head.set(Some(node));
        self.count(bytes);
    }

    /// Adds an object without a node.
    ///
    /// # Safety
    /// Rules R1, R3 and R4 hold for the object; `bytes` is at most the quota.
    #[inline]
    pub(crate) unsafe fn push_entry(&self, entry: Entry, bytes: u64, core: &Arc<Core>) {
        if let Some(chunk) = self.chunk.get() {
            // SAFETY: the chunk is in this batch, which is open.
            if unsafe { Chunk::push(chunk, entry) } {
                return self.count(bytes);
            }
        }
        let chunk = Chunk::with(core, entry);
        self.chunk.set(Some(chunk));
        let node = chunk.cast::<RetireNode>();
        // SAFETY: the chunk is new, and belongs to the batch until `Chunk::reclaim` frees it.
        unsafe { RetireNode::link(node, self.head.get(), Chunk::reclaim) };
        self.head.set(Some(node));
        self.count(bytes);
    }

    /// Counts an object that has joined the batch.
    #[inline]
    pub(crate) fn count(&self, bytes: u64) {
        debug_assert!(bytes <= self.quota.get());
        self.blocks.set(self.blocks.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
        self.quota.set(self.quota.get() - bytes);
    }

    /// Takes everything out and leaves an empty batch.
    pub(crate) fn take(&self) -> Option<Taken> {
        let head = self.head.take()?;
        self.chunk.set(None);
        Some(Taken {
            head,
            blocks: self.blocks.take(),
            bytes: self.bytes.take(),
            unused: self.quota.take(),
        })
    }
}
