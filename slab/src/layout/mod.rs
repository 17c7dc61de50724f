//! Addresses and sizes: what lies where, with no policy.
//!
//! Owns the shapes that every higher folder works on:
//!
//! ```text
//! segment (4 MiB, aligned)                       slice = 64 KiB
//! +--------+-----------+-----------------------+-----------+-----+
//! | head   | slab      | slab                  | slab      | ... |
//! | slice 0| 1 slice   | 8 slices, one class   | 1 slice   |     |
//! +--------+-----------+-----------------------+-----------+-----+
//!   head = free slices, first-slice table, owner words, slab metadata
//! ```
//!
//! The way from a block to its slab: `address & !(4 MiB - 1)` is the segment, bits 16..22 of the
//! address are the slice, the slice names its slab. Metadata lies together in the head, not at the
//! start of each slab, where all of it would fall on the same cache sets.
//!
//! Classes, links and slabs know nothing of segments: the embedded heap is made of them as well.

#[cfg(feature = "std")]
mod chain;
mod class;
#[cfg(feature = "std")]
mod classes;
#[cfg(feature = "std")]
mod guard;
mod link;
#[cfg(feature = "std")]
mod map;
#[cfg(feature = "std")]
mod order;
#[cfg(feature = "std")]
mod owner;
#[cfg(feature = "std")]
mod purge;
#[cfg(feature = "std")]
mod seat;
#[cfg(feature = "std")]
mod segment;
#[cfg_attr(not(feature = "std"), allow(dead_code, reason = "shards need more of it"))]
mod slab;
#[cfg(feature = "std")]
mod table;

pub(crate) use class::ClassInfo;
pub(crate) use link::{Block, LinkKey};
pub(crate) use slab::{Slab, SlabList};

#[cfg(feature = "std")]
pub(crate) use self::{
    chain::{
        ChainWord, Head, MAX_CHAIN, NAMED_BYTES, Offset, block_at, chain_room, offset_of,
        write_others,
    },
    classes::{LARGEST, MAX_CLASSES, SMALLEST, class_of_common, class_of_layout},
    guard::{GUARD_ROOM, GUARDED, guards_fit},
    link::{List, wipe_link},
    map::{ADDRESS_BITS, HeapId, Kind, SegmentMap},
    owner::{Owner, OwnerCell, OwnerKind},
    seat::{open_block, slab_of},
    segment::{
        ALL_FREE, Links, SEGMENT_BYTES, SLICE_BYTES, SLICES, Segment, longest_run, run_in,
        run_mask, slice_of,
    },
    slab::{EMPTY_SLAB, SlabPtr},
    table::DEFAULT_TABLE,
};
#[cfg(feature = "std")]
pub use table::{ClassTable, ClassTableError};
