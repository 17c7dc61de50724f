//! snmalloc.

use snmalloc_rs::SnMalloc;

#[global_allocator]
static GLOBAL: SnMalloc = SnMalloc;

/// Its name in the table.
pub const NAME: &str = "snmalloc";
/// What [`owns`] looks at.
pub const PROOF: &str = "sn_rust_usable_size, and zero for a foreign address";
/// Whether the C library's accounts must move.
pub const IS_SYSTEM: bool = false;

/// Whether snmalloc knows the block, and does not know one that is none of its.
pub fn owns(ptr: *const u8, size: usize) -> bool {
    static FOREIGN: u64 = 0;
    // SAFETY: looks an address up in snmalloc's page map, which covers the address space.
    let usable = |ptr: *const u8| unsafe { snmalloc_sys::sn_rust_usable_size(ptr.cast()) };
    usable(ptr) >= size && usable((&raw const FOREIGN).cast()) == 0
}

/// snmalloc does not say its version at run time; the driver adds that of the crate.
pub fn version() -> String {
    NAME.to_owned()
}

/// Whether the library is the one asked for, beyond its name.
pub fn is_as_built() -> Result<(), &'static str> {
    Ok(())
}

/// Told by a thread before it sleeps; snmalloc has no hook for that.
pub fn about_to_sleep() {}

/// Called now and then while threads sleep; snmalloc has no call that reaches other threads.
pub fn housekeep() {}
