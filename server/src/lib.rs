//! The Flagstone reference server.
pub mod glob;
pub mod number;
pub mod resp;
pub mod sync;
