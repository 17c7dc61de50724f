//! A Tokio runtime whose workers allocate from shards of their own.
//!
//! [`Builder`] builds it, with a [scavenger] and, if asked for, an [admin server](crate::admin)
//! beside it. A program that builds its own Tokio runtime takes [`hooks`] alone.
//!
//! Shutdown, in [`Runtime`]'s drop as in [`Runtime::shutdown_timeout`], runs in this order: the
//! admin server stops accepting and finishes its replies, while tasks still run; the scavenger ends
//! its pass; Tokio drops the tasks and waits for its threads, whose stop hooks give their shards
//! back.

mod builder;
pub mod hooks;

pub use builder::{BuildError, Builder};

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::{Heap, admin, scavenger, telemetry, thread};

/// A Tokio runtime with Flagstone's hooks, a scavenger and, if asked for, an admin server.
///
/// Dropping it shuts it down in order, waiting for replies of the admin server (at most
/// [`admin::Config::shutdown_grace`]) and, as Tokio does, for blocking tasks without a limit.
/// Dropping it inside a runtime panics, as dropping Tokio's does; [`Runtime::shutdown_background`]
/// is for that.
#[derive(Debug)]
pub struct Runtime {
    /// `None` only once it is shut down.
    tokio: Option<tokio::runtime::Runtime>,
    scavenger: Option<scavenger::Scavenger>,
    admin: Option<AdminTask>,
}

/// The admin server as a task of the runtime.
#[derive(Debug)]
struct AdminTask {
    addr: SocketAddr,
    figures: admin::Figures,
    grace: Duration,
    shutdown: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Runtime {
    /// Runs a future on the calling thread until it completes, and the runtime's tasks beside it.
    ///
    /// # Panics
    /// If the future panics, or when called inside a runtime.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.tokio().block_on(future)
    }

    /// Spawns a task. On a current-thread runtime it advances inside [`block_on`](Self::block_on)
    /// only.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tokio().spawn(future)
    }

    /// The Tokio handle of this runtime.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        self.tokio().handle()
    }

    /// The address of the admin server, where one is configured; with the real port where 0 was
    /// asked for.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        Some(self.admin.as_ref()?.addr)
    }

    /// The scavenger, where one runs.
    #[must_use]
    pub fn scavenger(&self) -> Option<&scavenger::Scavenger> {
        self.scavenger.as_ref()
    }

    /// A snapshot of the global heap, the process and this runtime: what the admin server shows.
    /// See [`telemetry::Snapshot::take`] for its cost.
    #[must_use]
    pub fn snapshot(&self) -> telemetry::Snapshot {
        let mut snapshot = telemetry::Snapshot::take(Heap::global());
        snapshot.scavenger = self.scavenger.as_ref().map(|s| s.figures().snapshot());
        snapshot.admin = self.admin.as_ref().map(|a| a.figures.snapshot());
        snapshot
    }

    /// Shuts down in order, waiting at most `timeout` for replies of the admin server and for
    /// blocking tasks together. The end of a scavenger's pass is always waited for.
    pub fn shutdown_timeout(mut self, timeout: Duration) {
        let start = Instant::now();
        self.stop_parts(timeout);
        if let Some(tokio) = self.tokio.take() {
            tokio.shutdown_timeout(timeout.saturating_sub(start.elapsed()));
        }
    }

    /// Shuts down without waiting for replies or blocking tasks; unlike dropping, this may be
    /// called inside a runtime. The end of a scavenger's pass is waited for.
    pub fn shutdown_background(mut self) {
        self.stop_parts(Duration::ZERO);
        if let Some(tokio) = self.tokio.take() {
            tokio.shutdown_background();
        }
    }

    /// Starts what is configured beside a Tokio runtime. When one part fails, those that run are
    /// stopped.
    fn start(
        tokio: tokio::runtime::Runtime,
        scavenger: Option<scavenger::Config>,
        admin: Option<admin::Config>,
    ) -> Result<Self, BuildError> {
        let mut runtime = Self { tokio: Some(tokio), scavenger: None, admin: None };
        match runtime.start_parts(scavenger, admin) {
            Ok(()) => Ok(runtime),
            Err(e) => {
                // Not by dropping, which would panic where building is allowed: inside a runtime.
                runtime.shutdown_background();
                Err(e)
            }
        }
    }

    fn start_parts(
        &mut self,
        scavenger: Option<scavenger::Config>,
        admin: Option<admin::Config>,
    ) -> Result<(), BuildError> {
        if let Some(config) = scavenger {
            self.scavenger = Some(config.spawn().map_err(BuildError::Scavenger)?);
        }
        if let Some(mut config) = admin {
            if let Some(scavenger) = &self.scavenger {
                config = config.scavenger_if_none(scavenger.figures());
            }
            let grace = config.grace();
            let server = {
                let _context = self.handle().enter();
                admin::bind_now(config).map_err(BuildError::Admin)?
            };
            let (addr, figures) = (server.local_addr(), server.figures());
            let (shutdown, asked) = oneshot::channel();
            let task = self.spawn(server.serve(async {
                let _ = asked.await;
            }));
            self.admin = Some(AdminTask { addr, figures, grace, shutdown, task });
        }
        Ok(())
    }

    fn tokio(&self) -> &tokio::runtime::Runtime {
        // The field is emptied only by methods that take the runtime away from the caller.
        self.tokio.as_ref().expect("the runtime is not shut down")
    }

    /// Stops the admin server, waiting at most `limit` for its replies, and the scavenger.
    fn stop_parts(&mut self, limit: Duration) {
        if let Some(admin) = self.admin.take() {
            let _ = admin.shutdown.send(());
            let limit = limit.min(admin.grace.saturating_add(admin::LINGER));
            // Inside a runtime or while unwinding, waiting could panic; Tokio's shutdown then cuts
            // replies off.
            let may_wait = Handle::try_current().is_err() && !std::thread::panicking();
            if let (true, Some(tokio)) = (may_wait && !limit.is_zero(), &self.tokio) {
                let _ = tokio.block_on(async { tokio::time::timeout(limit, admin.task).await });
            }
        }
        self.scavenger = None;
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.stop_parts(Duration::MAX);
    }
}

/// As [`tokio::task::spawn_blocking`], and the thread steps back from its shard when `f` returns or
/// panics.
///
/// A thread of the blocking pool waits up to ten seconds for its next task, and Tokio has no hook
/// for that wait; with plain `spawn_blocking` it keeps its shard, and the memory in it, for as
/// long.
///
/// # Panics
/// Outside a Tokio runtime.
pub fn spawn_blocking<F, R>(f: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    struct Park;

    impl Drop for Park {
        fn drop(&mut self) {
            thread::park();
        }
    }

    tokio::task::spawn_blocking(move || {
        let _park = Park;
        f()
    })
}
