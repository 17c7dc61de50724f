//! Structures that a domain's threads and its scavenger look after besides the domain itself.
//!
//! Owns a list of weak references per domain. A structure whose memory depends on what threads do when
//! they sleep, and on somebody passing by, is attached once; from then on [`Participant::park`] and
//! [`Domain::maintain`] reach it, and with them every runtime that calls those. Nothing is called under
//! the list's lock. No part of any protocol, and of no model.

use std::array;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::domain::Domain;
use crate::participant::Participant;
use crate::sync::{AtomicBool, Ordering};

/// A structure that wants to hear when its domain's threads sleep, and from the scavenger.
pub trait Upkeep: Send + Sync {
    /// The participant's thread is about to sleep, and calls this on itself: what the structure keeps
    /// at hand for it had better not sleep with it. Called often; must not wait.
    fn park(&self, participant: &Participant);

    /// Somebody passes by from time to time. May take a while.
    fn maintain(&self);
}

/// Structures looked at under one lock.
const AT_A_TIME: usize = 8;

type Found = [Option<Arc<dyn Upkeep>>; AT_A_TIME];

#[derive(Default)]
pub(crate) struct Attached {
    /// So that domains without any pay one load.
    any: AtomicBool,
    list: Mutex<Vec<Weak<dyn Upkeep>>>,
}

impl Attached {
    fn add(&self, structure: Weak<dyn Upkeep>) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|one| one.strong_count() > 0);
        list.push(structure);
        // Relaxed: advice; who misses it comes again.
        self.any.store(true, Ordering::Relaxed);
    }

    /// Calls `each` for every structure that is still there. The last hold of one may end here: it is
    /// dropped with no lock held.
    #[inline]
    pub(crate) fn for_each(&self, each: impl Fn(&dyn Upkeep)) {
        // Models attach nothing, and need no further place to switch threads at.
        if !cfg!(flagstone_loom) && self.any.load(Ordering::Relaxed) {
            self.for_each_attached(each);
        }
    }

    #[cold]
    fn for_each_attached(&self, each: impl Fn(&dyn Upkeep)) {
        let mut from = 0;
        loop {
            let (found, end) = self.some(from);
            for structure in found.into_iter().flatten() {
                each(&*structure);
            }
            if end {
                return;
            }
            from += AT_A_TIME;
        }
    }

    /// The structures at `from` and after, and whether that were the last.
    fn some(&self, from: usize) -> (Found, bool) {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let found = array::from_fn(|at| list.get(from + at).and_then(Weak::upgrade));
        (found, from + AT_A_TIME >= list.len())
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").finish_non_exhaustive()
    }
}

impl Domain {
    /// From now on [`Participant::park`] and [`Domain::maintain`] call the structure, for as long as
    /// somebody else holds it.
    pub fn attach(&self, structure: Weak<dyn Upkeep>) {
        self.inner().attached.add(structure);
    }
}

#[cfg(all(test, not(flagstone_loom)))]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Counts {
        parks: Mutex<usize>,
        passes: Mutex<usize>,
    }

    impl Upkeep for Counts {
        fn park(&self, _: &Participant) {
            *self.parks.lock().unwrap() += 1;
        }

        fn maintain(&self) {
            *self.passes.lock().unwrap() += 1;
        }
    }

    #[test]
    fn each_structure_hears_once_and_for_as_long_as_it_lives() {
        let domain = Domain::new();
        let all: Vec<Arc<Counts>> = (0..2 * AT_A_TIME + 1).map(|_| Arc::default()).collect();
        for one in &all {
            let structure: Weak<Counts> = Arc::downgrade(one);
            domain.attach(structure);
        }
        let participant = domain.register();
        participant.park();
        domain.maintain();
        domain.maintain();
        assert!(all.iter().all(|one| *one.parks.lock().unwrap() == 1));
        assert!(all.iter().all(|one| *one.passes.lock().unwrap() == 2));
        let weak = Arc::downgrade(&all[0]);
        drop(all);
        participant.park();
        assert_eq!(weak.strong_count(), 0);
    }
}
