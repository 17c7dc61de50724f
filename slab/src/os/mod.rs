//! What the allocator asks of the operating system: pages, clocks, thread exit, fatal messages.
//!
//! Owns every system call of the crate. Nothing here allocates through an allocator.

mod clock;
mod environment;
mod errno;
mod fatal;
mod fork;
mod pages;
pub(crate) mod poison;
mod thread_exit;

pub(crate) use clock::coarse_millis;
#[cfg_attr(
    flagstone_loom,
    allow(unused_imports, reason = "locks have a clock of their own there")
)]
pub(crate) use clock::nanos;
pub(crate) use environment::environment;
pub(crate) use errno::keep_errno;
pub(crate) use fatal::{complain, debug_check, fatal};
pub(crate) use fork::arm_fork_handlers;
pub(crate) use pages::{
    advise_huge, entropy, map_aligned, page_size, purge, remap_fixed, resident_bytes, unmap,
};
pub(crate) use thread_exit::arm_thread_exit;
