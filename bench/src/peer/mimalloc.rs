//! mimalloc, version 3 or, with the crate's feature `v2`, version 2.

use mimalloc::MiMalloc;

#[global_allocator]
static GLOBAL: MiMalloc = MiMalloc;

/// Its name in the table.
pub const NAME: &str =
    if cfg!(feature = "peer-mimalloc-v2") { "mimalloc-v2" } else { super::MIMALLOC };
/// What [`owns`] looks at.
pub const PROOF: &str = "mi_is_in_heap_region, mi_usable_size and the major version";
/// Whether the C library's accounts must move.
pub const IS_SYSTEM: bool = false;

const MAJOR: i32 = if cfg!(feature = "peer-mimalloc-v2") { 2 } else { 3 };

/// Whether mimalloc knows the block.
pub fn owns(ptr: *const u8, size: usize) -> bool {
    // SAFETY: the first looks an address up in mimalloc's own tables; the second is reached only
    // for a block that is in them.
    unsafe {
        libmimalloc_sys::mi_is_in_heap_region(ptr.cast())
            && libmimalloc_sys::mi_usable_size(ptr.cast()) >= size
    }
}

/// The library's version number as it gives it.
pub fn version() -> String {
    format!("mimalloc {}", raw_version())
}

/// Whether the library is of the major version asked for.
pub fn is_as_built() -> Result<(), &'static str> {
    if major() == MAJOR { Ok(()) } else { Err("mimalloc is of another major version") }
}

/// Told by a thread before it sleeps; a Rust program has no hook into mimalloc for that.
pub fn about_to_sleep() {}

/// Called now and then while threads sleep; mimalloc has no call that reaches other threads.
pub fn housekeep() {}

fn raw_version() -> i32 {
    // SAFETY: returns a constant.
    unsafe { libmimalloc_sys::mi_version() }
}

/// The first digit: the number is written as `major * 100 + minor`, or with more digits.
fn major() -> i32 {
    let mut version = raw_version();
    while version >= 10 {
        version /= 10;
    }
    version
}
