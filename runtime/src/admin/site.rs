//! What all connections share: where figures come from, and the limits.

use std::time::Duration;

use flagstone_slab::stats::PurgeReport;
use flagstone_telemetry::prometheus::Exporter;
use flagstone_telemetry::{Options, Snapshot};

use super::config::{Config, Health, Section};
use super::figures::Figures;
use super::spare::Spare;
use crate::heap_ref::HeapRef;
use crate::runtime::spawn_blocking;
use crate::scavenger;

/// The server's state; only [`Figures`] and [`Spare`] change.
pub(super) struct Site {
    pub(super) limits: Limits,
    pub(super) figures: Figures,
    pub(super) spare: Spare,
    pub(super) exporter: Exporter,
    pub(super) options: Options,
    pub(super) sections: Vec<(String, Section)>,
    pub(super) health: Vec<Health>,
    heap: HeapRef,
    scavenger: Option<scavenger::Figures>,
    /// Whether the exporter may hold samples of the program's own.
    needs_upkeep: bool,
}

/// What a client may use.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) connections: usize,
    pub(super) requests: usize,
    pub(super) header: Duration,
    pub(super) idle: Duration,
    pub(super) response: Duration,
    pub(super) shutdown_grace: Duration,
}

impl Site {
    pub(super) fn new(config: Config) -> Self {
        Self {
            limits: Limits {
                connections: config.max_connections,
                requests: config.max_requests,
                header: config.header_timeout,
                idle: config.idle_timeout,
                response: config.response_timeout,
                shutdown_grace: config.shutdown_grace,
            },
            figures: Figures::default(),
            spare: Spare::default(),
            needs_upkeep: config.exporter.is_some(),
            exporter: config.exporter.unwrap_or_else(Exporter::local),
            options: Options::default().per_shard(config.per_shard_metrics),
            sections: config.sections,
            health: config.health,
            heap: config.heap,
            scavenger: config.scavenger,
        }
    }

    /// The one snapshot that an answer works from. Walks the heap: call it on a thread that may
    /// block.
    pub(super) fn snapshot(&self) -> Snapshot {
        let snapshot = Snapshot::take(&self.heap).with_admin(self.figures.snapshot());
        match &self.scavenger {
            Some(scavenger) => snapshot.with_scavenger(scavenger.snapshot()),
            None => snapshot,
        }
    }

    /// Gives every free page back. Makes system calls: call it on a thread that may block.
    pub(super) fn purge(&self) -> PurgeReport {
        self.heap.purge()
    }

    /// Empties the buffers of the exporter's histograms, elsewhere.
    pub(super) fn run_upkeep(&self) {
        if self.needs_upkeep {
            let exporter = self.exporter.clone();
            drop(spawn_blocking(move || exporter.run_upkeep()));
        }
    }
}
