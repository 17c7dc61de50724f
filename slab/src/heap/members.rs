//! The calling thread's participants in the domains of heaps: for callers that cannot hold guards.
//!
//! Owns a list per thread. A thread joins on its first [`Heap::enter`] or when it is told to, never
//! inside an allocation, and leaves when it ends: then its participants hand over what they retired.
//! Participants are found by their domain, so nothing of a heap that is gone is ever used; they are
//! dropped when the thread joins another heap.
//!
//! The list's destructor is registered by the first thing that touches it, which allocates, and which
//! leaks where the thread's destructors have already run. So a thread that has joined nothing, and
//! there are many that park, does not touch it: [`JOINED`] has no destructor.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use flagstone_epoch::{NotEntered, Participant, Tally};

use super::Heap;

crate::sync::per_thread! {
    static MEMBERS: RefCell<Vec<Rc<Participant>>> = const { RefCell::new(Vec::new()) };
    /// Whether the thread has ever joined a domain.
    static JOINED: Cell<bool> = const { Cell::new(false) };
}

impl Heap {
    /// Registers the calling thread with the heap's domain until it ends; does nothing if it is
    /// registered. Returns false while the thread's locals are being destroyed.
    pub fn join_domain(&self) -> bool {
        self.participant_or_join().is_some()
    }

    /// Takes a guard of the heap's domain that [`leave`](Self::leave) ends: what this thread reads of
    /// retired blocks stays until then (requirement D6). The first call of a thread registers it.
    ///
    /// # Panics
    /// While the thread's locals are being destroyed: it could not be told when the thread is gone.
    #[track_caller]
    pub fn enter(&self) {
        match self.participant_or_join() {
            Some(participant) => participant.enter(),
            None => panic!("a thread enters the domain of heap {} as it ends", self.name()),
        }
    }

    /// Ends the latest [`enter`](Self::enter) of the calling thread.
    ///
    /// # Errors
    /// [`NotEntered`] if there is none.
    pub fn leave(&self) -> Result<(), NotEntered> {
        match self.participant() {
            Some(participant) => participant.leave(),
            None => Err(NotEntered::new()),
        }
    }

    /// Pushes the heap's domain one step on; returns the number of grace periods completed so far.
    pub fn advance(&self) -> u64 {
        match self.participant() {
            Some(participant) => participant.advance(),
            None => self.domain().advance(),
        }
    }

    /// Frees the retired blocks that no guard keeps: those that the calling thread retired, and those
    /// that others handed over. Returns what the domain reclaimed meanwhile.
    pub fn collect(&self) -> Tally {
        match self.participant() {
            Some(participant) => participant.collect(),
            None => self.domain().collect(),
        }
    }

    /// The calling thread's participant, if it has joined.
    pub(crate) fn participant(&self) -> Option<Rc<Participant>> {
        let domain = self.domain_if_any()?;
        // Cloned out: what the participant is used for may come back here.
        with_members(|members| {
            members.borrow().iter().find(|participant| participant.is_in(domain)).cloned()
        })
        .flatten()
    }

    fn participant_or_join(&self) -> Option<Rc<Participant>> {
        if let Some(participant) = self.participant() {
            return Some(participant);
        }
        // Registered before the list is borrowed: it allocates.
        let participant = Rc::new(self.domain().register());
        JOINED.with(|joined| joined.set(true));
        let joined = with_members(|members| {
            let mut members = members.borrow_mut();
            members.push(Rc::clone(&participant));
            members
                .extract_if(.., |member| member.is_orphaned() && !member.is_pinned())
                .collect::<Vec<_>>()
        });
        // Those of heaps that are gone are dropped here, outside the borrow: reclaim functions may run.
        joined.map(|_gone| participant)
    }
}

/// The thread is about to sleep: what it has retired is handed over.
pub(crate) fn park() {
    for_each(|participant| participant.park());
}

/// The thread leaves every domain.
pub(crate) fn leave_all() {
    // Dropped after the borrow has ended: reclaim functions may run.
    drop(with_members(RefCell::take));
}

/// How many domains the thread has joined.
#[cfg(test)]
fn joined() -> usize {
    MEMBERS.with(|members| members.borrow().len())
}

/// Runs `f` on the thread's list; `None` if it has none, yet or any more.
fn with_members<R>(f: impl FnOnce(&RefCell<Vec<Rc<Participant>>>) -> R) -> Option<R> {
    if JOINED.with(Cell::get) { MEMBERS.try_with(f).ok() } else { None }
}

fn for_each(each: impl Fn(&Participant)) {
    let at = |i: usize| with_members(|members| members.borrow().get(i).cloned()).flatten();
    let mut i = 0;
    while let Some(participant) = at(i) {
        each(&participant);
        i += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn participants_of_heaps_that_are_gone_are_dropped() {
        std::thread::spawn(|| {
            for _ in 0..20 {
                let heap = Heap::builder().build().expect("memory");
                assert!(heap.join_domain());
                heap.enter();
                heap.leave().expect("entered");
                assert!(joined() <= 2, "{} domains", joined());
            }
        })
        .join()
        .expect("no panic");
    }
}
