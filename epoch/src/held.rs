//! A check of debug builds: no guard is held when a task's poll returns.
//!
//! A [`Guard`](crate::Guard) is not `Send`, so a task that may move between threads cannot keep one
//! across an `.await`. Tasks bound to one thread can, and so can [`enter`](crate::Participant::enter);
//! then one task that waits keeps all retired memory of the domain. Debug builds count, per thread, the
//! participants that are inside; release builds do not, and the check is nothing there.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::pin;

use crate::sync::thread_cell;

const COUNTS: bool = cfg!(debug_assertions);

#[derive(Clone, Copy)]
struct Held {
    participants: usize,
    /// Where the last of them entered.
    place: Option<&'static Location<'static>>,
    /// Whether a warning was given since.
    warned: bool,
}

thread_cell!(HELD: Cell<Held> = Cell::new(Held { participants: 0, place: None, warned: false }));

/// A participant of this thread is inside from now on.
#[inline]
pub(crate) fn entered(place: &'static Location<'static>) {
    if COUNTS {
        HELD.with(|held| {
            let participants = held.get().participants + 1;
            held.set(Held { participants, place: Some(place), warned: false });
        });
    }
}

/// It is outside again.
#[inline]
pub(crate) fn left() {
    if COUNTS {
        HELD.with(|held| {
            let before = held.get();
            held.set(Held { participants: before.participants - 1, ..before });
        });
    }
}

/// For runtimes, before a worker sleeps: in debug builds, warns through `tracing` if a participant of the
/// thread is inside, once until another enters. A task that keeps a guard across an `.await` is found so
/// without [`no_guard_across_await`] around it. Returns whether it warned.
pub fn warn_if_guard_held() -> bool {
    let held = HELD.with(Cell::get);
    if !COUNTS || held.participants == 0 || held.warned {
        return false;
    }
    HELD.with(|cell| cell.set(Held { warned: true, ..held }));
    if let Some(place) = held.place {
        tracing::warn!(%place, "a thread goes to sleep with a guard: retired memory waits for it");
    }
    true
}

/// Runs `future`; in debug builds, panics when one of its polls returns while a participant of the
/// thread is inside that was not so before the poll.
///
/// ```
/// # // A runtime of one task.
/// # use std::task::{Context, Poll, Waker};
/// # fn run<T>(future: impl Future<Output = T>) -> T {
/// #     let mut future = std::pin::pin!(future);
/// #     loop {
/// #         if let Poll::Ready(out) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
/// #             return out;
/// #         }
/// #     }
/// # }
/// let domain = flagstone_epoch::Domain::new();
/// let participant = domain.register();
/// let answer = run(flagstone_epoch::no_guard_across_await(async {
///     let guard = participant.pin();
///     drop(guard); // Without this the check would panic.
///     std::future::ready(()).await;
///     42
/// }));
/// assert_eq!(answer, 42);
/// ```
///
/// # Panics
/// In debug builds, as above; the message names the place where the guard was taken.
pub async fn no_guard_across_await<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(move |cx| {
        let before = HELD.with(Cell::get).participants;
        let polled = future.as_mut().poll(cx);
        let after = HELD.with(Cell::get);
        if COUNTS && after.participants > before {
            held_across_await(after.place);
        }
        polled
    })
    .await
}

#[cold]
fn held_across_await(place: Option<&'static Location<'static>>) -> ! {
    match place {
        Some(place) => panic!("a guard is held when a poll returns; the last was taken at {place}"),
        None => panic!("a guard is held when a poll returns"),
    }
}
