//! One thread's part in a domain: its guards and its open batch.
//!
//! Owns the crossbeam handle, the open batch, and the right to write one [`Record`]. All cells here
//! are touched by one thread; but any call into crossbeam may run reclaim functions, which may come
//! back through this very participant. So state is put in order before each such call and read anew
//! after it (rule R5), and a participant does not drive the collector from inside a reclaim function
//! (rule R6).
//!
//! Guards cost what crossbeam's cost and next to nothing else: the outermost one writes a word in the
//! record when it begins and when it ends; one inside another counts a depth. No clock is read, no table
//! kept; who wants to know how old a guard is looks twice (rule P5). ADR 12 has the measurements.

use std::cell::Cell;
use std::fmt;
use std::mem::{self, ManuallyDrop};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_epoch as cb;

use crate::barrier::{self, BarrierError};
use crate::batch::open::OpenBatch;
use crate::batch::sealed::SealedBatch;
use crate::domain::{Core, Domain, Inner, STEPS_TO_GRACE, Want};
use crate::guard::Guard;
use crate::guard_value::GuardValue;
use crate::held;
use crate::memory::{self, BAG, HANDLE, OutOfMemory, Reserve};
use crate::reclaiming;
use crate::registry::{self, Record, Stay};
use crate::stats::Tally;
use crate::sync::{Ordering, weakened};
use crate::thread_name::with_thread_name;

/// Times that one hand-over pushes on when pending bytes are above the watermark.
const HELP_STEPS: u32 = 4;

/// Batches that wait in the handle's bag while there is no memory for another bag. A bag holds 64
/// functions; the rest is for what the collector defers there by itself.
const MOST_DEFERRED: u8 = if cfg!(miri) { 1 } else { 16 };

/// A thread's registration in a [`Domain`]: it takes guards and retires through this.
///
/// It belongs to the thread that registered it: neither `Send` nor `Sync`. Dropping it hands over what
/// it has retired; nothing is lost, and other participants reclaim it.
///
/// A worker that goes to sleep calls [`park`](Self::park) first, so that its open batch does not sleep
/// with it.
pub struct Participant {
    /// Guards and enters held besides one; whether there is that one is in the record.
    more: Cell<usize>,
    /// How many enters are held, not counting one that is outermost.
    raw: Cell<usize>,
    /// True when something deferred lies in the handle's own bag, where nobody else can run it. The
    /// record asks for the batch then as well, so that leaving looks at one flag.
    owed: Cell<bool>,
    /// Deferred functions in the handle's bag, those that the collector puts there left out.
    deferred: Cell<u8>,
    open: OpenBatch,
    record: Arc<Record>,
    handle: ManuallyDrop<cb::LocalHandle>,
    /// For the drop of the handle.
    reserve: Cell<Option<Reserve>>,
    /// The value of every guard of `handle`, see [`unpin`](Self::unpin).
    pinned: GuardValue,
    inner: Arc<Inner>,
}

/// [`Participant::leave`] without an [`enter`](Participant::enter) to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotEntered;

impl NotEntered {
    /// For layers above that keep participants themselves.
    #[allow(clippy::new_without_default, reason = "an error is no default")]
    pub fn new() -> Self {
        Self
    }
}

impl fmt::Display for NotEntered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("leave without a matching enter")
    }
}

impl std::error::Error for NotEntered {}

impl Participant {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        with_thread_name(|name| Self::named(inner, name))
    }

    pub(crate) fn try_new(inner: Arc<Inner>) -> Result<Self, OutOfMemory> {
        with_thread_name(|name| {
            let [record, node, name_copy] = registry::layouts(name);
            if !memory::at_hand([HANDLE, BAG, record, node, name_copy]) {
                return Err(OutOfMemory);
            }
            Ok(Self::named(inner, name))
        })
    }

    fn named(inner: Arc<Inner>, thread: &str) -> Self {
        let record = inner.core.registry.claim(thread);
        let open = OpenBatch::default();
        open.renumber(inner.core.next_batch_number());
        let handle = inner.register();
        let pinned = GuardValue::of(&handle);
        Self {
            more: Cell::new(0),
            raw: Cell::new(0),
            owed: Cell::new(false),
            deferred: Cell::new(0),
            open,
            record,
            handle: ManuallyDrop::new(handle),
            reserve: Cell::new(Some(Reserve::new())),
            pinned,
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
        self.acquire(Location::caller(), false);
        Guard::new(self)
    }

    /// Takes a guard that only [`leave`](Self::leave) ends: for callers that cannot hold a value, such
    /// as C.
    #[inline]
    #[track_caller]
    pub fn enter(&self) {
        if !self.acquire(Location::caller(), true) {
            self.raw.set(self.raw.get() + 1);
        }
    }

    /// Ends the latest [`enter`](Self::enter).
    ///
    /// # Errors
    /// [`NotEntered`] if there is none; [`Guard`]s are not touched.
    #[inline]
    pub fn leave(&self) -> Result<(), NotEntered> {
        let stay = self.record.stay();
        if stay.is_raw() && self.more.get() == 0 {
            self.end(stay);
            return Ok(());
        }
        self.leave_one_of_several()
    }

    fn leave_one_of_several(&self) -> Result<(), NotEntered> {
        let raw = self.raw.get();
        if raw > 0 {
            self.raw.set(raw - 1);
        } else if self.record.stay().is_raw() {
            self.record.no_longer_raw();
        } else {
            return Err(NotEntered);
        }
        self.release();
        Ok(())
    }

    /// True while this participant holds a guard or is entered.
    #[inline]
    pub fn is_pinned(&self) -> bool {
        self.record.stay().is_inside()
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
    /// Structures that are [attached](Domain::attach) to the domain are told.
    ///
    /// A guard held across sleep keeps all retired memory of the domain; this does not end it.
    pub fn park(&self) {
        self.inner.attached.for_each(|structure| structure.park(self));
        self.flush();
    }

    /// Hands the open batch over and reclaims everything of the domain that no guard keeps. Returns
    /// what the domain reclaimed meanwhile, other threads' work included.
    ///
    /// Under a guard of its own it reclaims what had expired before. From a reclaim function it
    /// reclaims nothing: that is going on already.
    pub fn collect(&self) -> Tally {
        // First: the flush reclaims a part already.
        let before = self.core().reclaimed_so_far();
        self.flush();
        if self.is_reclaiming() {
            return Tally::default();
        }
        // What threads without a participant have retired goes through the domain's own handle.
        self.inner.unregistered.complete(self.core());
        self.inner.step(Want::Reclaim);
        self.core().collect_since(before, || self.push())
    }

    /// Pushes the domain one step on, like [`Domain::advance`].
    pub fn advance(&self) -> u64 {
        if !self.is_reclaiming() {
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
        if self.is_reclaiming() {
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

    /// True if nothing but participants holds the domain any more, as far as can be told while others
    /// come and go. For whoever keeps participants for threads: what this says yes to may be dropped.
    pub fn is_orphaned(&self) -> bool {
        let participants = self.core().registry.iter().filter(|record| record.is_claimed()).count();
        Arc::strong_count(&self.inner) <= participants
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

    // --- guards ---

    /// Takes a guard or, if `raw`, an enter. Returns whether it is the outermost.
    #[inline(always)]
    fn acquire(&self, place: &'static Location<'static>, raw: bool) -> bool {
        let record = &*self.record;
        let stay = record.stay();
        // Asking the collector's handle first spares the collector's pin the same question.
        if self.handle.is_pinned() && stay.is_inside() {
            self.more.set(self.more.get() + 1);
            return false;
        }
        // May run reclaim functions.
        let guard = self.handle.pin();
        // What was known before the pin is compared and not read anew: no load stands between the
        // pin's read-modify-write, which holds loads back, and the word that is written next.
        if record.stay() != stay {
            return self.acquired_after_reclaim(guard, place, raw);
        }
        mem::forget(guard);
        held::entered(place);
        if record.entered_from(stay, place, raw) {
            self.tick();
        }
        true
    }

    /// Rule R5: a reclaim function that ran in the collector's pin has used this participant, and may
    /// have entered and not left.
    #[cold]
    #[inline(never)]
    fn acquired_after_reclaim(
        &self,
        guard: cb::Guard,
        place: &'static Location<'static>,
        raw: bool,
    ) -> bool {
        if self.is_pinned() {
            drop(guard);
            self.more.set(self.more.get() + 1);
            return false;
        }
        mem::forget(guard);
        held::entered(place);
        if self.record.entered(place, raw) {
            self.tick();
        }
        true
    }

    /// Ends one guard or enter.
    #[inline]
    pub(crate) fn release(&self) {
        let more = self.more.get();
        if more > 0 {
            self.more.set(more - 1);
            return;
        }
        self.end(self.record.stay());
    }

    /// Ends the last guard or enter.
    #[inline]
    fn end(&self, stay: Stay) {
        held::left();
        self.record.left_from(stay);
        self.unpin();
        if self.record.is_asked() {
            self.answer();
        }
    }

    /// Ends the collector's guard that [`acquire`](Self::acquire) forgot.
    ///
    /// It is not kept anywhere: writing it down and reading it back would cost a guard more than all
    /// else that we add to it.
    #[inline]
    fn unpin(&self) {
        // SAFETY: `acquire` forgot one guard since the last call: it takes one where the record says
        // outside and enters it there, and all who call this have just left.
        drop(unsafe { self.pinned.recall() });
    }

    /// Ends the guard and takes a new one, if it is the only one. Returns whether it was.
    pub(crate) fn repin(&self, place: &'static Location<'static>) -> bool {
        if self.more.get() > 0 {
            return false;
        }
        // SAFETY: it is the guard that `acquire` forgot, and it is forgotten again.
        let mut guard = ManuallyDrop::new(unsafe { self.pinned.recall() });
        // Runs no reclaim function.
        guard.repin();
        let raw = self.record.stay().is_raw();
        self.record.left();
        if self.record.entered(place, raw) {
            self.record.note_pins();
        }
        true
    }

    /// True while reclaim functions of the domain run further up this stack.
    fn is_reclaiming(&self) -> bool {
        reclaiming::is_going_on(self.core().id)
    }

    // --- handing over ---

    /// Notes how many guards there were, and looks at the age of the open batch.
    #[cold]
    #[inline(never)]
    fn tick(&self) {
        self.record.note_pins();
        let core = self.core();
        let limit = core.config.batch_age.as_nanos() as u64;
        if self.record.opened_at().is_some_and(|at| core.now().saturating_sub(at) >= limit) {
            self.hand_over();
        }
    }

    /// Somebody asked for the open batch, or something is owed.
    #[cold]
    #[inline(never)]
    pub(crate) fn answer(&self) {
        if self.open.is_empty() {
            self.record.answer_nothing();
        }
        self.flush();
        if self.core().waiters.any() {
            self.drive();
        }
    }

    /// Tasks wait for a grace period that this participant may have kept open.
    fn drive(&self) {
        for _ in 0..STEPS_TO_GRACE {
            if !self.core().waiters.any() || self.is_pinned() || self.is_reclaiming() {
                return;
            }
            self.push_with_period();
        }
    }

    /// Hands the open batch to the collector, if there is one, and helps when too much is pending.
    #[cold]
    pub(crate) fn hand_over(&self) {
        if self.is_short() && !self.open.is_at_most(&self.record) {
            return self.wait_for_memory();
        }
        self.defer_batch();
    }

    /// Defers the open batch, if there is one.
    fn defer_batch(&self) {
        let Some(taken) = self.open.take(&self.record) else { return };
        let core = self.core();
        self.open.renumber(core.next_batch_number());
        core.ledger.release(taken.unused);
        let era = core.eras.enter();
        // Rule B3: after the batch has entered its era.
        self.record.handed(u64::from(taken.blocks), taken.bytes);
        core.shared.batches.fetch_add(1, Ordering::Relaxed);
        let batch = SealedBatch::new(core, taken, era);
        let guard = self.handle.pin();
        // SAFETY:
        // 1. Rule R1: no reader that enters from now on can find the objects, and the collector waits
        //    for all that are inside.
        // 2. Rule R3: the objects may be reclaimed on any thread; what else the closure holds is
        //    `Send`.
        unsafe {
            if weakened("batch_without_grace") {
                batch.reclaim();
            } else if weakened("batch_not_deferred") {
                std::mem::forget(batch);
            } else {
                guard.defer_unchecked(move || batch.reclaim());
            }
        }
        self.deferred.set(self.deferred.get().saturating_add(1));
        self.push_under(&guard);
        drop(guard);
        if core.ledger.reserved() > core.config.watermark && !self.is_reclaiming() {
            self.help();
        }
    }

    /// Makes what was deferred here visible to all, and collects a little.
    fn push(&self) {
        let guard = self.handle.pin();
        self.push_under(&guard);
    }

    /// The same, and a grace period starts though no batch asks for one.
    fn push_with_period(&self) {
        let guard = self.handle.pin();
        if memory::at_hand([BAG]) {
            self.core().launch_period(&guard);
        }
        self.push_under(&guard);
    }

    fn push_under(&self, guard: &cb::Guard) {
        if self.is_reclaiming() {
            // Rule R6. If it is a push that goes on further up this stack, it sees the debt when it is
            // done; if it is a pin or another handle's step, the next leave or retire does.
            self.owed.set(true);
            self.record.ask();
            return;
        }
        if !memory::at_hand([BAG]) {
            return self.wait_for_memory();
        }
        self.core().launch_period_for_batches(guard);
        // Reclaim functions that run in the flush may hand over again. What they defer cannot expire
        // while this guard is held, so the loop ends with what had expired before.
        self.owed.set(true);
        while self.owed.take() {
            if !memory::at_hand([BAG]) {
                return self.wait_for_memory();
            }
            guard.flush();
            self.deferred.set(0);
        }
    }

    /// True if the handle's bag may be full soon, and there is no memory for another.
    pub(crate) fn is_short(&self) -> bool {
        self.deferred.get() >= MOST_DEFERRED && !memory::at_hand([BAG])
    }

    /// What is deferred stays in the handle's bag, and what is retired in the open batch. The next leave
    /// or retire tries again.
    #[cold]
    fn wait_for_memory(&self) {
        self.owed.set(true);
        self.record.ask();
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

impl AsRef<Participant> for Participant {
    fn as_ref(&self) -> &Participant {
        self
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        if self.is_pinned() {
            // A guard that was forgotten, or an enter without a leave: nothing borrowed from it is
            // alive.
            held::left();
            self.record.left();
            self.unpin();
        }
        self.flush();
        if !self.open.is_empty() {
            // There is no memory to flush, but room in the bag for one more.
            self.defer_batch();
        }
        drop(self.reserve.take());
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
            .field("is_pinned", &self.is_pinned())
            .field("open_blocks", &self.open.blocks(&self.record))
            .finish_non_exhaustive()
    }
}
