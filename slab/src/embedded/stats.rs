//! What an embedded heap does with its region.
//!
//! Owns the figures and their identity, that of the big heap with the free part of the region beside
//! it: `live + cached + fragmentation + metadata + free = region`, to the byte.

use core::mem;

use super::EmbeddedHeap;
use super::classes::{SLICE, block_bytes, info};
use super::core::Core;
use crate::port::FixedRegion;

/// The figures of an [`EmbeddedHeap`] at one moment. Bytes, unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbeddedStats {
    /// What was free in the region when the heap got it; zero before.
    pub region: usize,
    /// Blocks in use, at block size.
    pub live: usize,
    /// Free blocks in slabs.
    pub cached: usize,
    /// What is left over at the ends of slabs.
    pub fragmentation: usize,
    /// The heap's table, which lies in the region.
    pub metadata: usize,
    /// What is in no slab and no block.
    pub free: usize,
    /// The heap's own structure, which lies wherever the program has put it.
    pub heap: usize,
    /// The largest `live` so far.
    pub high_water: usize,
    /// Slabs, a number.
    pub slabs: usize,
    /// Blocks handed out so far, a number.
    pub allocs: u64,
    /// Blocks taken back so far, a number.
    pub frees: u64,
    /// Requests refused so far, a number.
    pub failures: u64,
}

impl EmbeddedStats {
    /// What the identity leaves unexplained, modulo the word; zero.
    #[must_use]
    pub fn residual(&self) -> usize {
        let parts = [self.live, self.cached, self.fragmentation, self.metadata, self.free];
        parts.into_iter().fold(self.region, usize::wrapping_sub)
    }
}

impl Core {
    pub(super) fn stats(&self) -> EmbeddedStats {
        let sums = &self.sums;
        let mut stats = EmbeddedStats {
            region: sums.given,
            live: sums.live,
            metadata: sums.table_bytes,
            free: self.region.as_ref().map_or(0, FixedRegion::free_bytes),
            heap: mem::size_of::<EmbeddedHeap>(),
            high_water: sums.high_water,
            allocs: sums.allocs,
            frees: sums.frees,
            failures: sums.failures,
            ..EmbeddedStats::default()
        };
        for (number, class) in self.classes.iter().enumerate() {
            let blocks = info(number).capacity as usize;
            let bytes = block_bytes(number);
            stats.slabs += class.slabs;
            stats.cached += (class.slabs * blocks - class.live) * bytes;
            stats.fragmentation += class.slabs * (SLICE - blocks * bytes);
        }
        stats
    }
}
