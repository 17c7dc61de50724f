//! The batch that a participant adds to.
//!
//! Owned by one participant and touched by its thread alone (rule P1). It keeps no counts of its own:
//! the participant's [`Record`] counts all that was ever retired, and the batch notes at which totals it
//! began, is full, and has used up its reserved bytes. So an object that joins costs the link, the head
//! and the two totals. Nothing here calls out, so reclaim functions that retire more find it in order
//! at any time (rule R5).

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;

use super::chunk::{Chunk, Entry};
use super::node::{Reclaim, RetireNode};
use super::sealed::Totals;
use crate::domain::{Config, Core};
use crate::memory::OutOfMemory;
use crate::registry::Record;

#[derive(Debug, Default)]
pub(crate) struct OpenBatch {
    head: Cell<Option<NonNull<RetireNode>>>,
    /// The chunk that still has room, if the batch has one.
    chunk: Cell<Option<NonNull<Chunk>>>,
    /// Total of objects with which the batch is full: not above the total while there is no batch.
    end_blocks: Cell<u64>,
    /// Total of bytes with which what was reserved for the batch is used up.
    end_bytes: Cell<u64>,
    /// Totals before the first object of the batch.
    start: Cell<(u64, u64)>,
    /// Tells this batch from every other of the domain (rule R8); kept when it is taken out.
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

/// Room for one object: the participant's totals once it has joined.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct Room {
    blocks: u64,
    bytes: u64,
}

impl OpenBatch {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.get().is_none()
    }

    /// Objects in the batch.
    pub(crate) fn blocks(&self, record: &Record) -> u64 {
        match self.head.get() {
            Some(_) => record.retired_so_far().0 - self.start.get().0,
            None => 0,
        }
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

    /// Room for an object of `bytes`, if there is a batch and it has some.
    #[inline]
    pub(crate) fn room(&self, record: &Record, bytes: u64) -> Option<Room> {
        let (blocks, before) = record.retired_so_far();
        let after = before.wrapping_add(bytes);
        let fits = blocks < self.end_blocks.get() && after <= self.end_bytes.get();
        fits.then_some(Room { blocks: blocks.wrapping_add(1), bytes: after })
    }

    /// True if the batch is as large as one can be.
    pub(crate) fn is_at_most(&self, record: &Record) -> bool {
        let (start, (_, bytes)) = (self.start.get(), record.retired_so_far());
        self.blocks(record) >= u64::from(Totals::MAX_BLOCKS)
            || bytes.wrapping_sub(start.1) > Totals::MAX_BYTES - Config::MAX_OBJECT
    }

    /// Lets `bytes` more join, which are reserved in the ledger; begins a batch of up to `most` objects
    /// if there is none. The caller adds an object next: to a batch that is full, too, because it could
    /// not be handed over.
    pub(crate) fn grant(&self, record: &Record, bytes: u64, most: u32) {
        if self.is_empty() {
            let (blocks, before) = record.retired_so_far();
            self.start.set((blocks, before));
            self.end_blocks.set(blocks.wrapping_add(u64::from(most)));
            self.end_bytes.set(before.wrapping_add(bytes));
        } else {
            self.end_bytes.set(self.end_bytes.get().wrapping_add(bytes));
            let blocks = record.retired_so_far().0;
            self.end_blocks.set(self.end_blocks.get().max(blocks.wrapping_add(1)));
        }
    }

    /// Takes back `bytes` that were granted last.
    pub(crate) fn revoke(&self, bytes: u64) {
        self.end_bytes.set(self.end_bytes.get().wrapping_sub(bytes));
    }

    /// Takes back what was granted to a batch that got no object. Returns the bytes.
    pub(crate) fn ungrant(&self, record: &Record) -> u64 {
        if !self.is_empty() {
            return 0;
        }
        let (blocks, bytes) = record.retired_so_far();
        self.end_blocks.set(blocks);
        self.end_bytes.replace(bytes).wrapping_sub(bytes)
    }

    /// Adds an object with a node. Returns whether the batch is complete now.
    ///
    /// # Safety
    /// Rules R1 to R4 hold for the object; `room` is what [`room`](Self::room) gave for it just now.
    #[inline]
    pub(crate) unsafe fn push(
        &self,
        record: &Record,
        room: Room,
        node: NonNull<RetireNode>,
        reclaim: Reclaim,
    ) -> bool {
        // SAFETY: the caller's promise: the node is in no batch, and ours until it is reclaimed.
        unsafe { RetireNode::link(node, self.head.get(), reclaim) };
        self.head.set(Some(node));
        self.count(record, room)
    }

    /// Adds an object without a node. Returns whether the batch is complete now; without memory for a
    /// link nothing has happened.
    ///
    /// # Safety
    /// Rules R1, R3 and R4 hold for the object; `room` is what [`room`](Self::room) gave for it just
    /// now.
    #[inline]
    pub(crate) unsafe fn push_entry(
        &self,
        record: &Record,
        room: Room,
        entry: Entry,
        core: &Arc<Core>,
    ) -> Result<bool, OutOfMemory> {
        if let Some(chunk) = self.chunk.get() {
            // SAFETY: the chunk is in this batch, which is open.
            if unsafe { Chunk::push(chunk, entry) } {
                return Ok(self.count(record, room));
            }
        }
        let chunk = Chunk::with(core, entry)?;
        self.chunk.set(Some(chunk));
        let node = chunk.cast::<RetireNode>();
        // SAFETY: the chunk is new, and belongs to the batch until `Chunk::reclaim` frees it.
        Ok(unsafe { self.push(record, room, node, Chunk::reclaim) })
    }

    /// Counts an object that has joined the batch. Returns whether the batch is complete now.
    #[inline]
    pub(crate) fn count(&self, record: &Record, room: Room) -> bool {
        record.retired_up_to(room.blocks, room.bytes);
        room.blocks == self.end_blocks.get() || room.bytes == self.end_bytes.get()
    }

    /// Takes everything out and leaves an empty batch.
    pub(crate) fn take(&self, record: &Record) -> Option<Taken> {
        let head = self.head.take()?;
        self.chunk.set(None);
        let (blocks, bytes) = record.retired_so_far();
        let start = self.start.get();
        self.end_blocks.set(blocks);
        Some(Taken {
            head,
            blocks: (blocks - start.0) as u32,
            bytes: bytes.wrapping_sub(start.1),
            unused: self.end_bytes.get().wrapping_sub(bytes),
        })
    }
}
