//! The Flagstone reference server.
pub mod allocator;
pub mod clients;
pub mod commands;
pub mod failure;
pub mod glob;
pub mod keyspace;
pub mod mailbox;
pub mod memory;
pub mod number;
pub mod pubsub;
pub mod resp;
pub mod session;
pub mod settings;
pub mod shared;
pub mod stats;
pub mod sync;
