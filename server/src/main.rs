//! The `flagstone` program: the global allocator that was chosen, and the command line.

use std::process::ExitCode;

#[cfg(feature = "flagstone-alloc")]
#[global_allocator]
static ALLOCATOR: flagstone::Flagstone = flagstone::Flagstone::new();

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(feature = "system-alloc")]
#[global_allocator]
static ALLOCATOR: std::alloc::System = std::alloc::System;

fn main() -> ExitCode {
    flagstone_server::cli::main(std::env::args_os())
}
