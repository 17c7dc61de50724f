//! Series of the runtime around the heap: the scavenger and the admin server, where they run.

use super::Kind::{Counter, Gauge};
use super::Unit::{Bytes, Count, Seconds};
use super::{Kind, Number, Read, Series, Unit};
use crate::{Snapshot, nanos};

pub(super) const SERIES: &[Series] = &[
    part(
        Counter,
        Count,
        "flagstone_scavenger_passes_total",
        "scavenger.passes",
        "Passes that the scavenger finished.",
        |s| Some(Number::Whole(s.scavenger?.passes)),
    ),
    part(
        Counter,
        Count,
        "flagstone_scavenger_idle_passes_total",
        "scavenger.idle_passes",
        "Passes that found nothing to take back.",
        |s| Some(Number::Whole(s.scavenger?.idle_passes)),
    ),
    part(
        Counter,
        Seconds,
        "flagstone_scavenger_busy_seconds_total",
        "scavenger.busy_nanos",
        "Time that the scavenger spent in passes.",
        |s| Some(Number::Whole(nanos(s.scavenger?.busy))),
    ),
    part(
        Gauge,
        Seconds,
        "flagstone_scavenger_interval_seconds",
        "scavenger.interval_nanos",
        "Time between two passes as it stands now.",
        |s| Some(Number::Whole(nanos(s.scavenger?.interval))),
    ),
    part(
        Counter,
        Count,
        "flagstone_scavenger_shards_claimed_total",
        "scavenger.shards_claimed",
        "Shards that the scavenger claimed.",
        |s| Some(Number::Whole(s.scavenger?.shards_claimed)),
    ),
    part(
        Counter,
        Count,
        "flagstone_scavenger_blocks_drained_total",
        "scavenger.blocks_drained",
        "Blocks that the scavenger took back from inboxes.",
        |s| Some(Number::Whole(s.scavenger?.blocks_drained)),
    ),
    part(
        Counter,
        Count,
        "flagstone_scavenger_slabs_returned_total",
        "scavenger.slabs_returned",
        "Slabs that the scavenger returned whole.",
        |s| Some(Number::Whole(s.scavenger?.slabs_returned)),
    ),
    part(
        Counter,
        Bytes,
        "flagstone_scavenger_purged_bytes_total",
        "scavenger.bytes_purged",
        "Bytes that the scavenger purged to the system.",
        |s| Some(Number::Whole(s.scavenger?.bytes_purged)),
    ),
    part(
        Counter,
        Count,
        "flagstone_scavenger_segments_unmapped_total",
        "scavenger.segments_unmapped",
        "Segments that the scavenger unmapped.",
        |s| Some(Number::Whole(s.scavenger?.segments_unmapped)),
    ),
    part(
        Gauge,
        Count,
        "flagstone_admin_open_connections",
        "admin.open_connections",
        "Connections to the admin server that are open now.",
        |s| Some(Number::Whole(s.admin?.open_connections)),
    ),
    part(
        Counter,
        Count,
        "flagstone_admin_connections_total",
        "admin.connections",
        "Connections that the admin server accepted.",
        |s| Some(Number::Whole(s.admin?.connections)),
    ),
    part(
        Counter,
        Count,
        "flagstone_admin_requests_total",
        "admin.requests",
        "Requests that reached the admin server, whatever they were answered.",
        |s| Some(Number::Whole(s.admin?.requests)),
    ),
    part(
        Counter,
        Count,
        "flagstone_admin_accept_errors_total",
        "admin.accept_errors",
        "Times that the admin server failed to accept a connection.",
        |s| Some(Number::Whole(s.admin?.accept_errors)),
    ),
    part(
        Counter,
        Count,
        "flagstone_admin_timeouts_total",
        "admin.timeouts",
        "Connections that the admin server closed because a limit in time ran out.",
        |s| Some(Number::Whole(s.admin?.timeouts)),
    ),
    part(
        Counter,
        Count,
        "flagstone_admin_memory_refusals_total",
        "admin.memory_refusals",
        "Requests that the admin server refused because there was no memory to spare.",
        |s| Some(Number::Whole(s.admin?.memory_refusals)),
    ),
];

const fn part(
    kind: Kind,
    unit: Unit,
    name: &'static str,
    json: &'static str,
    help: &'static str,
    read: fn(&Snapshot) -> Option<Number>,
) -> Series {
    Series::new(kind, unit, name, json, help, Read::Process(read))
}
