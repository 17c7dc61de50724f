//! The segment map: which 4 MiB of the address space are whose.
//!
//! Owns one byte for each 4 MiB of the address space that programs get: 47 bits on x86-64, 48 on
//! others, where the kernel hands out the upper half first. It answers, without reading memory that
//! may not be ours, whether an address can be looked up in a segment head (requirement D5), and
//! whose it is: a block freed to another heap is found out by the same load.
//!
//! Protocol: an entry is set before the first address in it is handed out and cleared after the
//! last block in it is gone, but before the range is given back, because from then on it may be
//! mapped again by anyone. Whoever frees a block got it from the allocation, so it sees the
//! entry; for any other address the answer is just a hint that nothing may be read there.

#![allow(clippy::disallowed_types, reason = "a static that loom's atomics cannot form")]

use std::sync::atomic::{AtomicU8, Ordering};

use super::segment::SEGMENT_BYTES;

/// Bits of an address that a mapping may have.
pub(crate) const ADDRESS_BITS: u32 = if cfg!(target_arch = "x86_64") { 47 } else { 48 };
const ENTRIES: usize = (1 << ADDRESS_BITS) / SEGMENT_BYTES;

/// The number of a heap in the segment map, 1..=250.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeapId(pub(crate) u8);

impl HeapId {
    /// The heap behind the global allocator.
    pub(crate) const GLOBAL: HeapId = HeapId(1);
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not ours.
    Foreign,
    /// A segment, or the first 4 MiB of a fallback block, of this heap: its head may be read.
    Segment(HeapId),
    /// The start of a fallback block whose head lies at the end of the 4 MiB before it: its
    /// alignment is that of segments or stricter.
    Apart,
}

const APART: u8 = u8::MAX;

/// The map. One for the process; all zero, so it costs only the pages that are used.
pub(crate) struct SegmentMap([AtomicU8; ENTRIES]);

static MAP: SegmentMap = SegmentMap([const { AtomicU8::new(0) }; ENTRIES]);

impl SegmentMap {
    /// Whether `address` lies in a segment of heap `id`. The fast path's check: one load.
    #[inline(always)]
    pub(crate) fn holds(id: HeapId, address: usize) -> bool {
        let entry = address / SEGMENT_BYTES;
        // Relaxed: see the protocol above; a freed block brings its own happens-before.
        entry < ENTRIES && MAP.0[entry].load(Ordering::Relaxed) == id.0
    }

    /// What lies at `address`.
    pub(crate) fn kind(address: usize) -> Kind {
        let Some(entry) = MAP.0.get(address / SEGMENT_BYTES) else { return Kind::Foreign };
        match entry.load(Ordering::Relaxed) {
            0 => Kind::Foreign,
            APART => Kind::Apart,
            id => Kind::Segment(HeapId(id)),
        }
    }

    /// Whether every address of a mapping can be an entry.
    pub(crate) fn covers(base: usize, bytes: usize) -> bool {
        base.checked_add(bytes).is_some_and(|end| end <= 1 << ADDRESS_BITS)
    }

    /// Writes an entry. The caller owns the 4 MiB at `address`.
    pub(crate) fn set(address: usize, kind: Kind) {
        let byte = match kind {
            Kind::Foreign => 0,
            Kind::Segment(id) => id.0,
            Kind::Apart => APART,
        };
        if let Some(entry) = MAP.0.get(address / SEGMENT_BYTES) {
            entry.store(byte, Ordering::Relaxed);
        }
    }
}
