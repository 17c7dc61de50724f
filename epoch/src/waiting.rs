//! Waiting for a grace period in a task.
//!
//! Owns the wakers of those who wait, under a lock. Protocol (rule G4): a waiter leaves its waker and
//! looks at the periods once more before it goes to sleep; whoever completes a period marks it complete
//! before it takes the wakers out. The lock orders the two, so either the completer finds the waker or
//! the waiter finds the period complete. Wakers are called after the lock is left.
//!
//! Who drives the domain while all wait? A waiter drives as it polls. If guards keep the period open it
//! asks their participants, as a barrier does, and these drive when they leave. A participant that left
//! just before it could see the request is found by a second poll, which the first one asks for. Beyond
//! that, [`Domain::maintain`] drives, and so does all retiring.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::domain::{Core, Domain};
use crate::grace::{Grace, GraceToken, Periods};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, weakened};

/// The wakers of a domain.
#[derive(Debug)]
pub struct Waiters {
    list: Mutex<List>,
    /// How many wait. A hint for those who could drive.
    count: AtomicU64,
}

#[derive(Debug, Default)]
struct List {
    waiting: Vec<Waiter>,
    /// Tickets given out.
    tickets: u64,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    period: u64,
    waker: Waker,
}

impl Waiters {
    /// Nobody waits.
    pub fn new() -> Self {
        Self { list: Mutex::new(List::default()), count: AtomicU64::new(0) }
    }

    /// True if somebody waits.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        // Relaxed: a hint; who misses it is made up for by the second poll or by `maintain`.
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Leaves `waker` to be woken when `period` is complete, in place of the one that was left with
    /// `ticket`. Returns whether the period is complete: then nobody may ever wake it.
    #[must_use]
    pub fn wait(
        &self,
        periods: &Periods,
        period: u64,
        ticket: &mut Option<u64>,
        waker: &Waker,
    ) -> bool {
        self.leave_waker(period, ticket, waker);
        // After the lock. If the completer took the wakers out before ours was there, its mark comes
        // before its lock, and that before ours: we see it. If it takes them out later, it finds ours.
        !weakened("waiter_no_recheck") && periods.completed() >= period
    }

    fn leave_waker(&self, period: u64, ticket: &mut Option<u64>, waker: &Waker) {
        let mut list = self.lock();
        let known = list.waiting.iter_mut().find(|waiter| Some(waiter.ticket) == *ticket);
        if let Some(waiter) = known {
            waiter.waker.clone_from(waker);
            return;
        }
        list.tickets += 1;
        let new = list.tickets;
        list.waiting.push(Waiter { ticket: new, period, waker: waker.clone() });
        self.count.store(list.waiting.len() as u64, Ordering::Relaxed);
        *ticket = Some(new);
    }

    /// Forgets a waker.
    fn forget(&self, ticket: u64) {
        let mut list = self.lock();
        let found = list.waiting.iter().position(|waiter| waiter.ticket == ticket);
        let waiter = found.map(|at| list.waiting.swap_remove(at));
        self.count.store(list.waiting.len() as u64, Ordering::Relaxed);
        drop(list);
        // A waker's drop is other people's code.
        drop(waiter);
    }

    /// Marks `period` complete, and wakes those who wait for it or for one before it.
    pub fn complete(&self, periods: &Periods, period: u64) {
        periods.complete(period);
        let mut list = self.lock();
        let due: Vec<Waiter> =
            list.waiting.extract_if(.., |waiter| waiter.period <= period).collect();
        self.count.store(list.waiting.len() as u64, Ordering::Relaxed);
        drop(list);
        for waiter in due {
            // It runs inside the collector, which a panic must not enter.
            if catch_unwind(AssertUnwindSafe(|| waiter.waker.wake())).is_err() {
                tracing::error!("the waker of a task that waits for a grace period panicked");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Core {
    /// Asks every participant that holds a guard to drive the domain when it leaves.
    fn ask_those_inside(&self) {
        for record in self.registry.iter().filter(|record| record.held().is_some()) {
            record.ask();
        }
    }
}

/// Waits until a [`GraceToken`] is over; made by [`Domain::wait_grace`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct GraceWait {
    domain: Domain,
    token: GraceToken,
    ticket: Option<u64>,
    polled_again: bool,
}

impl GraceWait {
    pub(crate) fn new(domain: Domain, token: GraceToken) -> Self {
        Self { domain, token, ticket: None, polled_again: false }
    }
}

impl Future for GraceWait {
    type Output = Grace;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Grace> {
        let this = &mut *self;
        let first = this.domain.poll_grace(this.token);
        if first != Grace::Pending {
            return Poll::Ready(first);
        }
        let core = &this.domain.inner().core;
        let waker = cx.waker();
        if core.waiters.wait(&core.periods, this.token.period, &mut this.ticket, waker) {
            return Poll::Ready(Grace::Over);
        }
        core.ask_those_inside();
        // Once more: the last guard may have left just before it was asked.
        let again = this.domain.poll_grace(this.token);
        if again != Grace::Pending {
            return Poll::Ready(again);
        }
        if !std::mem::replace(&mut this.polled_again, true) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for GraceWait {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.domain.inner().core.waiters.forget(ticket);
        }
    }
}
