//! Proof that this process allocates from Flagstone (requirement P2).
//!
//! Owns the question. The answer comes from the addresses of fresh allocations and from nothing
//! that was known when the program was built; so it can be no.

use std::fmt;
use std::hint::black_box;

use flagstone_slab::Heap;

/// What [`verify`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct Verification {
    /// Whether every fresh allocation lies in Flagstone's global heap.
    pub verified: bool,
    /// How Flagstone serves this process.
    pub mode: Mode,
    /// Version of the Flagstone that was asked.
    pub version: &'static str,
}

/// How Flagstone serves a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// As the program's `#[global_allocator]`.
    GlobalAllocator,
    /// Not at all: Rust allocations go elsewhere. Flagstone's heaps can still be used by name.
    NotInUse,
}

impl Mode {
    /// The mode in words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GlobalAllocator => "global allocator",
            Self::NotInUse => "not in use",
        }
    }
}

/// Allocates, a small block and a large one, and looks up whose they are.
///
/// It speaks of the Rust allocations of the program that calls it. Under `LD_PRELOAD` of the C library
/// a Rust program on the system's allocator is served by that library's heap and not by this
/// crate's: ask `flagstone verify -- COMMAND`, or `flagstone_verify()` of the library.
///
/// ```
/// # #[global_allocator]
/// # static ALLOCATOR: flagstone::Flagstone = flagstone::Flagstone::new();
/// let found = flagstone::verify();
/// assert!(found.verified, "{found}");
/// ```
pub fn verify() -> Verification {
    let small = black_box(Box::new(0x5Au8));
    let large = black_box(vec![0u8; 1 << 20]);
    let ours = |address: *const u8| Heap::global().usable_size(address).is_some();
    let verified = ours(&raw const *small) && ours(large.as_ptr());
    Verification {
        verified,
        mode: if verified { Mode::GlobalAllocator } else { Mode::NotInUse },
        version: env!("CARGO_PKG_VERSION"),
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verified, mode, version } = self;
        let answer = if *verified { "yes" } else { "no" };
        write!(f, "{answer}: Flagstone {version}, {}", mode.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unit tests run on the system's allocator: the honest answer is no. `tests/verify.rs` is the
    /// program that gets a yes.
    // requirement: P2
    #[test]
    fn a_program_on_another_allocator_is_told_so() {
        let found = verify();
        assert!(!found.verified);
        assert_eq!(found.mode, Mode::NotInUse);
        assert_eq!(
            found.to_string(),
            concat!("no: Flagstone ", env!("CARGO_PKG_VERSION"), ", not in use")
        );
    }
}
