//! What the allocator asks of the operating system: pages, clocks, thread exit, fatal messages, faults.
//!
//! Owns every system call of the crate. Nothing here allocates through an allocator. Without `std`
//! there is no system to ask: `bare` answers.

#[cfg(not(feature = "std"))]
mod bare;
#[cfg(feature = "std")]
mod clock;
#[cfg(feature = "std")]
mod environment;
#[cfg(feature = "std")]
mod errno;
#[cfg(feature = "std")]
mod fatal;
#[cfg(feature = "std")]
mod fault;
#[cfg(feature = "std")]
mod fork;
#[cfg(feature = "std")]
mod pages;
pub(crate) mod poison;
#[cfg(feature = "std")]
mod thread_exit;

#[cfg(feature = "std")]
pub(crate) use self::{
    clock::coarse_millis,
    environment::environment,
    errno::keep_errno,
    fatal::{complain, debug_check, fatal},
    fault::{arm_fault_handler, fault_address, hand_over},
    fork::arm_fork_handlers,
    pages::{
        advise_huge, entropy, map_aligned, most_mappings, page_size, protect, purge, remap_fixed,
        resident_bytes, unmap,
    },
    thread_exit::arm_thread_exit,
};
#[cfg(not(feature = "std"))]
pub(crate) use bare::{entropy, fatal, page_size};
#[cfg(feature = "std")]
#[cfg_attr(
    flagstone_loom,
    allow(unused_imports, reason = "locks have a clock of their own there")
)]
pub(crate) use clock::nanos;
