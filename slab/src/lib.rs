//! Sharded slab allocator.

pub mod stats;
