//! The domains of the process, for whoever reports on all of them.
//!
//! Owns a list of weak references under a lock; domains are made and reported seldom. No part of any
//! protocol, and of no model.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Inner;

static ALL: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

pub(super) fn add(inner: &Arc<Inner>) {
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.push(Arc::downgrade(inner));
}

/// Called by the end of a domain: a weak reference keeps its memory.
pub(super) fn forget(inner: &Inner) {
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    let gone = all.iter().position(|one| std::ptr::eq(one.as_ptr(), inner));
    let gone = gone.map(|at| all.remove(at));
    drop(all);
    drop(gone);
}

pub(super) fn get() -> Vec<Arc<Inner>> {
    let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().filter_map(Weak::upgrade).collect()
}
