//! Series of epoch domains (requirements D6, D9): what was retired, what waits, and for whom. Label
//! `domain`: its name.

use flagstone_epoch::{GraceSnapshot, Snapshot};

use super::Kind::{Counter, Gauge, Histogram};
use super::Unit::{Bytes, Count, Seconds};
use super::{Kind, Number, Read, Series, Unit};
use crate::nanos;

pub(super) const SERIES: &[Series] = &[
    gauge(
        Count,
        "flagstone_epoch_participants",
        "domains[domain].participants",
        "Threads registered with the domain.",
        |d| d.participants,
    ),
    gauge(
        Count,
        "flagstone_epoch_pinned",
        "domains[domain].pinned",
        "Participants that hold a guard.",
        |d| d.pinned,
    ),
    counter(
        Count,
        "flagstone_epoch_pins_total",
        "domains[domain].pins",
        "Outermost guards taken.",
        |d| d.pins,
    ),
    counter(
        Count,
        "flagstone_epoch_retired_total",
        "domains[domain].retired.blocks",
        "Objects retired.",
        |d| d.retired.blocks,
    ),
    counter(
        Bytes,
        "flagstone_epoch_retired_bytes_total",
        "domains[domain].retired.bytes",
        "Bytes that they hold, as their retirers said.",
        |d| d.retired.bytes,
    ),
    counter(
        Count,
        "flagstone_epoch_reclaimed_total",
        "domains[domain].reclaimed.blocks",
        "Retired objects reclaimed.",
        |d| d.reclaimed.blocks,
    ),
    counter(
        Bytes,
        "flagstone_epoch_reclaimed_bytes_total",
        "domains[domain].reclaimed.bytes",
        "Bytes of retired objects reclaimed.",
        |d| d.reclaimed.bytes,
    ),
    gauge(
        Count,
        "flagstone_epoch_pending",
        "domains[domain].pending.blocks",
        "Objects retired and not yet reclaimed.",
        |d| d.pending.blocks,
    ),
    gauge(
        Bytes,
        "flagstone_epoch_pending_bytes",
        "domains[domain].pending.bytes",
        "Bytes retired and not yet reclaimed.",
        |d| d.pending.bytes,
    ),
    gauge(
        Count,
        "flagstone_epoch_open",
        "domains[domain].open.blocks",
        "Pending objects whose batch their retirer has not handed over.",
        |d| d.open.blocks,
    ),
    gauge(
        Bytes,
        "flagstone_epoch_open_bytes",
        "domains[domain].open.bytes",
        "Pending bytes whose batch their retirer has not handed over.",
        |d| d.open.bytes,
    ),
    counter(
        Count,
        "flagstone_epoch_batches_total",
        "domains[domain].batches",
        "Batches handed over.",
        |d| d.batches,
    ),
    gauge(
        Count,
        "flagstone_epoch_in_flight_batches",
        "domains[domain].in_flight_batches",
        "Batches handed over and not yet reclaimed.",
        |d| d.in_flight_batches,
    ),
    gauge(
        Bytes,
        "flagstone_epoch_reserved_bytes",
        "domains[domain].reserved_bytes",
        "Pending bytes and what open batches have set aside: what the limits are compared with.",
        |d| d.reserved_bytes,
    ),
    gauge(
        Bytes,
        "flagstone_epoch_watermark_bytes",
        "domains[domain].watermark_bytes",
        "Reserved bytes above which a retiring thread helps to reclaim.",
        |d| d.watermark_bytes,
    ),
    domain(
        Gauge,
        Bytes,
        "flagstone_epoch_hard_limit_bytes",
        "domains[domain].hard_limit_bytes",
        "Reserved bytes above which retiring is refused where it can be.",
        |d| d.hard_limit_bytes.map(Number::Whole),
    ),
    counter(
        Count,
        "flagstone_epoch_helps_total",
        "domains[domain].helps",
        "Times that a retiring thread helped to reclaim.",
        |d| d.helps,
    ),
    counter(
        Count,
        "flagstone_epoch_refusals_total",
        "domains[domain].refusals",
        "Times that retiring was refused.",
        |d| d.refusals,
    ),
    counter(
        Count,
        "flagstone_epoch_reclaim_panics_total",
        "domains[domain].reclaim_panics",
        "Reclaim functions that panicked.",
        |d| d.reclaim_panics,
    ),
    counter(
        Count,
        "flagstone_epoch_grace_periods_started_total",
        "domains[domain].grace.started",
        "Grace periods started.",
        |d| d.grace.started,
    ),
    counter(
        Count,
        "flagstone_epoch_grace_periods_total",
        "domains[domain].grace.completed",
        "Grace periods completed: the number of the current epoch.",
        |d| d.grace.completed,
    ),
    gauge(
        Count,
        "flagstone_epoch_oldest_observed",
        "domains[domain].oldest_epoch",
        "The epoch in which the oldest guard was first seen; the current one if none is held.",
        |d| d.oldest_epoch,
    ),
    Series::new(
        Histogram,
        Seconds,
        "flagstone_epoch_grace_seconds",
        "domains[domain].grace.histogram",
        "Durations of grace periods.",
        Read::GraceTimes,
    ),
    gauge(
        Seconds,
        "flagstone_epoch_max_grace_seconds",
        "domains[domain].grace.max_nanos",
        "The longest grace period.",
        |d| nanos(d.grace.max),
    ),
    counter(
        Count,
        "flagstone_epoch_stalls_total",
        "domains[domain].stalls",
        "Guards that were held for longer than the limit.",
        |d| d.stalls,
    ),
    gauge(
        Seconds,
        "flagstone_epoch_oldest_guard_seconds",
        "domains[domain].oldest_guard.age_nanos",
        "For how long the oldest guard has been seen held; zero if none is.",
        |d| d.oldest_guard.as_ref().map_or(0, |guard| nanos(guard.age)),
    ),
];

/// Cumulative counts by upper bound in nanoseconds, then the total under `None`.
pub(super) fn cumulative(grace: &GraceSnapshot) -> Vec<(Option<u64>, u64)> {
    let mut total = 0;
    let counts = grace.histogram.iter().enumerate();
    counts
        .map(|(i, &n)| {
            total += n;
            (GraceSnapshot::bound(i).map(nanos), total)
        })
        .collect()
}

const fn gauge(
    unit: Unit,
    name: &'static str,
    json: &'static str,
    help: &'static str,
    read: fn(&Snapshot) -> u64,
) -> Series {
    Series::new(Gauge, unit, name, json, help, Read::Domain(read))
}

const fn counter(
    unit: Unit,
    name: &'static str,
    json: &'static str,
    help: &'static str,
    read: fn(&Snapshot) -> u64,
) -> Series {
    Series::new(Counter, unit, name, json, help, Read::Domain(read))
}

/// A figure that some domains have and others do not.
const fn domain(
    kind: Kind,
    unit: Unit,
    name: &'static str,
    json: &'static str,
    help: &'static str,
    read: fn(&Snapshot) -> Option<Number>,
) -> Series {
    Series::new(kind, unit, name, json, help, Read::SomeDomain(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_times_cumulate_to_their_number() {
        let mut grace = GraceSnapshot::default();
        grace.histogram[2] = 3;
        grace.histogram[flagstone_epoch::GRACE_BUCKETS - 1] = 2;
        let buckets = cumulative(&grace);
        assert_eq!(buckets[1], (Some(2_048), 0));
        assert_eq!(buckets[2], (Some(4_096), 3));
        assert_eq!(buckets.last(), Some(&(None, 5)));
    }
}
