//! Which allocator serves this process, and what a block of it really takes.
//!
//! The choice is a cargo feature of the package, exactly one; the static itself is in `main.rs`,
//! because a global allocator belongs to the program and not to a library. What serves is asked from
//! the running program where the allocator can tell a block of its own ([`Serving::verified`]).

use flagstone::Heap;

#[cfg(any(
    all(
        feature = "flagstone-alloc",
        any(feature = "mimalloc", feature = "jemalloc", feature = "system-alloc")
    ),
    all(feature = "mimalloc", any(feature = "jemalloc", feature = "system-alloc")),
    all(feature = "jemalloc", feature = "system-alloc"),
))]
compile_error!(
    "more than one allocator is chosen; build with --no-default-features and one of the features \
     flagstone-alloc, mimalloc, jemalloc, system-alloc"
);
#[cfg(not(any(
    feature = "flagstone-alloc",
    feature = "mimalloc",
    feature = "jemalloc",
    feature = "system-alloc"
)))]
compile_error!(
    "no allocator is chosen; add one of the features flagstone-alloc, mimalloc, jemalloc, system-alloc"
);

/// The allocator that the program was built with.
pub const BUILT_WITH: &str = if cfg!(feature = "mimalloc") {
    "mimalloc"
} else if cfg!(feature = "jemalloc") {
    "jemalloc"
} else if cfg!(feature = "system-alloc") {
    "system"
} else {
    "flagstone"
};

/// What is known about the allocator that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Its name.
    pub name: &'static str,
    /// Whether a fresh allocation of this process was recognised by it. Only Flagstone can tell;
    /// for the others the name is what the program was built with.
    pub verified: bool,
}

impl Serving {
    /// Asks the running program. A program that is built with Flagstone but served by something
    /// else (this library inside another program, for example) reports `unknown`.
    pub fn now() -> Self {
        if !cfg!(feature = "flagstone-alloc") {
            return Self { name: BUILT_WITH, verified: false };
        }
        let verified = flagstone::verify().verified;
        Self { name: if verified { "flagstone" } else { "unknown" }, verified }
    }
}

/// Bytes that the block around `value`, requested with `requested` bytes, takes from the heap: what the
/// heap says where Flagstone serves, else an estimate by the usual spacing of size classes. Nothing
/// for an empty request, which has no block.
pub fn block_bytes<T: ?Sized>(value: &T, requested: usize) -> usize {
    if requested == 0 {
        return 0;
    }
    if cfg!(feature = "flagstone-alloc")
        && let Some(usable) = Heap::global().usable_size_of(value)
    {
        return usable;
    }
    estimate(requested)
}

/// The size class that an allocator with eight classes to a doubling (four for jemalloc) would pick.
/// glibc keeps eight bytes of its own in each block instead and rounds to 16.
fn estimate(requested: usize) -> usize {
    if cfg!(feature = "system-alloc") {
        return (requested + 8).next_multiple_of(16).max(32);
    }
    let steps = if cfg!(feature = "jemalloc") { 4 } else { 8 };
    let step = (requested.next_power_of_two() / 2 / steps).max(16);
    requested.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_takes_at_least_what_was_requested() {
        for requested in [1, 7, 16, 17, 100, 1000, 65_536, 1_000_000] {
            let block = vec![0u8; requested];
            let bytes = block_bytes(&*block, requested);
            assert!(bytes >= requested, "{requested}: {bytes}");
            assert!(bytes <= 2 * requested + 64, "{requested}: {bytes}");
        }
        assert_eq!(block_bytes(&[0u8; 0], 0), 0);
    }

    #[test]
    fn verification_tells_the_truth() {
        // Unit tests run in a harness without our global allocator.
        let serving = Serving::now();
        assert_eq!(serving.verified, serving.name == "flagstone");
    }
}
