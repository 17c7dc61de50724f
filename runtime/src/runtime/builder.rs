//! The builder: a Tokio builder with our hooks, the scavenger and the admin server beside it.
//!
//! Owns a `tokio::runtime::Builder` and the settings that Tokio does not know. Settings are checked
//! when building, so that a bad one is an error and not a panic.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use super::Runtime;
use super::hooks::Hooks;
use crate::{admin, scavenger};

/// Builds a [`Runtime`].
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = flagstone::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
/// assert_eq!(runtime.block_on(async { 1 + 1 }), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until it builds"]
pub struct Builder {
    tokio: tokio::runtime::Builder,
    hooks: Hooks,
    worker_threads: Option<usize>,
    max_blocking_threads: Option<usize>,
    scavenger: Option<scavenger::Config>,
    admin: Option<admin::Config>,
}

impl Builder {
    /// A runtime with one worker per core, Tokio's time and I/O drivers, and a scavenger.
    pub fn new_multi_thread() -> Self {
        Self::from_tokio(tokio::runtime::Builder::new_multi_thread())
    }

    /// A runtime that runs tasks on the thread that calls [`Runtime::block_on`], and a scavenger.
    ///
    /// Tasks, the admin server among them, advance only inside `block_on`.
    pub fn new_current_thread() -> Self {
        Self::from_tokio(tokio::runtime::Builder::new_current_thread())
    }

    /// Starts from a Tokio builder with settings of its own.
    ///
    /// Tokio keeps one thread hook of each kind: hooks that `tokio` has are replaced by ours. Give
    /// them to this builder instead; it runs them beside ours. Both drivers are enabled.
    pub fn from_tokio(mut tokio: tokio::runtime::Builder) -> Self {
        tokio.enable_all();
        Self {
            tokio,
            hooks: Hooks::new(),
            worker_threads: None,
            max_blocking_threads: None,
            scavenger: Some(scavenger::Config::default()),
            admin: None,
        }
    }

    /// Changes settings of the Tokio builder that are not wrapped here.
    ///
    /// Thread hooks set here are replaced; give them to this builder.
    pub fn configure_tokio(mut self, f: impl FnOnce(&mut tokio::runtime::Builder)) -> Self {
        f(&mut self.tokio);
        self
    }

    /// Worker threads; by default one per core. The current-thread runtime ignores it.
    pub fn worker_threads(mut self, n: usize) -> Self {
        self.worker_threads = Some(n);
        self
    }

    /// The most threads of the blocking pool; by default Tokio's 512.
    pub fn max_blocking_threads(mut self, n: usize) -> Self {
        self.max_blocking_threads = Some(n);
        self
    }

    /// Name of the runtime's threads.
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.tokio.thread_name(name);
        self
    }

    /// Runs the scavenger at this interval instead of half the heap's decay.
    pub fn scavenge_every(mut self, interval: Duration) -> Self {
        self.scavenger = Some(scavenger::Config::default().interval(interval));
        self
    }

    /// Runs no scavenger: free memory then returns to the system only through the heap's slow
    /// paths.
    pub fn without_scavenger(mut self) -> Self {
        self.scavenger = None;
        self
    }

    /// Serves `/metrics`, `/stats.json` and `/healthz` from this runtime.
    pub fn admin(mut self, config: admin::Config) -> Self {
        self.admin = Some(config);
        self
    }

    /// As [`Hooks::on_thread_start`].
    pub fn on_thread_start(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.hooks = self.hooks.on_thread_start(hook);
        self
    }

    /// As [`Hooks::on_thread_stop`].
    pub fn on_thread_stop(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.hooks = self.hooks.on_thread_stop(hook);
        self
    }

    /// As [`Hooks::on_thread_park`].
    pub fn on_thread_park(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.hooks = self.hooks.on_thread_park(hook);
        self
    }

    /// As [`Hooks::on_thread_unpark`].
    pub fn on_thread_unpark(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.hooks = self.hooks.on_thread_unpark(hook);
        self
    }

    /// The Tokio builder with every setting and our hooks in it, for a program that builds the
    /// runtime itself. The scavenger and the admin server are not in it: start them with
    /// [`scavenger::spawn`] and [`admin::bind`].
    ///
    /// # Panics
    /// If a number of threads is zero, as Tokio's own setters do.
    #[must_use]
    pub fn into_tokio(mut self) -> tokio::runtime::Builder {
        if let Some(n) = self.worker_threads {
            self.tokio.worker_threads(n);
        }
        if let Some(n) = self.max_blocking_threads {
            self.tokio.max_blocking_threads(n);
        }
        self.hooks.install(&mut self.tokio);
        self.tokio
    }

    /// Builds the runtime, binds the admin server's address and starts what is configured.
    ///
    /// # Errors
    /// See [`BuildError`]. Threads that were started end by themselves.
    pub fn build(mut self) -> Result<Runtime, BuildError> {
        if self.worker_threads == Some(0) {
            return Err(BuildError::Zero("worker_threads"));
        }
        if self.max_blocking_threads == Some(0) {
            return Err(BuildError::Zero("max_blocking_threads"));
        }
        // Made here, so that its figures are there before the first guard is.
        flagstone_slab::Heap::global().domain();
        let scavenger = self.scavenger.take();
        let admin = self.admin.take();
        let tokio = self.into_tokio().build().map_err(BuildError::Tokio)?;
        Runtime::start(tokio, scavenger, admin)
    }
}

/// Why a runtime could not be built.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// This number of threads was given as zero.
    Zero(&'static str),
    /// Tokio could not start its threads or drivers.
    Tokio(io::Error),
    /// The scavenger's thread could not be started.
    Scavenger(io::Error),
    /// The admin server could not be bound.
    Admin(admin::BindError),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero(what) => write!(f, "{what} must be at least 1"),
            Self::Tokio(e) => write!(f, "cannot start the Tokio runtime: {e}"),
            Self::Scavenger(e) => write!(f, "cannot start the scavenger: {e}"),
            Self::Admin(e) => write!(f, "cannot start the admin server: {e}"),
        }
    }
}

impl Error for BuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Zero(_) => None,
            Self::Tokio(e) | Self::Scavenger(e) => Some(e),
            Self::Admin(e) => Some(e),
        }
    }
}
