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

mod classes;
mod link;
mod map;
mod owner;
mod purge;
mod segment;
mod slab;
mod table;

pub(crate) use classes::{
    ClassInfo, LARGEST, MAX_CLASSES, SMALLEST, class_of_common, class_of_layout,
};
pub(crate) use link::{Block, ChainWord, LinkKey, MAX_CHAIN, wipe_link};
pub(crate) use map::{ADDRESS_BITS, HeapId, Kind, SegmentMap};
pub(crate) use owner::{Owner, OwnerCell, OwnerKind};
pub(crate) use segment::{
    ALL_FREE, Links, SEGMENT_BYTES, SLICE_BYTES, Segment, longest_run, run_in, run_mask,
};
pub(crate) use slab::{EMPTY_SLAB, Slab, SlabList, SlabPtr, open_block, slab_of};
pub(crate) use table::DEFAULT_TABLE;
pub use table::{ClassTable, ClassTableError};
