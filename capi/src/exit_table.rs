//! The table that `FLAGSTONE_STATS=1` prints when the program exits.
//!
//! Owns its layout. One write to standard error, so that processes do not mix their lines.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::OnceLock;

use flagstone_slab::Heap;
use flagstone_slab::stats::HeapSnapshot;

/// A copy of standard error from when the program began: many programs close theirs on the way out.
static TO: OnceLock<OwnedFd> = OnceLock::new();

/// Arranges for the table.
pub(crate) fn arrange() {
    if let Ok(copy) = std::io::stderr().as_fd().try_clone_to_owned() {
        let _ = TO.set(copy);
    }
}

/// Prints the table, if it was arranged for.
pub(crate) fn print() {
    let Some(to) = TO.get().and_then(|to| to.try_clone().ok()) else { return };
    let mut text = String::new();
    if write(&mut text, &Heap::global().snapshot()).is_ok() {
        let _ = File::from(to).write_all(text.as_bytes());
    }
}

fn write(to: &mut String, heap: &HeapSnapshot) -> fmt::Result {
    let bytes = &heap.bytes;
    let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
    writeln!(to, "flagstone {version}: heap of process {pid} at exit, sizes in KiB")?;
    for (name, value) in [
        ("live", bytes.live),
        ("cached", bytes.cached),
        ("fragmentation", bytes.fragmentation),
        ("retired", bytes.retired),
        ("metadata", bytes.metadata),
        ("mapped", bytes.mapped),
        ("retained", bytes.retained),
    ] {
        writeln!(to, "  {name:<14}{:>12}", value.div_ceil(1024))?;
    }
    if let Some(resident) = bytes.resident {
        writeln!(to, "  {:<14}{:>12}", "resident", resident.div_ceil(1024))?;
    }
    let (tiers, remote) = (&heap.tiers, &heap.remote);
    let locks = heap.locks.iter();
    let (taken, contended) =
        locks.fold((0, 0), |sum, lock| (sum.0 + lock.acquisitions, sum.1 + lock.contended));
    writeln!(
        to,
        "  shards {}, shard misses {}, bucket allocations {}, refusals {}",
        heap.shards.len(),
        tiers.shard_misses,
        tiers.bucket_hits,
        tiers.failures
    )?;
    writeln!(
        to,
        "  freed by other threads {} in {} batches; locks taken {}, contended {}",
        remote.posted_blocks, remote.posted_batches, taken, contended
    )?;
    let heads = ["block", "in use", "high water", "allocated", "freed", "slabs"];
    let [block, used, high, came, went, slabs] = heads;
    writeln!(to, "  {block:>8}{used:>12}{high:>12}{came:>14}{went:>14}{slabs:>8}")?;
    for class in heap.classes.iter().filter(|class| class.allocs > 0) {
        writeln!(
            to,
            "  {:>8}{:>12}{:>12}{:>14}{:>14}{:>8}",
            class.block_bytes,
            class.in_use,
            class.high_water,
            class.allocs,
            class.frees,
            class.slabs
        )?;
    }
    let large = &heap.fallback;
    writeln!(
        to,
        "  {:>8}{:>12}{:>12}{:>14}{:>14}{:>8}",
        "large",
        large.allocs.saturating_sub(large.frees),
        "",
        large.allocs,
        large.frees,
        ""
    )
}

#[cfg(test)]
mod tests {
    use flagstone_slab::stats::ClassSnapshot;

    use super::*;

    #[test]
    fn classes_in_use_are_listed_with_their_figures() {
        let mut heap = HeapSnapshot::default();
        heap.bytes.live = 5000;
        let mut class = ClassSnapshot::default();
        class.block_bytes = 48;
        (class.allocs, class.frees, class.in_use, class.high_water) = (1234, 1000, 234, 456);
        heap.classes.push(class);
        heap.classes.push(ClassSnapshot::default());
        let mut text = String::new();
        write(&mut text, &heap).expect("a string takes everything");
        assert!(text.starts_with(concat!("flagstone ", env!("CARGO_PKG_VERSION"), ": ")));
        let row: Vec<_> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(row.contains(&vec!["live", "5"]), "{text}");
        assert!(row.contains(&vec!["48", "234", "456", "1234", "1000", "0"]), "{text}");
        assert_eq!(row.iter().filter(|row: &&Vec<_>| row.first() == Some(&"0")).count(), 0);
    }
}
