//! Arbitrary input, run against models: what holds for every sequence of operations and for every
//! string of bytes.
//!
//! Owns the fuzz targets as plain functions. Each takes bytes, does as they say, and panics when
//! something does not hold. They run in three ways: the tests of this crate replay the inputs kept in
//! `corpora/` and try a bounded number of new ones, on a stable compiler; `fuzz/run` builds them with
//! coverage and AddressSanitizer for libFuzzer; property tests make inputs by strategies that shrink.

pub mod capi;
pub mod commands;
pub mod config;
pub mod heap;
pub mod resp;

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder in `corpora/`.
    pub name: &'static str,
    /// Runs one input. Panics when something does not hold.
    pub run: fn(&[u8]),
    /// Longest input in bytes that is worth a try.
    pub longest: usize,
}

/// All of them.
pub const TARGETS: [Target; 5] = [
    Target { name: "heap", run: heap::run, longest: 2048 },
    Target { name: "resp", run: resp::run, longest: 1024 },
    Target { name: "commands", run: commands::run, longest: 2048 },
    Target { name: "config", run: config::run, longest: 512 },
    Target { name: "capi", run: capi::run, longest: 1024 },
];

/// The target of a name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
