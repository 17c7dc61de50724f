//! Whether the C library's allocator serves this process: by its own accounts, not by ours.
//!
//! To be asked while no other thread allocates: the accounts are those of the whole process.

/// Blocks of the probe, and bytes in each: together far above what the C library itself allocates
/// meanwhile, each below its threshold for mapping.
const BLOCKS: usize = 256;
const BYTES: usize = 256;

/// Allocates 64 KiB through the global allocator and looks whether glibc's accounts saw it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn serves() -> bool {
    let before = in_use();
    let blocks: Vec<Vec<u8>> = (0..BLOCKS).map(|_| vec![1; std::hint::black_box(BYTES)]).collect();
    let after = in_use();
    let grown = after.saturating_sub(before);
    drop(std::hint::black_box(blocks));
    grown >= BLOCKS * BYTES / 2
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn in_use() -> usize {
    // SAFETY: takes no arguments and returns plain numbers.
    unsafe { libc::mallinfo2() }.uordblks
}

/// Elsewhere there are no accounts to look at: the allocator's own proof stands alone.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn serves() -> bool {
    super::chosen::IS_SYSTEM
}
