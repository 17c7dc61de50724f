//! Series of the process, and of the taking of the snapshot itself.

use super::Kind::Gauge;
use super::Unit::{Count, Seconds};
use super::{Number, Read, Series};
use crate::{nanos, unix_nanos};

pub(super) const SERIES: &[Series] = &[
    Series::new(
        Gauge,
        Seconds,
        "flagstone_process_start_time_seconds",
        "process.started_unix_nanos",
        "When the process started, since the Unix epoch.",
        Read::Process(|s| Some(Number::Whole(unix_nanos(s.process.started?)))),
    ),
    Series::new(
        Gauge,
        Count,
        "flagstone_heap_instances",
        "instance_count",
        "Heap instances of the process besides the heap shown.",
        Read::Process(|s| Some(Number::Whole(s.instances.len() as u64))),
    ),
    Series::new(
        Gauge,
        Seconds,
        "flagstone_process_uptime_seconds",
        "process.uptime_nanos",
        "Time since the process started.",
        Read::Process(|s| Some(Number::Whole(nanos(s.process.uptime?)))),
    ),
    Series::new(
        Gauge,
        Count,
        "flagstone_process_threads",
        "process.threads",
        "Threads of the process.",
        Read::Process(|s| Some(s.process.threads.map_or(Number::Unknown, Number::Whole))),
    ),
    Series::new(
        Gauge,
        Seconds,
        "flagstone_snapshot_duration_seconds",
        "taken_in_nanos",
        "How long taking the snapshot behind these figures took.",
        Read::Process(|s| Some(Number::Whole(nanos(s.taken_in)))),
    ),
    Series::new(
        Gauge,
        Count,
        "flagstone_build_info",
        "process.version",
        "Always 1; the labels tell the version of Flagstone and how it was compiled.",
        Read::Build,
    ),
];
