//! Building a heap instance: the settings, and why they can be refused.
//!
//! Owns the builder and its errors. Nothing is taken from anywhere before
//! [`build`](HeapBuilder::build); what is refused comes back with the error.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use flagstone_epoch::Domain;

use super::owned::OwnedHeap;
use super::{Heap, HugePages, MAX_SHARDS};
use crate::layout::ClassTable;
use crate::port::{Backing, OsPages};

/// Settings of a heap to be; see [`Heap::builder`].
#[must_use = "a builder makes nothing until `build`"]
pub struct HeapBuilder<'a, B: Backing + 'static = OsPages> {
    pub(super) name: &'a str,
    pub(super) backing: B,
    pub(super) settings: Settings,
}

/// What a builder is told, but for the name and the backing.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) table: ClassTable,
    pub(super) shards: Shards,
    pub(super) cap: usize,
    pub(super) decay: Option<Duration>,
    pub(super) huge_pages: Option<HugePages>,
    pub(super) contention: Option<Duration>,
    pub(super) retires: bool,
    pub(super) domain: Option<Domain>,
}

/// How a heap comes by its shards.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shards {
    /// One for each thread that asks, up to a number.
    OnDemand { most: u32 },
    /// This many, made at once.
    Fixed(u32),
}

/// A heap that could not be built, with the backing that it would have used.
pub struct BuildError<B = OsPages> {
    /// Why.
    pub failure: BuildFailure,
    /// The backing, unused.
    pub backing: B,
}

/// Why a heap could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildFailure {
    /// The cap leaves no room for the heap itself and one segment.
    CapTooSmall {
        /// The cap in bytes.
        cap: usize,
        /// The least cap in bytes that would do.
        least: usize,
    },
    /// The backing refused the range for the heap itself.
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
    },
    /// A process has 126 instances at a time, and they are all there.
    NoNumberLeft,
}

impl Heap {
    /// Builds a heap instance: a heap of its own, with its own size classes, shards, cap, backing
    /// and statistics.
    ///
    /// Unless told otherwise it is named `heap`, has the global heap's classes, makes shards on
    /// demand, has no cap and takes pages from the operating system.
    pub fn builder() -> HeapBuilder<'static> {
        let settings = Settings {
            table: ClassTable::standard(),
            shards: Shards::OnDemand { most: MAX_SHARDS },
            cap: usize::MAX,
            decay: None,
            huge_pages: None,
            contention: None,
            retires: false,
            domain: None,
        };
        HeapBuilder { name: "heap", backing: OsPages, settings }
    }
}

impl<'a, B: Backing + 'static> HeapBuilder<'a, B> {
    /// Names the heap in statistics and messages. Names are not checked to be distinct; series of
    /// heaps with the same name cannot be told apart.
    pub fn name(self, name: &str) -> HeapBuilder<'_, B> {
        let Self { name: _, backing, settings } = self;
        HeapBuilder { name, backing, settings }
    }

    /// Sets the size classes (requirement D3).
    pub fn class_table(mut self, table: ClassTable) -> Self {
        self.settings.table = table;
        self
    }

    /// Makes exactly `count` shards, at once, and hands them to threads in turn (requirement D4).
    /// With none, or when all are leased, threads use the bucket tier: slower, correct, and counted as
    /// refused leases. At most 1,024; more means that.
    ///
    /// If the backing or the cap allows fewer, the heap works with those;
    /// [`Heap::missing_shards`] tells how many.
    pub fn shards(mut self, count: usize) -> Self {
        self.settings.shards = Shards::Fixed(count.min(MAX_SHARDS as usize) as u32);
        self
    }

    /// Makes a shard for every thread that asks when none is idle, up to `most` (at most 1,024; more
    /// means that). This is the default.
    pub fn shards_on_demand(mut self, most: usize) -> Self {
        self.settings.shards = Shards::OnDemand { most: most.min(MAX_SHARDS as usize) as u32 };
        self
    }

    /// Caps the bytes that the heap takes from its backing, everything included: blocks, free
    /// memory, and what the heap needs itself. The sum never exceeds the cap, however many threads
    /// allocate at once; an allocation that would need more fails.
    ///
    /// Memory for blocks of size classes is taken in segments of 4 MiB.
    pub fn cap(mut self, bytes: usize) -> Self {
        self.settings.cap = bytes;
        self
    }

    /// Sets where the heap's memory comes from.
    pub fn backing<C: Backing + 'static>(self, backing: C) -> HeapBuilder<'a, C> {
        let Self { name, backing: _, settings } = self;
        HeapBuilder { name, backing, settings }
    }

    /// Sets whether huge pages are asked for; see [`Heap::huge_pages`].
    pub fn huge_pages(mut self, policy: HugePages) -> Self {
        self.settings.huge_pages = Some(policy);
        self
    }

    /// Sets how long free pages stay populated; see [`Heap::set_decay`].
    pub fn decay(mut self, decay: Duration) -> Self {
        self.settings.decay = Some(decay);
        self
    }

    /// Retires every block that the heap is given back: it is freed when every guard of the heap's
    /// [domain](Heap::domain) that is held at that moment is gone (requirement D6). A reader that entered
    /// before never sees the memory reused, whoever frees it and on whatever thread, its owner included;
    /// the block that a resize leaves behind waits in the same way, and no pages are moved or cut off.
    ///
    /// Threads that free often [join](Heap::join_domain) the domain first. Others free under a lock.
    /// Frees allocate then, from the global allocator, and so such a heap must not serve as that.
    /// Somebody has to [scavenge](Heap::scavenge) or [collect](Heap::collect), or the last blocks wait
    /// until others fill their batch.
    pub fn retire_frees(mut self, retire: bool) -> Self {
        self.settings.retires = retire;
        self
    }

    /// Sets the heap's domain, for its limits or because other readers use the same guards; see
    /// [`Heap::domain`].
    pub fn domain(mut self, domain: Domain) -> Self {
        self.settings.domain = Some(domain);
        self
    }

    /// Sets the wait above which a lock counts as contended; see
    /// [`Heap::set_contention_threshold`].
    pub fn contention_threshold(mut self, wait: Duration) -> Self {
        self.settings.contention = Some(wait);
        self
    }

    /// Makes the heap.
    ///
    /// # Errors
    /// [`BuildFailure`] says why not; the backing comes back with it.
    pub fn build(self) -> Result<OwnedHeap<B>, BuildError<B>> {
        OwnedHeap::build(self)
    }
}

impl<B: Backing + 'static> fmt::Debug for HeapBuilder<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeapBuilder")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for BuildError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildError").field("failure", &self.failure).finish_non_exhaustive()
    }
}

impl<B> fmt::Display for BuildError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.fmt(f)
    }
}

impl<B> Error for BuildError<B> {}

impl fmt::Display for BuildFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CapTooSmall { cap, least } => {
                write!(f, "a cap of {cap} bytes is below the {least} that a heap needs")
            }
            Self::OutOfMemory { bytes } => {
                write!(f, "the backing refused the {bytes} bytes of the heap itself")
            }
            Self::NoNumberLeft => f.write_str("every heap number of the process is in use"),
        }
    }
}

impl Error for BuildFailure {}
