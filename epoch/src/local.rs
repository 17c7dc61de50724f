//! The calling thread's own participants: one for each domain that it has joined.
//!
//! Owns a list per thread. A thread joins a domain on its first [`Domain::local`], never by itself, and
//! leaves when it ends or when [`leave_thread`] says so: then its participants hand over what they
//! retired. Participants are found by their domain, so nothing of a domain that is gone is ever used;
//! they are dropped when the thread joins another.
//!
//! The list's destructor is registered by the first thing that touches it, which allocates, and which
//! leaks where the thread's destructors have already run. So a thread that has joined nothing, and
//! there are many that park, does not touch it: `JOINED` has no destructor.
//!
//! A runtime calls [`park_thread`] before a worker sleeps.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::domain::Domain;
use crate::participant::Participant;

thread_local! {
    static OWN: RefCell<Vec<Rc<Participant>>> = const { RefCell::new(Vec::new()) };
    /// Whether the thread has ever joined a domain.
    static JOINED: Cell<bool> = const { Cell::new(false) };
}

impl Domain {
    /// The calling thread's participant, registered by the first call and kept until the thread ends.
    /// `None` while the thread's locals are being destroyed: nobody could be told when the thread is
    /// gone.
    ///
    /// Looked up once for each batch of work, it costs a few nanoseconds; the first call allocates, as
    /// [`register`](Self::register) does.
    ///
    /// ```
    /// let domain = flagstone_epoch::Domain::new();
    /// let participant = domain.local().expect("the thread is not ending");
    /// assert!(std::rc::Rc::ptr_eq(&participant, &domain.local().unwrap()));
    /// let guard = participant.pin();
    /// ```
    pub fn local(&self) -> Option<Rc<Participant>> {
        if let Some(participant) = self.local_if_any() {
            return Some(participant);
        }
        // Registered before the list is borrowed: it allocates.
        let participant = Rc::new(self.register());
        JOINED.set(true);
        let joined = with_own(|own| {
            let mut own = own.borrow_mut();
            own.push(Rc::clone(&participant));
            own.extract_if(.., |one| one.is_orphaned() && !one.is_pinned()).collect::<Vec<_>>()
        });
        // Those of domains that are gone are dropped here, outside the borrow: reclaim functions may
        // run.
        joined.map(|_gone| participant)
    }

    /// The calling thread's participant, if it has one.
    pub fn local_if_any(&self) -> Option<Rc<Participant>> {
        // Cloned out: what the participant is used for may come back here.
        with_own(|own| own.borrow().iter().find(|one| one.is_in(self)).map(Rc::clone)).flatten()
    }
}

/// The thread is about to sleep: its own participants [park](Participant::park).
pub fn park_thread() {
    let at = |i: usize| with_own(|own| own.borrow().get(i).cloned()).flatten();
    let mut i = 0;
    while let Some(participant) = at(i) {
        participant.park();
        i += 1;
    }
}

/// The thread leaves every domain that it has joined through [`Domain::local`], as its end does.
pub fn leave_thread() {
    // Dropped after the borrow has ended: reclaim functions may run.
    drop(with_own(RefCell::take));
}

/// Runs `f` on the thread's list; `None` if it has none, yet or any more.
fn with_own<R>(f: impl FnOnce(&RefCell<Vec<Rc<Participant>>>) -> R) -> Option<R> {
    if JOINED.get() { OWN.try_with(f).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined() -> usize {
        OWN.with(|own| own.borrow().len())
    }

    #[test]
    fn participants_of_domains_that_are_gone_are_dropped() {
        std::thread::spawn(|| {
            for _ in 0..20 {
                let domain = Domain::new();
                drop(domain.local().expect("a living thread").pin());
                assert!(joined() <= 2, "{} domains", joined());
            }
        })
        .join()
        .expect("no panic");
    }

    #[test]
    fn a_thread_that_leaves_or_ends_hands_over() {
        let domain = Domain::new();
        let of_thread = domain.clone();
        // Joined, and not scoped: a scope ends before the locals of its threads do.
        let thread = std::thread::spawn(move || {
            of_thread.local().expect("a living thread").defer_drop(Box::new(1u64));
            leave_thread();
            assert!(of_thread.local_if_any().is_none());
            of_thread.local().expect("a living thread").defer_drop(Box::new(2u64));
        });
        thread.join().expect("no panic");
        domain.collect();
        assert_eq!(domain.snapshot().reclaimed.blocks, 2);
        assert_eq!(domain.snapshot().participants, 0);
    }
}
