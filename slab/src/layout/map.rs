//! The segment map: which 4 MiB of the address space are whose.
//!
//! Owns one byte for each 4 MiB of the address space that programs get: 47 bits on x86-64, 48 on
//! others, where the kernel hands out the upper half first. It answers, without reading memory that
//! may not be ours, whether an address can be looked up in a segment head (requirement D5), and
//! whose it is: a block freed to another heap is found out by the same load.
//!
//! Before the map, a small table of segments seen recently, one word each, direct-mapped: the fast
//! free path asks only this. Consecutive segments have places of their own, so up to 16 GiB of heap
//! seldom collide; a segment that lost its place gets it back on the slow path. The map by itself
//! would do, with more instructions (ADR 5).
//!
//! Protocol: an entry is set before the first address in it is handed out and cleared after the
//! last block in it is gone, but before the range is given back, because from then on it may be
//! mapped again by anyone. Whoever frees a block got it from the allocation, so it sees the
//! entry; for any other address the answer is just a hint that nothing may be read there.

use super::segment::SEGMENT_BYTES;
use crate::sync::Ordering;
use crate::sync::process::{AtomicU8, AtomicUsize};

/// Bits of an address that a mapping may have.
pub(crate) const ADDRESS_BITS: u32 = if cfg!(target_arch = "x86_64") { 47 } else { 48 };
const ENTRIES: usize = (1 << ADDRESS_BITS) / SEGMENT_BYTES;

/// The number of a heap in the segment map, 1..=127: 1 is the global one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeapId(pub(crate) u8);

impl HeapId {
    /// The heap behind the global allocator.
    pub(crate) const GLOBAL: HeapId = HeapId(1);
    /// The largest number.
    pub(crate) const LAST: HeapId = HeapId(if cfg!(flagstone_loom) { 3 } else { 127 });
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not ours.
    Foreign,
    /// A segment of this heap: its head may be read.
    Segment(HeapId),
    /// Of this heap's large space, which knows what lies at the address; part of it may be
    /// anybody's by now. Nothing may be read without asking.
    Large(HeapId),
}

/// Marks the large space of a heap.
const LARGE: u8 = 0x80;

/// The map. One for the process; all zero, so it costs only the pages that are used.
pub(crate) struct SegmentMap([AtomicU8; ENTRIES]);

static MAP: SegmentMap = SegmentMap([const { AtomicU8::new(0) }; ENTRIES]);

/// Places in the table of recent segments: 32 KiB, of which a program touches what it uses.
const RECENT_PLACES: usize = 4096;

/// Recent segments by number modulo the places: base addresses, or [`NO_SEGMENT`].
static RECENT: [AtomicUsize; RECENT_PLACES] =
    [const { AtomicUsize::new(NO_SEGMENT) }; RECENT_PLACES];

/// A base so far above every address that none is within a segment of it.
const NO_SEGMENT: usize = 1 << (usize::BITS - 2);

const _: () = {
    assert!(RECENT_PLACES.is_power_of_two());
    assert!(NO_SEGMENT >> ADDRESS_BITS > 0);
};

impl SegmentMap {
    /// The base of the segment that `address` lies in and the offset in it, if it has its place in the
    /// table: its head may be read. The fast path's check; `None` means that the map must be asked.
    #[inline(always)]
    pub(crate) fn recent(address: usize) -> Option<(usize, usize)> {
        // Relaxed: see the protocol above; a freed block brings its own happens-before. A stale
        // "no" is only slow. A stale base cannot be: it goes before the range is given back.
        let base = Self::recent_place(address).load(Ordering::Relaxed);
        let offset = address.wrapping_sub(base);
        if offset < SEGMENT_BYTES { Some((base, offset)) } else { None }
    }

    /// Gives the segment of `address` its place in the table. The caller has a block of it, so it
    /// cannot be cleared meanwhile.
    pub(crate) fn note_recent(address: usize) {
        Self::recent_place(address).store(address & !(SEGMENT_BYTES - 1), Ordering::Relaxed);
    }

    #[inline(always)]
    fn recent_place(address: usize) -> &'static AtomicUsize {
        &RECENT[address / SEGMENT_BYTES % RECENT_PLACES]
    }

    /// What lies at `address`.
    pub(crate) fn kind(address: usize) -> Kind {
        let Some(entry) = MAP.0.get(address / SEGMENT_BYTES) else { return Kind::Foreign };
        match entry.load(Ordering::Relaxed) {
            0 => Kind::Foreign,
            id if id & LARGE != 0 => Kind::Large(HeapId(id & !LARGE)),
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
            Kind::Large(id) => id.0 | LARGE,
        };
        let Some(entry) = MAP.0.get(address / SEGMENT_BYTES) else { return };
        entry.store(byte, Ordering::Relaxed);
        // A place is cleared only by its segment's end; another segment's base stays.
        let _ = Self::recent_place(address).compare_exchange(
            address & !(SEGMENT_BYTES - 1),
            NO_SEGMENT,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }
}
