//! Statistics: counters with one writer, and the snapshot that exporters read.

mod counter;
mod snapshot;
mod times;

pub use self::counter::Counter;
pub use self::snapshot::{GraceSnapshot, Snapshot, Tally};
pub use self::times::GRACE_BUCKETS;
pub(crate) use self::times::GraceTimes;
