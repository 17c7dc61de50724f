//! The Flagstone reference server.
pub mod allocator;
pub mod glob;
pub mod keyspace;
pub mod number;
pub mod resp;
pub mod sync;
