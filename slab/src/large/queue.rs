//! The order in which free ranges are given back: a queue through the records.
//!
//! Owns two ends. A record is in one queue at most, and says so; taking it out is cheap wherever it
//! stands. The caller holds the fallback's lock.

use super::extent::Node;

/// Free ranges of one state, oldest first.
pub(super) struct Queue {
    pub(super) oldest: Option<Node>,
    newest: Option<Node>,
}

impl Queue {
    pub(super) const fn new() -> Self {
        Self { oldest: None, newest: None }
    }

    pub(super) fn push(&mut self, node: Node) {
        node.queued.set(true);
        node.newer.set(None);
        node.older.set(self.newest);
        match self.newest {
            Some(newest) => newest.newer.set(Some(node)),
            None => self.oldest = Some(node),
        }
        self.newest = Some(node);
    }

    /// Takes a range out if it is in.
    pub(super) fn remove(&mut self, node: Node) {
        if !node.queued.replace(false) {
            return;
        }
        let (older, newer) = (node.older.take(), node.newer.take());
        match older {
            Some(older) => older.newer.set(newer),
            None => self.oldest = newer,
        }
        match newer {
            Some(newer) => newer.older.set(older),
            None => self.newest = older,
        }
    }
}
