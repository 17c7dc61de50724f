//! A Tokio runtime whose workers allocate from shards of their own.

mod builder;
pub mod hooks;

pub use builder::{BuildError, Builder};

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::{admin, scavenger, telemetry};

/// A Tokio runtime with Flagstone's hooks, a scavenger and, if asked for, an admin server.
#[derive(Debug)]
pub struct Runtime {
    tokio: tokio::runtime::Runtime,
    scavenger: Option<scavenger::Scavenger>,
    admin_addr: Option<SocketAddr>,
}

impl Runtime {
    fn start(
        tokio: tokio::runtime::Runtime,
        scavenger: Option<scavenger::Config>,
        admin: Option<admin::Config>,
    ) -> Result<Self, BuildError> {
        let scavenger = match scavenger {
            Some(config) => Some(config.spawn().map_err(BuildError::Scavenger)?),
            None => None,
        };
        let mut admin_addr = None;
        if let Some(config) = admin {
            let _context = tokio.enter();
            let admin = admin::bind_now(config).map_err(BuildError::Admin)?;
            admin_addr = Some(admin.local_addr());
            tokio.spawn(admin.serve(std::future::pending()));
        }
        Ok(Self { tokio, scavenger, admin_addr })
    }

    /// Runs a future on the calling thread until it completes, and the runtime's tasks beside it.
    ///
    /// # Panics
    /// If the future panics, or when called inside a runtime.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.tokio.block_on(future)
    }

    /// Spawns a task.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tokio.spawn(future)
    }

    /// The Tokio handle of this runtime.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        self.tokio.handle()
    }

    /// The address of the admin server, where one is configured.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// A snapshot of the heap, the process and this runtime.
    #[must_use]
    pub fn snapshot(&self) -> telemetry::Snapshot {
        telemetry::Snapshot::take(crate::Heap::global())
    }

    /// Shuts down: the admin server finishes its replies, the scavenger stops, tasks are dropped, and
    /// blocking tasks are waited for. All of it within `timeout`.
    pub fn shutdown_timeout(self, timeout: Duration) {
        drop(self.scavenger);
        self.tokio.shutdown_timeout(timeout);
    }
}

/// As [`tokio::task::spawn_blocking`], and the thread steps back from its shard when `f` returns, so that a
/// pooled thread holds no memory while it waits for its next task.
///
/// # Panics
/// Outside a Tokio runtime.
pub fn spawn_blocking<F, R>(f: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    tokio::task::spawn_blocking(move || {
        let result = f();
        crate::thread::park();
        result
    })
}
