//! Series per size class, over all shards and the class's bucket. Label `class`: bytes of one
//! block.

use flagstone_slab::stats::ClassSnapshot;

use super::Kind::{Counter, Gauge};
use super::Unit::{Bytes, Count};
use super::{Kind, Read, Series, Unit};

pub(super) const SERIES: &[Series] = &[
    class(
        Counter,
        Count,
        "flagstone_class_allocs_total",
        "heap.classes[class].allocs",
        "Blocks allocated.",
        |c| c.allocs,
    ),
    class(
        Counter,
        Count,
        "flagstone_class_frees_total",
        "heap.classes[class].frees",
        "Blocks taken back by their owner.",
        |c| c.frees,
    ),
    class(
        Gauge,
        Count,
        "flagstone_class_in_use_blocks",
        "heap.classes[class].in_use",
        "Blocks allocated and not yet taken back.",
        |c| c.in_use,
    ),
    class(
        Gauge,
        Bytes,
        "flagstone_class_in_use_bytes",
        "heap.classes[class].in_use_bytes",
        "Blocks in use times the bytes of one block.",
        in_use_bytes,
    ),
    class(
        Gauge,
        Count,
        "flagstone_class_high_water_blocks",
        "heap.classes[class].high_water",
        "Largest number of blocks in use since the heap exists.",
        |c| c.high_water,
    ),
    class(
        Gauge,
        Count,
        "flagstone_class_window_high_water_blocks",
        "heap.classes[class].window_high_water",
        "Largest number of blocks in use since the last reset of the window.",
        |c| c.window_high_water,
    ),
    class(
        Gauge,
        Count,
        "flagstone_class_slabs",
        "heap.classes[class].slabs",
        "Slabs cut into this class, whoever owns them.",
        |c| c.slabs,
    ),
    class(
        Gauge,
        Count,
        "flagstone_class_free_blocks",
        "heap.classes[class].free_blocks",
        "Blocks in those slabs that are free.",
        |c| c.free_blocks,
    ),
    class(
        Gauge,
        Bytes,
        "flagstone_class_slab_bytes",
        "heap.classes[class].slab_bytes",
        "Bytes of those slabs.",
        |c| c.slab_bytes,
    ),
    class(
        Counter,
        Count,
        "flagstone_class_refills_total",
        "heap.classes[class].refills",
        "Times that a current slab ran out.",
        |c| c.refills,
    ),
    class(
        Counter,
        Count,
        "flagstone_class_remote_frees_total",
        "heap.classes[class].remote_frees",
        "Blocks freed by another thread than their owner's and taken back.",
        |c| c.remote_frees,
    ),
    class(
        Counter,
        Count,
        "flagstone_class_bucket_allocs_total",
        "heap.classes[class].bucket_allocs",
        "Blocks allocated from the bucket tier.",
        |c| c.bucket_allocs,
    ),
    class(
        Counter,
        Count,
        "flagstone_class_bucket_frees_total",
        "heap.classes[class].bucket_frees",
        "Blocks freed through the bucket tier.",
        |c| c.bucket_frees,
    ),
];

/// Bytes of the blocks in use of a class.
pub(crate) fn in_use_bytes(class: &ClassSnapshot) -> u64 {
    class.in_use.saturating_mul(class.block_bytes)
}

const fn class(
    kind: Kind,
    unit: Unit,
    name: &'static str,
    json: &'static str,
    help: &'static str,
    read: fn(&ClassSnapshot) -> u64,
) -> Series {
    Series::new(kind, unit, name, json, help, Read::Class(read))
}
