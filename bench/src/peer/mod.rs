//! The allocators that are measured, as a table; and, in a worker, the one that serves.
//!
//! The table is what the driver works by. The rest depends on the `peer-*` feature that a worker
//! was built with: each peer is a file of its own behind the one name `chosen`, with its global
//! allocator, its proof and its version. Without such a feature that is the system's allocator.

use crate::wire::Served;

#[cfg(any(
    all(
        feature = "peer-flagstone",
        any(
            feature = "peer-mimalloc",
            feature = "peer-mimalloc-v2",
            feature = "peer-snmalloc",
            feature = "peer-jemalloc",
            feature = "peer-rpmalloc"
        )
    ),
    all(
        any(feature = "peer-mimalloc", feature = "peer-mimalloc-v2"),
        any(feature = "peer-snmalloc", feature = "peer-jemalloc", feature = "peer-rpmalloc")
    ),
    all(feature = "peer-mimalloc", feature = "peer-mimalloc-v2"),
    all(feature = "peer-snmalloc", any(feature = "peer-jemalloc", feature = "peer-rpmalloc")),
    all(feature = "peer-jemalloc", feature = "peer-rpmalloc"),
))]
compile_error!("a worker is built with at most one of the peer-* features");

mod glibc;

#[cfg_attr(feature = "peer-flagstone", path = "flagstone.rs")]
#[cfg_attr(any(feature = "peer-mimalloc", feature = "peer-mimalloc-v2"), path = "mimalloc.rs")]
#[cfg_attr(feature = "peer-snmalloc", path = "snmalloc.rs")]
#[cfg_attr(feature = "peer-jemalloc", path = "jemalloc.rs")]
#[cfg_attr(feature = "peer-rpmalloc", path = "rpmalloc.rs")]
#[cfg_attr(
    not(any(
        feature = "peer-flagstone",
        feature = "peer-mimalloc",
        feature = "peer-mimalloc-v2",
        feature = "peer-snmalloc",
        feature = "peer-jemalloc",
        feature = "peer-rpmalloc"
    )),
    path = "system.rs"
)]
mod chosen;

pub use chosen::{about_to_sleep, housekeep};

/// Name of Flagstone's own entry in [`PEERS`].
pub const FLAGSTONE: &str = "flagstone";
/// Name of the entry for Flagstone without its counters, which only `--suite stats-cost` measures.
pub const FLAGSTONE_NOSTAT: &str = "flagstone-nostat";
/// Name of the peer that memory is compared with.
pub const MIMALLOC: &str = "mimalloc";

/// How to build the worker of one allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Name on the command line and in reports.
    pub name: &'static str,
    /// The worker's feature; empty for the system's allocator.
    pub feature: &'static str,
    /// What it is, for the reports.
    pub about: &'static str,
    /// The crate it comes from, whose locked version the reports name.
    pub package: Option<&'static str>,
    /// A program that its build runs besides the compilers.
    pub needs: Option<&'static str>,
    /// More arguments for `cargo build`.
    pub cargo_args: &'static [&'static str],
    /// Flags for the compiler, which also give it a target folder of its own.
    pub rustflags: Option<&'static str>,
    /// Whether it runs under valgrind.
    pub valgrind: bool,
    /// Measured by every suite; the others are asked for by name.
    pub usual: bool,
}

/// Every allocator.
pub const PEERS: &[Peer] = &[
    Peer {
        name: FLAGSTONE,
        feature: "peer-flagstone",
        about: "this project, telemetry on",
        package: None,
        needs: None,
        cargo_args: &[],
        rustflags: None,
        valgrind: true,
        usual: true,
    },
    Peer {
        name: MIMALLOC,
        feature: "peer-mimalloc",
        about: "mimalloc v3 (crate mimalloc)",
        package: Some("mimalloc"),
        needs: None,
        cargo_args: &[],
        rustflags: None,
        valgrind: true,
        usual: true,
    },
    Peer {
        name: "mimalloc-v2",
        feature: "peer-mimalloc-v2",
        about: "mimalloc v2 (crate mimalloc, feature v2)",
        package: Some("mimalloc"),
        needs: None,
        cargo_args: &[],
        rustflags: None,
        valgrind: true,
        usual: true,
    },
    Peer {
        name: "snmalloc",
        feature: "peer-snmalloc",
        about: "snmalloc (crate snmalloc-rs, built by cmake)",
        package: Some("snmalloc-rs"),
        // Its build without cmake leaves assertions on under GCC and Clang, and would be slow.
        needs: Some("cmake"),
        // Its build script takes any debug information in the profile for a debug build.
        cargo_args: &["--config", "profile.release.package.snmalloc-sys.debug=false"],
        rustflags: None,
        // It reserves more address space for its page map than valgrind has.
        valgrind: false,
        usual: true,
    },
    Peer {
        name: "jemalloc",
        feature: "peer-jemalloc",
        about: "jemalloc (crate tikv-jemallocator)",
        package: Some("tikv-jemallocator"),
        needs: Some("make"),
        cargo_args: &[],
        rustflags: None,
        valgrind: true,
        usual: true,
    },
    Peer {
        name: "rpmalloc",
        feature: "peer-rpmalloc",
        about: "rpmalloc (crate rpmalloc-sys)",
        package: Some("rpmalloc-sys"),
        needs: None,
        cargo_args: &[],
        rustflags: None,
        valgrind: true,
        usual: true,
    },
    Peer {
        name: "system",
        feature: "",
        about: "the C library's malloc",
        package: None,
        needs: None,
        cargo_args: &[],
        rustflags: None,
        valgrind: true,
        usual: true,
    },
    Peer {
        name: FLAGSTONE_NOSTAT,
        feature: "peer-flagstone-nostat",
        about: "this project without its counters",
        package: None,
        needs: None,
        cargo_args: &[],
        rustflags: Some("--cfg flagstone_no_counters"),
        valgrind: true,
        usual: false,
    },
];

/// The entry of that name.
pub fn find(name: &str) -> Option<&'static Peer> {
    PEERS.iter().find(|peer| peer.name == name)
}

/// Checks that the allocator that this binary was built for serves its allocations.
///
/// Two independent proofs must hold: the allocator itself knows a fresh block as its own, and the
/// C library's accounts moved exactly if it is the system's allocator that should serve.
/// (requirement P2: a proof that can fail.)
///
/// Asked after a run, when its figures are taken, so that the proof leaves no trace in them, and
/// while no other thread allocates.
pub fn prove() -> Result<Served, NotServing> {
    // Of several classes and one too large for any of them.
    for size in [16, 1024, 40_000, 8 << 20] {
        let block = std::hint::black_box(Vec::<u8>::with_capacity(size));
        if !chosen::owns(block.as_ptr(), size) {
            return Err(NotServing(format!(
                "{} does not know a fresh block of {size} bytes",
                chosen::NAME
            )));
        }
    }
    chosen::is_as_built().map_err(|reason| NotServing(reason.to_owned()))?;
    let system = glibc::serves();
    if system != chosen::IS_SYSTEM {
        let what = if system { "serves" } else { "does not serve" };
        return Err(NotServing(format!("the C library {what} beside {}", chosen::NAME)));
    }
    Ok(Served {
        peer: chosen::NAME.to_owned(),
        version: chosen::version(),
        proof: chosen::PROOF.to_owned(),
    })
}

/// The allocator under test is not the one that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotServing(String);

impl std::fmt::Display for NotServing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "wrong allocator: {}", self.0)
    }
}

impl std::error::Error for NotServing {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_both_ends_of_the_comparison_exist() {
        for (index, peer) in PEERS.iter().enumerate() {
            assert!(PEERS[index + 1..].iter().all(|other| other.name != peer.name));
            assert_eq!(find(peer.name), Some(peer));
        }
        assert!(find(FLAGSTONE).is_some() && find(MIMALLOC).is_some());
    }
}
