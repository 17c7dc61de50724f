//! One thread's part in a domain: its guards and its open batch.
//!
//! Owns the crossbeam handle, the open batch, and the right to write one [`Record`]. All cells here
//! are touched by one thread; but any call into crossbeam may run reclaim functions, which may come
//! back through this very participant. So state is put in order before each such call and read anew
//! after it (rule R5), and `collecting` keeps the nesting at one level (rule R6).

use std::cell::Cell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_epoch as cb;

use crate::barrier::{self, BarrierError};
use crate::batch::open::OpenBatch;
use crate::batch::sealed::SealedBatch;
use crate::domain::{Core, Domain, Inner};
use crate::guard::Guard;
use crate::registry::Record;
use crate::stats::Tally;
use crate::sync::Ordering;

/// Outermost guards between two looks at the age of the open batch.
const GUARDS_PER_TICK: u64 = 64;

/// Times that one hand-over pushes on when pending bytes are above the watermark.
const HELP_STEPS: u32 = 4;

/// A thread's registration in a [`Domain`]: it takes guards and retires through this.
///
/// It belongs to the thread that registered it: neither `Send` nor `Sync`. Dropping it hands over what
/// it has retired; nothing is lost, and other participants reclaim it.
///
/// A worker that goes to sleep calls [`park`](Self::park) first, so that its open batch does not sleep
/// with it.
pub struct Participant {
    /// Guards and raw enters held.
    depth: Cell<usize>,
    /// How many of them are raw enters.
    raw: Cell<usize>,
    /// The collector's guard, while `depth` is not 0.
    pinned: Cell<Option<cb::Guard>>,
    /// True while the collector may be running reclaim functions on this stack.
    collecting: Cell<bool>,
    /// True when something deferred lies in the handle's own bag, where nobody else can run it.
    owed: Cell<bool>,
    open: OpenBatch,
    /// From the domain's configuration; here because every retire compares with it.
    batch_blocks: u32,
    record: Arc<Record>,
    handle: ManuallyDrop<cb::LocalHandle>,
    inner: Arc<Inner>,
}

/// [`Participant::leave`] without an [`enter`](Participant::enter) to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotEntered;

impl fmt::Display for NotEntered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("leave without a matching enter")
    }
}

impl std::error::Error for NotEntered {}

impl Participant {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        let thread = std::thread::current();
        let record = match thread.name() {
            Some(name) => inner.core.registry.claim(name),
            None => inner.core.registry.claim(&format!("{:?}", thread.id())),
        };
        let open = OpenBatch::default();
        open.renumber(inner.core.next_batch_number());
        Self {
            depth: Cell::new(0),
            raw: Cell::new(0),
            pinned: Cell::new(None),
            collecting: Cell::new(false),
            owed: Cell::new(false),
            open,
            batch_blocks: inner.core.config.batch_blocks,
            record,
            handle: ManuallyDrop::new(inner.register()),
            inner,
        }
    }

    /// Takes a guard: what this thread reads under it is not reclaimed before the guard is dropped.
    ///
    /// A guard inside a guard costs an increment. Every 64 outermost guards this looks at the age of
    /// the open batch, and now and then the collector reclaims what has expired.
    #[inline]
    #[track_caller]
    pub fn pin(&self) -> Guard<'_> {
        self.acquire(Location::caller());
        Guard::new(self)
    }

    /// Takes a guard that only [`leave`](Self::leave) ends: for callers that cannot hold a value, such
    /// as C.
    #[inline]
    #[track_caller]
    pub fn enter(&self) {
        self.acquire(Location::caller());
        self.raw.set(self.raw.get() + 1);
    }

    /// Ends the latest [`enter`](Self::enter).
    ///
    /// # Errors
    /// [`NotEntered`] if there is none; [`Guard`]s are not touched.
    #[inline]
    pub fn leave(&self) -> Result<(), NotEntered> {
        let raw = self.raw.get().checked_sub(1).ok_or(NotEntered)?;
        self.raw.set(raw);
        self.release();
        Ok(())
    }

    /// True while this participant holds a guard or is entered.
    #[inline]
    pub fn is_pinned(&self) -> bool {
        self.depth.get() > 0
    }

    /// Hands the open batch over, so that any participant can reclaim it once its grace period ends.
    pub fn flush(&self) {
        self.hand_over();
        if self.owed.get() {
            self.push();
        }
    }

    /// The thread is about to sleep: hands over what it has, so that its memory does not wait for it.
    /// Costs next to nothing when there is nothing to hand over.
    ///
    /// A guard held across sleep keeps all retired memory of the domain; this does not end it.
    pub fn park(&self) {
        self.flush();
    }

    /// Hands the open batch over and reclaims everything of the domain that no guard keeps. Returns
    /// what the domain reclaimed meanwhile, other threads' work included.
    ///
    /// Under a guard of its own it reclaims what had expired before. From a reclaim function it
    /// reclaims nothing: that is going on already.
    pub fn collect(&self) -> Tally {
        self.flush();
        if self.collecting.get() {
            return Tally::default();
        }
        self.inner.core.collect_with(|| self.push())
    }

    /// Pushes the domain one step on, like [`Domain::advance`].
    pub fn advance(&self) -> u64 {
        if !self.collecting.get() {
            self.push_with_period();
        }
        self.inner.core.periods.completed()
    }

    /// Hands the open batch over and waits as [`Domain::barrier`] does.
    ///
    /// # Errors
    /// [`BarrierError::GuardHeld`] and [`BarrierError::InReclaim`] at once, where it would wait for
    /// itself; [`BarrierError::TimedOut`] after `timeout`.
    pub fn barrier(&self, timeout: Duration) -> Result<(), BarrierError> {
        if self.collecting.get() {
            return Err(BarrierError::InReclaim);
        }
        if self.is_pinned() {
            return Err(BarrierError::GuardHeld);
        }
        self.flush();
        barrier::wait(&self.inner, timeout)
    }

    /// The domain that this participant is registered in.
    pub fn domain(&self) -> Domain {
        Domain::of(Arc::clone(&self.inner))
    }

    /// True if this participant is registered in `domain`: a structure that hands out references under
    /// a guard checks that the guard is of its own domain.
    #[inline]
    pub fn is_in(&self, domain: &Domain) -> bool {
        Arc::ptr_eq(&self.inner, domain.inner())
    }

    /// The participant's number in its domain: the lowest that was free when it registered.
    ///
    /// No two participants of a domain have the same number at the same time, and what was done
    /// before one was dropped happens before what the next one of that number does. So state that is
    /// kept per number belongs to one thread at a time, without a lock.
    #[inline]
    pub fn number(&self) -> usize {
        self.record.number()
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.inner.core
    }

    pub(crate) fn open(&self) -> &OpenBatch {
        &self.open
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    pub(crate) fn batch_blocks(&self) -> u32 {
        self.batch_blocks
    }

    // --- guards ---

    #[inline]
    fn acquire(&self, place: &'static Location<'static>) {
        match self.depth.get() {
            0 => self.acquire_outermost(place),
            depth => self.depth.set(depth + 1),
        }
    }

    #[inline]
    fn acquire_outermost(&self, place: &'static Location<'static>) {
        let guard = self.collector_guard();
        // Read anew: rule R5.
        let depth = self.depth.get();
        self.depth.set(depth + 1);
        if depth != 0 {
            // A reclaim function that ran just now entered and did not leave: we are inside already.
            return;
        }
        let before = self.pinned.replace(Some(guard));
        debug_assert!(before.is_none(), "pinned at depth 0");
        let pins = self.record.entered(place);
        if pins.is_multiple_of(GUARDS_PER_TICK) {
            self.tick();
        }
    }

    /// Ends one guard or enter.
    #[inline]
    pub(crate) fn release(&self) {
        let depth = self.depth.get() - 1;
        self.depth.set(depth);
        if depth == 0 {
            self.record.left();
            drop(self.pinned.take());
            if self.record.is_asked() || self.owed.get() {
                self.answer();
            }
        }
    }

    /// Ends the guard and takes a new one, if it is the only one. Returns whether it was.
    pub(crate) fn repin(&self, place: &'static Location<'static>) -> bool {
        if self.depth.get() != 1 {
            return false;
        }
        if let Some(mut guard) = self.pinned.take() {
            // Runs no reclaim function.
            guard.repin();
            self.pinned.set(Some(guard));
        }
        self.record.left();
        self.record.entered(place);
        true
    }

    /// A guard of the collector, nested or not. Taking it may run reclaim functions.
    #[inline]
    fn collector_guard(&self) -> cb::Guard {
        let before = self.collecting.replace(true);
        let guard = self.handle.pin();
        self.collecting.set(before);
        guard
    }

    // --- handing over ---

    /// Looks at the age of the open batch.
    #[cold]
    fn tick(&self) {
        let core = self.core();
        let limit = core.config.batch_age.as_nanos() as u64;
        if self.record.opened_at().is_some_and(|at| core.now().saturating_sub(at) >= limit) {
            self.hand_over();
        }
    }

    /// Somebody asked for the open batch, or something is owed.
    #[cold]
    pub(crate) fn answer(&self) {
        if self.open.is_empty() {
            self.record.answer_nothing();
        }
        self.flush();
    }

    /// Hands the open batch to the collector, if there is one, and helps when too much is pending.
    #[cold]
    pub(crate) fn hand_over(&self) {
        let Some(taken) = self.open.take() else { return };
        let core = self.core();
        self.open.renumber(core.next_batch_number());
        core.ledger.release(taken.unused);
        let era = core.eras.enter();
        // Rule B3: after the batch has entered its era.
        self.record.handed(u64::from(taken.blocks), taken.bytes);
        core.shared.batches.fetch_add(1, Ordering::Relaxed);
        let batch = SealedBatch::new(core, taken, era);
        let guard = self.collector_guard();
        // SAFETY:
        // 1. Rule R1: no reader that enters from now on can find the objects, and the collector waits
        //    for all that are inside.
        // 2. Rule R3: the objects may be reclaimed on any thread; what else the closure holds is
        //    `Send`.
        unsafe {
            if cfg!(flagstone_weaken = "batch_without_grace") {
                batch.reclaim();
            } else {
                guard.defer_unchecked(move || batch.reclaim());
            }
        }
        self.push_under(&guard);
        drop(guard);
        if core.ledger.reserved() > core.config.watermark && !self.collecting.get() {
            self.help();
        }
    }

    /// Makes what was deferred here visible to all, and collects a little.
    fn push(&self) {
        let guard = self.collector_guard();
        self.push_under(&guard);
    }

    /// The same, and a grace period starts though no batch asks for one.
    fn push_with_period(&self) {
        let guard = self.collector_guard();
        self.core().launch_period(&guard);
        self.push_under(&guard);
    }

    fn push_under(&self, guard: &cb::Guard) {
        if self.collecting.get() {
            // Rule R6: further up this stack a push is going on. It sees the debt when it is done.
            self.owed.set(true);
            return;
        }
        self.core().launch_period_for_batches(guard);
        // Reclaim functions that run in the flush may hand over again. What they defer cannot expire
        // while this guard is held, so the loop ends with what had expired before.
        self.owed.set(true);
        while self.owed.take() {
            self.collecting.set(true);
            guard.flush();
            self.collecting.set(false);
        }
    }

    /// More is pending than the watermark: this thread, which adds to it, collects.
    #[cold]
    fn help(&self) {
        let core = self.core();
        core.shared.helps.fetch_add(1, Ordering::Relaxed);
        // Under a guard of our own the epoch moves once at most; one push has done what it can.
        let steps = if self.is_pinned() { 0 } else { HELP_STEPS };
        for _ in 0..steps {
            if core.ledger.reserved() <= core.config.watermark {
                return;
            }
            self.push();
        }
        if core.ledger.reserved() > core.config.watermark {
            core.check_stalls();
        }
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        // A guard that was forgotten, or an enter without a leave: nothing borrowed from it is alive.
        if self.depth.replace(0) > 0 {
            self.record.left();
            drop(self.pinned.take());
        }
        self.flush();
        // SAFETY: dropped once, here; nothing uses the handle afterwards. It pushes its bag to the
        // collector, which `inner` keeps alive (rule D1).
        unsafe { ManuallyDrop::drop(&mut self.handle) };
        self.record.release();
    }
}

impl fmt::Debug for Participant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Participant")
            .field("domain", &self.inner.core.name)
            .field("number", &self.record.number())
            .field("depth", &self.depth.get())
            .field("open_blocks", &self.open.blocks())
            .finish_non_exhaustive()
    }
}
