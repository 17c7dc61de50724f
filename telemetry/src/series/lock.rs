//! Series per lock (requirement D7). Label `lock`: what it guards; buckets carry their `class`,
//! too.

use flagstone_slab::stats::LockSnapshot;

use super::Kind::{Counter, Gauge};
use super::Unit::{Count, Seconds};
use super::{Kind, Read, Series, Unit};

pub(super) const SERIES: &[Series] = &[
    lock(
        Counter,
        Count,
        "flagstone_lock_acquisitions_total",
        "heap.locks[lock,class].acquisitions",
        "Times the lock was taken.",
        |l| l.acquisitions,
    ),
    lock(
        Counter,
        Count,
        "flagstone_lock_contended_total",
        "heap.locks[lock,class].contended",
        "Times that taking it waited longer than the threshold, 1,000 ns unless configured.",
        |l| l.contended,
    ),
    lock(
        Counter,
        Seconds,
        "flagstone_lock_wait_seconds_total",
        "heap.locks[lock,class].wait_nanos",
        "Time waited for the lock.",
        |l| l.wait_nanos,
    ),
    lock(
        Gauge,
        Seconds,
        "flagstone_lock_max_wait_seconds",
        "heap.locks[lock,class].max_wait_nanos",
        "Longest single wait for the lock.",
        |l| l.max_wait_nanos,
    ),
    lock(
        Counter,
        Seconds,
        "flagstone_lock_hold_seconds_total",
        "heap.locks[lock,class].hold_nanos",
        "Time that the lock was held, estimated from one acquisition in 16.",
        |l| l.hold_nanos,
    ),
];

const fn lock(
    kind: Kind,
    unit: Unit,
    name: &'static str,
    json: &'static str,
    help: &'static str,
    read: fn(&LockSnapshot) -> u64,
) -> Series {
    Series::new(kind, unit, name, json, help, Read::Lock(read))
}
