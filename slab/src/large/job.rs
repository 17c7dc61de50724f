//! What is to be given back outside the lock, as the space writes it down.
//!
//! Owns the shape of a job and of the list that a round of expiry fills.

use super::extent::Node;

/// A range that is to be given back, outside the lock.
#[derive(Clone, Copy)]
pub(crate) struct Job {
    pub(crate) start: usize,
    pub(crate) bytes: usize,
    /// The record that waits for the purge; `None` if the range is to be unmapped, and has none any
    /// more.
    pub(crate) purged: Option<Node>,
}

impl Job {
    /// Nothing to do.
    pub(crate) const NONE: Self = Self { start: 0, bytes: 0, purged: None };
}

/// Jobs as they are written.
pub(super) struct Jobs<'a> {
    pub(super) jobs: &'a mut [Job],
    pub(super) count: usize,
}

impl<'a> Jobs<'a> {
    pub(super) fn new(jobs: &'a mut [Job]) -> Self {
        Self { jobs, count: 0 }
    }

    pub(super) fn push(&mut self, job: Job) {
        self.jobs[self.count] = job;
        self.count += 1;
    }
}
