//! Chores beside the connections: expiry, readings of memory, slow subscribers, metrics.
//!
//! One task, woken every [`memory::SAMPLE`](crate::memory::SAMPLE). Each chore has a bound: expiry
//! runs for at most `EXPIRY_TIME` of a tick and holds a shard's lock for 64 removals at a time; the
//! others are a walk over shards or clients.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use crate::memory::SAMPLE;
use crate::metrics::Exported;
use crate::shared::{Shared, wall_clock};

/// Longest time per tick for removing keys that are due: a quarter of it.
const EXPIRY_TIME: Duration = SAMPLE.checked_div(4).expect("not by zero");

/// Ticks from one report of metrics to the next, and between readings of memory where no limit needs
/// them more often: a reading walks the heap.
const SLOW_TICK: u32 = 10;

/// Does the chores until it is aborted.
pub async fn run(shared: Arc<Shared>) {
    let exported = Exported::new();
    let mut ticks = interval(SAMPLE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 0u32.. {
        ticks.tick().await;
        expire(&shared);
        shared.stats.sample_rate();
        evict_slow(&shared);
        let slow_tick = tick.is_multiple_of(SLOW_TICK);
        if slow_tick || shared.tunables.maxmemory.get() != 0 {
            shared.gauge.sample(&shared.keyspace);
        }
        if slow_tick {
            exported.report(&shared);
        }
    }
}

/// Reports the last figures before the end.
pub fn last_report(shared: &Shared) {
    Exported::new().report(shared);
}

fn expire(shared: &Shared) {
    let start = Instant::now();
    shared.keyspace.expire_due(wall_clock(), || start.elapsed() >= EXPIRY_TIME);
}

/// Closes clients that have been over their soft limit for too long. Publishers check the limits with
/// every message; this is for those that nobody sends anything any more.
fn evict_slow(shared: &Shared) {
    let limit = shared.tunables.output_pubsub.get();
    if limit.soft == 0 || shared.stats.subscribers.get() == 0 {
        return;
    }
    shared.keyspace.with_participant(|participant| {
        for client in shared.clients.all(&participant.pin()) {
            // The connection counts its eviction.
            client.mailbox.evict_if_over(limit);
        }
    });
}
