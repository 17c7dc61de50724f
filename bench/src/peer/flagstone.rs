//! Flagstone, with its counters or, with `peer-flagstone-nostat`, without them.

use flagstone_slab::{Flagstone, Heap, thread};

#[global_allocator]
static GLOBAL: Flagstone = Flagstone::new();

/// Its name in the table.
pub const NAME: &str = if WITHOUT_COUNTERS { super::FLAGSTONE_NOSTAT } else { super::FLAGSTONE };
/// What [`owns`] looks at.
pub const PROOF: &str = if WITHOUT_COUNTERS {
    "Heap::usable_size, None for a foreign address, and a snapshot that counts nothing"
} else {
    "Heap::usable_size, None for a foreign address, and a snapshot that counts"
};
/// Whether the C library's accounts must move.
pub const IS_SYSTEM: bool = false;

const WITHOUT_COUNTERS: bool = cfg!(feature = "peer-flagstone-nostat");

/// Whether the heap knows the block, and does not know one that is none of its.
pub fn owns(ptr: *const u8, size: usize) -> bool {
    static FOREIGN: u64 = 0;
    let heap = Heap::global();
    heap.usable_size(ptr).is_some_and(|usable| usable >= size)
        && heap.usable_size((&raw const FOREIGN).cast()).is_none()
}

/// The workspace's version.
pub fn version() -> String {
    concat!("flagstone ", env!("CARGO_PKG_VERSION")).to_owned()
}

/// Whether there are counters, exactly if this is the build that should: Flagstone is measured
/// with its telemetry on.
pub fn is_as_built() -> Result<(), &'static str> {
    // Not allocations: those in use are told from the slabs, with counters or without.
    let counted: u64 = Heap::global().snapshot().classes.iter().map(|class| class.refills).sum();
    match (counted, WITHOUT_COUNTERS) {
        (0, false) => Err("flagstone's snapshot counts no refill"),
        (1.., true) => Err("flagstone counts refills, where it was to be built without"),
        _ => Ok(()),
    }
}

/// What a runtime's park hook does.
pub fn about_to_sleep() {
    thread::park();
}

/// What the scavenger does.
pub fn housekeep() {
    let _ = Heap::global().scavenge();
}
