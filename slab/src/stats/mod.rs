//! Statistics of a heap: the snapshot model that every exporter reads.

mod collect;
mod snapshot;

pub use snapshot::{
    ByteTotals, ClassSnapshot, FALLBACK_BOUNDS, FallbackSnapshot, HeapSnapshot, LockSite,
    LockSnapshot, PurgeReport, RemoteSnapshot, ReturnedBytes, SEGMENT_USES, ScavengeReport,
    SegmentSnapshot, SegmentUse, ShardSnapshot, ShardState, TierSnapshot,
};
