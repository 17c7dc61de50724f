//! A domain: one collector, the participants in it, and what is known about both.
//!
//! Owns the collector, its service handle, and the [`Core`] that batches point to. Fields drop in
//! that order of need: the handle gives its bag to the collector, the collector runs everything that
//! is still deferred, and those functions use the core (rule D1).

#[cfg(not(flagstone_loom))]
mod all;
mod config;
mod core;
mod service;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_epoch as cb;

pub(crate) use self::config::Config;
pub use self::config::{Builder, ConfigError};
pub(crate) use self::core::Core;
use self::service::Service;
pub(crate) use self::service::Want;
use crate::barrier::{self, BarrierError};
use crate::grace::{Grace, GraceToken};
use crate::memory::OutOfMemory;
use crate::participant::Participant;
use crate::stall::GuardReport;
use crate::stats::{Snapshot, Tally};
use crate::unregistered::Unregistered;
use crate::upkeep::Attached;
use crate::waiting::GraceWait;

/// Steps within which a token is over, if no guard keeps it: it may have to wait for the period that
/// runs and for the next, two or three epochs each.
pub(crate) const STEPS_TO_GRACE: u32 = 8;

/// A set of threads that free memory only when none of them can still read it.
///
/// A domain is a handle: clones are the same domain. It lives until its last clone and its last
/// [`Participant`] are gone; what is pending then is reclaimed at once.
///
/// Threads take part by [`register`](Self::register)ing, never by themselves. The functions here need
/// no participant: they are for scavengers, tests, and callers that cannot hold guards.
#[derive(Clone)]
pub struct Domain {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    service: Service,
    pub(crate) unregistered: Unregistered,
    collector: cb::Collector,
    pub(crate) attached: Attached,
    pub(crate) core: Arc<Core>,
}

/// What [`Domain::maintain`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Maintenance {
    /// Guards found stalled for the first time.
    pub stalls: usize,
    /// Participants asked to hand over a batch that is past its age limit.
    pub asked: usize,
    /// What the domain reclaimed meanwhile.
    pub reclaimed: Tally,
}

impl Domain {
    /// A domain with default settings.
    pub fn new() -> Self {
        Self::builder().build_default()
    }

    /// Settings for a domain.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn with(name: String, config: Config) -> Self {
        let collector = cb::Collector::new();
        let core = Arc::new(Core::new(name, next_id(), config));
        let inner = Inner {
            service: Service::new(collector.register()),
            unregistered: Unregistered::default(),
            collector,
            attached: Attached::default(),
            core,
        };
        let domain = Self { inner: Arc::new(inner) };
        #[cfg(not(flagstone_loom))]
        all::add(&domain.inner);
        domain
    }

    /// Every domain of the process that is alive, oldest first: for reports.
    ///
    /// The handles keep their domains alive. Should one be dropped last, what is pending in its domain
    /// is reclaimed there.
    #[cfg(not(flagstone_loom))]
    pub fn all() -> Vec<Domain> {
        all::get().into_iter().map(Domain::of).collect()
    }

    /// The name given to the builder.
    pub fn name(&self) -> &str {
        &self.inner.core.name
    }

    /// Registers the calling thread. Allocates about 4.5 KiB: register once per thread, not once per
    /// use. Without memory the process ends; [`try_register`](Self::try_register) refuses instead.
    pub fn register(&self) -> Participant {
        Participant::new(Arc::clone(&self.inner))
    }

    /// The same.
    ///
    /// # Errors
    /// [`OutOfMemory`] when there is no memory for a participant.
    pub fn try_register(&self) -> Result<Participant, OutOfMemory> {
        Participant::try_new(Arc::clone(&self.inner))
    }

    /// Pushes the domain one step on: starts a grace period if none runs, lets the epoch advance if
    /// it can, and reclaims what has expired, up to a bound. Returns the number of grace periods
    /// completed so far.
    pub fn advance(&self) -> u64 {
        self.inner.unregistered.complete(&self.inner.core);
        self.inner.step(Want::Period);
        self.inner.core.periods.completed()
    }

    /// Reclaims everything handed over that no guard keeps, and returns what the domain reclaimed
    /// meanwhile, other threads' work included.
    ///
    /// Open batches of participants are not reached: see [`maintain`](Self::maintain) and
    /// [`Participant::flush`]. Returns at once when another thread is at it.
    pub fn collect(&self) -> Tally {
        self.collect_since(self.inner.core.reclaimed_so_far())
    }

    fn collect_since(&self, before: Tally) -> Tally {
        let core = &self.inner.core;
        self.inner.unregistered.complete(core);
        core.collect_since(before, || {
            self.inner.step(Want::Reclaim);
        })
    }

    /// What a scavenger does from time to time: looks for stalled guards, asks for batches past their
    /// age limit, drives what tasks wait for, collects, and passes by what is
    /// [attached](Self::attach).
    pub fn maintain(&self) -> Maintenance {
        let stalls = self.check_stalls();
        let asked = self.inner.core.ask_for_old_batches();
        for _ in 0..STEPS_TO_GRACE {
            if !self.inner.core.waiters.any() || !self.inner.step(Want::Period) {
                break;
            }
        }
        let before = self.inner.core.reclaimed_so_far();
        self.inner.attached.for_each(|structure| structure.maintain());
        Maintenance { stalls, asked, reclaimed: self.collect_since(before) }
    }

    /// A token that is over once every guard held now is gone. Allocates nothing, waits for nothing.
    ///
    /// The period that it waits for starts when somebody next drives the domain, by polling or by
    /// retiring; guards taken in between may be waited for as well.
    pub fn start_grace(&self) -> GraceToken {
        let core = &self.inner.core;
        GraceToken { domain: core.id, period: core.periods.awaited() }
    }

    /// Asks whether `token` is over, and drives the domain towards it if it is not.
    ///
    /// While the caller itself holds a guard that it took before the token, the answer stays
    /// [`Grace::Pending`].
    pub fn poll_grace(&self, token: GraceToken) -> Grace {
        let core = &self.inner.core;
        if token.domain != core.id {
            return Grace::Foreign;
        }
        let is_over = || core.periods.completed() >= token.period;
        for _ in 0..STEPS_TO_GRACE {
            if is_over() {
                return Grace::Over;
            }
            if !self.inner.step(Want::Period) {
                break;
            }
        }
        if is_over() { Grace::Over } else { Grace::Pending }
    }

    /// Waits for `token` in a task: a future that gives [`Grace::Over`], or [`Grace::Foreign`] at once.
    ///
    /// It needs no runtime, but somebody has to drive the domain while guards keep the token open:
    /// their participants do when they leave, and so does [`maintain`](Self::maintain).
    ///
    /// ```
    /// # use std::task::{Context, Poll, Waker};
    /// # fn run<T>(future: impl Future<Output = T>) -> T {
    /// #     let mut future = std::pin::pin!(future);
    /// #     loop {
    /// #         if let Poll::Ready(out) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
    /// #             return out;
    /// #         }
    /// #     }
    /// # }
    /// use flagstone_epoch::{Domain, Grace};
    ///
    /// let domain = Domain::new();
    /// let token = domain.start_grace();
    /// assert_eq!(run(domain.wait_grace(token)), Grace::Over);
    /// ```
    pub fn wait_grace(&self, token: GraceToken) -> GraceWait {
        GraceWait::new(self.clone(), token)
    }

    /// Waits until everything that was retired in this domain before the call has been reclaimed:
    /// batches handed over, and what is in other participants' open batches, which they are asked to
    /// hand over at their next leave or retire.
    ///
    /// The caller must hold no guard of this domain, or it waits for itself until the time is up;
    /// [`Participant::barrier`] checks that, and hands over the caller's own batch.
    ///
    /// # Errors
    /// [`BarrierError::TimedOut`] says what kept the barrier waiting, after `timeout`.
    pub fn barrier(&self, timeout: Duration) -> Result<(), BarrierError> {
        barrier::wait(&self.inner, timeout)
    }

    /// Looks at every held guard, and reports each that has stalled, once: a `tracing` warning, the
    /// builder's callback, the counter. Returns how many it reported; 0 when another thread is at it.
    pub fn check_stalls(&self) -> usize {
        self.inner.core.check_stalls()
    }

    /// The guard that has been held longest, if any is held.
    pub fn oldest_guard(&self) -> Option<GuardReport> {
        self.inner.core.observe();
        self.inner.core.oldest_guard()
    }

    /// Bytes retired and not reclaimed, with what open batches have set aside: the figure that the
    /// watermark and the hard limit are compared with. One load.
    pub fn reserved_bytes(&self) -> u64 {
        self.inner.core.ledger.reserved()
    }

    /// Everything that the domain knows about itself. Waits for nobody.
    pub fn snapshot(&self) -> Snapshot {
        self.inner.core.observe();
        Snapshot::of(&self.inner.core)
    }

    pub(crate) fn of(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

impl Inner {
    pub(crate) fn register(&self) -> cb::LocalHandle {
        self.collector.register()
    }

    /// One step through the service handle; false when it was busy.
    pub(crate) fn step(&self, want: Want) -> bool {
        self.service.step(&self.core, &self.unregistered, want)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        #[cfg(not(flagstone_loom))]
        all::forget(self);
        // To the collector with the last of it; its end runs everything (rule D1).
        self.unregistered.complete(&self.core);
        self.step(Want::Reclaim);
        // For what is left there was no memory.
        while let Some(batch) = self.unregistered.take_rest(&self.core) {
            // SAFETY: rule R1: with the last participant the last guard is gone.
            unsafe { batch.reclaim() };
        }
    }
}

impl Default for Domain {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Domain {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Domain {}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain").field("core", &self.inner.core).finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("core", &self.core).finish_non_exhaustive()
    }
}

/// Numbers domains; process-wide, outside any model.
fn next_id() -> u64 {
    static NEXT: std::sync::Mutex<u64> = std::sync::Mutex::new(0);
    let mut next = NEXT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    *next += 1;
    *next
}
