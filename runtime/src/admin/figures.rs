//! What the server counts about itself.
//!
//! A lock around plain numbers: it is taken a few times per connection and request, for as long as
//! an addition.

use std::sync::{Arc, Mutex, PoisonError};

use flagstone_telemetry::AdminSnapshot;

/// A reader of an admin server's figures.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    shared: Arc<Mutex<AdminSnapshot>>,
}

impl Figures {
    /// What the server has done so far.
    #[must_use]
    pub fn snapshot(&self) -> AdminSnapshot {
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts something.
    pub(super) fn count(&self, f: impl FnOnce(&mut AdminSnapshot)) {
        f(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Counts a connection, and that it is open until the guard is dropped.
    pub(super) fn open(&self) -> Open {
        self.count(|n| {
            n.connections += 1;
            n.open_connections += 1;
        });
        Open(self.clone())
    }
}

/// A connection that counts as open.
pub(super) struct Open(Figures);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.count(|n| n.open_connections -= 1);
    }
}
