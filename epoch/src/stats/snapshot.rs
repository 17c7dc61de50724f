//! The snapshot of a domain: plain values for exporters.
//!
//! Counters are read one by one while their writers go on; each is exact, and two of them may be a few
//! operations apart. Reclaimed counts are read before retired ones, so that `retired = reclaimed +
//! pending` holds with nothing negative.

use std::ops::{Add, AddAssign};
use std::time::Duration;

use super::times::{GRACE_BUCKETS, bound_nanos};
use crate::domain::Core;
use crate::stall::GuardReport;
use crate::sync::Ordering;

/// Objects and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Objects.
    pub blocks: u64,
    /// Bytes that their retirers said they hold.
    pub bytes: u64,
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { blocks: self.blocks + other.blocks, bytes: self.bytes + other.bytes }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Tally {
    fn minus(self, other: Self) -> Self {
        Self {
            blocks: self.blocks.saturating_sub(other.blocks),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// Everything that a domain knows about itself at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Name of the domain.
    pub domain: String,
    /// Participants registered now.
    pub participants: u64,
    /// Participants that hold a guard now.
    pub pinned: u64,
    /// Outermost guards taken since the domain exists.
    pub pins: u64,
    /// Retired since the domain exists.
    pub retired: Tally,
    /// Reclaimed since the domain exists.
    pub reclaimed: Tally,
    /// Retired and not reclaimed: `retired - reclaimed`.
    pub pending: Tally,
    /// The part of `pending` that is in open batches.
    pub open: Tally,
    /// Batches handed over since the domain exists.
    pub batches: u64,
    /// Batches handed over and not reclaimed.
    pub in_flight_batches: u64,
    /// Bytes that count against the watermark and the limit: those pending, and what open batches
    /// have set aside. Kept apart from the counters above; without open batches it equals
    /// `pending.bytes`.
    pub reserved_bytes: u64,
    /// Reserved bytes above which retiring threads help to collect.
    pub watermark_bytes: u64,
    /// Reserved bytes that `try_retire` never passes, if there is a limit.
    pub hard_limit_bytes: Option<u64>,
    /// Times that a retiring thread helped.
    pub helps: u64,
    /// Times that `try_retire` refused.
    pub refusals: u64,
    /// Reclaim functions that panicked.
    pub reclaim_panics: u64,
    /// Grace periods.
    pub grace: GraceSnapshot,
    /// The epoch in which the oldest guard was first seen by somebody who looked; `grace.completed`, the
    /// current one, if no guard is held. What was retired since may have to wait for it.
    pub oldest_epoch: u64,
    /// Guards reported as stalled since the domain exists.
    pub stalls: u64,
    /// The guard that has been seen held for longest.
    pub oldest_guard: Option<GuardReport>,
}

/// Grace periods of a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GraceSnapshot {
    /// Started since the domain exists. At most one runs.
    pub started: u64,
    /// Completed since the domain exists: the number of the current epoch.
    pub completed: u64,
    /// Completed ones by duration: count `i` holds those up to [`bound`](Self::bound)`(i)` and above
    /// the bound before it; the last holds all longer ones.
    pub histogram: [u64; GRACE_BUCKETS],
    /// Sum of their durations.
    pub sum: Duration,
    /// The longest.
    pub max: Duration,
}

impl GraceSnapshot {
    /// Upper bound of histogram count `i`, a power of two of nanoseconds; `None` for the overflow.
    pub fn bound(i: usize) -> Option<Duration> {
        bound_nanos(i).map(Duration::from_nanos)
    }
}

impl Snapshot {
    pub(crate) fn of(core: &Core) -> Self {
        // First, with acquire: see `Core::reclaimed`.
        let reclaimed = core.reclaimed_so_far();
        let mut totals = Self {
            domain: core.name.to_string(),
            participants: 0,
            pinned: 0,
            pins: 0,
            retired: Tally::default(),
            reclaimed,
            pending: Tally::default(),
            open: Tally::default(),
            batches: core.shared.batches.load(Ordering::Relaxed),
            in_flight_batches: core.eras.in_flight(),
            reserved_bytes: core.ledger.reserved(),
            watermark_bytes: core.config.watermark,
            hard_limit_bytes: Some(core.ledger.limit()).filter(|&limit| limit != u64::MAX),
            helps: core.shared.helps.load(Ordering::Relaxed),
            refusals: core.shared.refusals.load(Ordering::Relaxed),
            reclaim_panics: core.shared.reclaim_panics.load(Ordering::Relaxed),
            grace: GraceSnapshot {
                completed: core.periods.completed(),
                started: core.periods.started(),
                histogram: core.times.counts(),
                sum: Duration::from_nanos(core.times.sum_nanos()),
                max: Duration::from_nanos(core.times.max_nanos()),
            },
            oldest_epoch: core.oldest_epoch(),
            stalls: core.shared.stalls.load(Ordering::Relaxed),
            oldest_guard: core.oldest_guard(),
        };
        for record in core.records() {
            totals.participants += u64::from(record.is_claimed());
            totals.pinned += u64::from(record.held().is_some());
            totals.pins += record.pins();
            let (blocks, bytes) = record.open();
            totals.open += Tally { blocks, bytes };
            let (blocks, bytes) = record.retired_so_far();
            totals.retired += Tally { blocks, bytes };
        }
        totals.pending = totals.retired.minus(totals.reclaimed);
        totals
    }
}
