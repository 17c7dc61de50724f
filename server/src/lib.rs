//! The Flagstone reference server: an in-memory key-value, list and publish/subscribe server over
//! RESP2 and RESP3, whose every byte is allocated by Flagstone.
//!
//! It exists to show the runtime under real clients. The library holds everything; the binary adds
//! the global allocator.
//!
//! Modules, each using only those above it; those of one row may know each other:
//!
//! | module | what it is |
//! |---|---|
//! | [`sync`], [`number`], [`glob`], [`failure`] | locks and atomics; numbers; patterns; error texts |
//! | [`resp`] | the wire: limits, requests, replies |
//! | [`settings`], [`allocator`] | what the server is started with, and on |
//! | [`keyspace`] | sharded databases: values, expiry, scans, waiting clients |
//! | [`mailbox`], [`clients`], [`pubsub`] | what others leave for a connection |
//! | [`stats`] | counters |
//! | [`memory`], [`spare`], [`shared`], [`session`], [`commands`] | the memory limit, and the system's, what all connections share, one connection's state, the commands that run on it |
//! | [`metrics`], [`maintenance`] | the figures outside, and the chores |
//! | [`connection`], [`server`] | sockets |
//! | [`cli`] | the command line |
#![forbid(unsafe_code)]

pub mod allocator;
pub mod cli;
pub mod clients;
pub mod commands;
pub mod connection;
pub mod failure;
pub mod fallible;
pub mod glob;
pub mod keyspace;
pub mod mailbox;
pub mod maintenance;
pub mod memory;
pub mod metrics;
pub mod number;
pub mod pubsub;
pub mod resp;
pub mod server;
pub mod session;
pub mod settings;
pub mod shared;
pub mod spare;
pub mod stats;
pub mod sync;
