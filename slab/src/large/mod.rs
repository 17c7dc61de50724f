//! The large space: page ranges for blocks above the largest class, cut and joined.
//!
//! Owns the books of these ranges and makes no system call: the fallback tier maps, purges, moves
//! and unmaps, and tells the space. Everything is done under the fallback's lock.
//!
//! * [`extent`] has the records, [`tree`] finds them by address and by size.
//! * [`space`] takes ranges for blocks, lets them grow and shrink, takes them back.
//! * [`budget`] says how much free memory may stay populated.

mod budget;
mod extent;
mod job;
mod queue;
mod space;
mod tree;

pub(crate) use budget::Budget;
pub(crate) use extent::{Extent, Node};
pub(crate) use job::Job;
pub(crate) use space::{Origin, Place, Space, Taken};

use crate::layout::{SEGMENT_BYTES, SLICE_BYTES};

/// Blocks are placed at multiples of this, and cover a multiple of it: a multiple of every page size.
pub(crate) const GRANULE: usize = SLICE_BYTES;
/// Memory is taken from the backing in multiples of this, aligned to it: what the segment map tells
/// apart.
pub(crate) const UNIT: usize = SEGMENT_BYTES;
