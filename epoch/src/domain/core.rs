//! What outlives every batch: the state of a domain apart from its collector.
//!
//! Deferred functions hold the core, and the collector holds them; so the core must not hold the
//! collector, or garbage that nobody collects would keep both alive (rule D2).

use std::sync::Arc;
use std::time::Instant;

use crossbeam_epoch as cb;

use super::config::Config;
use crate::eras::{Era, Eras};
use crate::grace::Periods;
use crate::ledger::Ledger;
use crate::registry::{Record, Registry};
use crate::stats::{GraceTimes, Tally};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::waiting::Waiters;

/// Steps in a row without progress after which collecting stops: an epoch takes one step each to
/// advance, a batch expires after two, and one more is for a participant that was on its way out.
const IDLE_STEPS: u32 = 4;

/// Steps after which collecting stops though more keeps coming.
const MAX_STEPS: u32 = if cfg!(flagstone_loom) { 8 } else { 4096 };

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) name: Arc<str>,
    /// Tells tokens and guards of different domains apart.
    pub(crate) id: u64,
    pub(crate) config: Config,
    pub(crate) registry: Registry,
    /// Counts of what was retired without a participant; in no registry.
    pub(crate) unregistered: Record,
    pub(crate) ledger: Ledger,
    pub(crate) eras: Eras,
    pub(crate) periods: Periods,
    pub(crate) waiters: Waiters,
    pub(crate) times: GraceTimes,
    pub(crate) shared: SharedCounters,
    /// True while a thread looks for stalled guards (rule P5).
    pub(crate) observing: AtomicBool,
    /// True while a barrier waits.
    pub(crate) barrier: AtomicBool,
    start: Instant,
}

/// Counters with many writers: one read-modify-write for each batch or rarer, never for each object.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct SharedCounters {
    pub(crate) batches: AtomicU64,
    /// The last number given to an open batch.
    pub(crate) batch_numbers: AtomicU64,
    pub(crate) reclaimed_blocks: AtomicU64,
    pub(crate) reclaimed_bytes: AtomicU64,
    pub(crate) reclaim_panics: AtomicU64,
    pub(crate) helps: AtomicU64,
    pub(crate) refusals: AtomicU64,
    pub(crate) stalls: AtomicU64,
}

impl Core {
    pub(crate) fn new(name: String, id: u64, config: Config) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            name: name.into(),
            id,
            ledger: Ledger::new(config.hard_limit),
            config,
            registry: Registry::new(),
            unregistered: Record::unclaimed(),
            eras: Eras::new(),
            periods: Periods::new(),
            waiters: Waiters::new(),
            times: GraceTimes::new(),
            shared: SharedCounters {
                batches: zero(),
                batch_numbers: zero(),
                reclaimed_blocks: zero(),
                reclaimed_bytes: zero(),
                reclaim_panics: zero(),
                helps: zero(),
                refusals: zero(),
                stalls: zero(),
            },
            observing: AtomicBool::new(false),
            barrier: AtomicBool::new(false),
            start: Instant::now(),
        }
    }

    /// A number for an open batch, never 0 and never given before.
    pub(crate) fn next_batch_number(&self) -> u64 {
        // Relaxed: only that each caller gets a number of its own matters.
        self.shared.batch_numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Nanoseconds since the domain was made; wraps after 584 years.
    pub(crate) fn now(&self) -> u64 {
        if cfg!(flagstone_loom) {
            // A model must do the same in every execution.
            return 0;
        }
        self.start.elapsed().as_nanos() as u64
    }

    /// Counts a batch whose objects are gone.
    pub(crate) fn reclaimed(&self, era: Era, blocks: u64, bytes: u64) {
        let shared = &self.shared;
        shared.reclaimed_bytes.fetch_add(bytes, Ordering::Relaxed);
        // Release: pairs with the acquire in `reclaimed_so_far`. The retires of these objects come
        // before their reclaim, so who reads this count first and the retired counts afterwards never
        // sees more reclaimed than retired.
        shared.reclaimed_blocks.fetch_add(blocks, Ordering::Release);
        self.ledger.release(bytes);
        // Last: a barrier that sees the era empty returns to a caller who may read the rest.
        self.eras.leave(era);
    }

    pub(crate) fn reclaimed_so_far(&self) -> Tally {
        // Acquire: pairs with the release in `reclaimed`. Blocks first, so that their bytes are in.
        let blocks = self.shared.reclaimed_blocks.load(Ordering::Acquire);
        Tally { blocks, bytes: self.shared.reclaimed_bytes.load(Ordering::Relaxed) }
    }

    #[cold]
    pub(crate) fn reclaim_panicked(&self) {
        self.shared.reclaim_panics.fetch_add(1, Ordering::Relaxed);
        tracing::error!(domain = &*self.name, "a reclaim function panicked; its object may leak");
    }

    /// Starts a grace period under `guard`, unless one is running. The caller flushes the guard.
    pub(crate) fn launch_period(self: &Arc<Self>, guard: &cb::Guard) {
        if let Some(period) = self.periods.try_launch() {
            self.times.start(self.now());
            let core = Arc::clone(self);
            // The closure owns what it captures, which is `Send`, so it may run anywhere.
            guard.defer(move || {
                core.times.record(core.now());
                core.waiters.complete(&core.periods, period);
            });
        }
    }

    /// The same, if there is a batch whose wait it would measure.
    pub(crate) fn launch_period_for_batches(self: &Arc<Self>, guard: &cb::Guard) {
        if self.eras.in_flight() > 0 {
            self.launch_period(guard);
        }
    }

    /// True when no batch is in flight and no period runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.eras.in_flight() == 0 && !self.periods.is_running()
    }

    /// Repeats `step`, which flushes a collector guard, while there is progress to be had. Returns
    /// what the domain has reclaimed since it had reclaimed `before`, other threads' work included.
    pub(crate) fn collect_since(&self, before: Tally, mut step: impl FnMut()) -> Tally {
        let progress = || (self.reclaimed_so_far().blocks, self.periods.completed());
        let (mut last, mut idle) = (progress(), 0);
        for _ in 0..MAX_STEPS {
            if self.is_idle() || idle == IDLE_STEPS {
                break;
            }
            step();
            let now = progress();
            idle = if now == last { idle + 1 } else { 0 };
            last = now;
        }
        let after = self.reclaimed_so_far();
        Tally {
            blocks: after.blocks - before.blocks,
            bytes: after.bytes.saturating_sub(before.bytes),
        }
    }

    /// Every record that retired objects are counted in.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.registry.iter().chain(std::iter::once(&self.unregistered))
    }

    /// Asks participants whose open batch is older than the age limit to hand it over.
    pub(crate) fn ask_for_old_batches(&self) -> usize {
        let limit = self.config.batch_age.as_nanos() as u64;
        let now = self.now();
        let old = self
            .registry
            .iter()
            .filter(|record| record.opened_at().is_some_and(|at| now.saturating_sub(at) >= limit));
        old.map(|record| record.ask()).count()
    }
}
