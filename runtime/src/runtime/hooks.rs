//! Tokio's thread hooks, wired to the calling thread's shard.
//!
//! | Tokio calls | Flagstone does |
//! |---|---|
//! | `on_thread_start` | [`thread::lease`]: the worker has its shard before its first task |
//! | `on_thread_park` | [`thread::park`]: posts the outbox, drains the inbox, steps back from the shard; the thread's participants of epoch domains hand over what it retired, and attached typed slabs take their free slots back; debug builds warn of an epoch guard that is held |
//! | `on_thread_unpark` | nothing: the first allocation takes the shard back |
//! | `on_thread_stop` | [`thread::give_back`] |
//!
//! Tokio keeps one hook of each kind, so [`install`] replaces what the builder had; [`Hooks`] runs
//! hooks of the program's own beside ours. Threads of the blocking pool start and stop like workers
//! but never park: use [`spawn_blocking`](super::spawn_blocking) so that they hold nothing between
//! two tasks.
//!
//! Order: at start our hook runs first, so the program's own already has a shard; at park and stop
//! ours runs last, because anything that allocates after it would take the shard back.

use std::fmt;
use std::sync::Arc;

use flagstone_slab::thread;

/// Installs Flagstone's hooks alone. See [`Hooks`] to run hooks of the program's own beside them.
///
/// ```
/// let mut tokio = tokio::runtime::Builder::new_multi_thread();
/// flagstone::runtime::hooks::install(&mut tokio);
/// let runtime = tokio.enable_all().build()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn install(tokio: &mut tokio::runtime::Builder) -> &mut tokio::runtime::Builder {
    Hooks::new().install(tokio)
}

type Hook = Arc<dyn Fn() + Send + Sync>;

/// Hooks of the program's own, to be installed together with Flagstone's.
///
/// Every kind may be given several times; hooks of one kind run in the order given.
#[derive(Clone, Default)]
#[must_use = "hooks do nothing until they are installed"]
pub struct Hooks {
    start: Vec<Hook>,
    stop: Vec<Hook>,
    park: Vec<Hook>,
    unpark: Vec<Hook>,
}

impl Hooks {
    /// No hooks of the program's own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `hook` on every thread of the runtime when it starts, with its shard already leased.
    pub fn on_thread_start(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.start.push(Arc::new(hook));
        self
    }

    /// Runs `hook` on every thread of the runtime before it gives its shard back and ends.
    pub fn on_thread_stop(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.stop.push(Arc::new(hook));
        self
    }

    /// Runs `hook` on a worker before it steps back from its shard and sleeps.
    pub fn on_thread_park(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.park.push(Arc::new(hook));
        self
    }

    /// Runs `hook` on a worker when it wakes.
    pub fn on_thread_unpark(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.unpark.push(Arc::new(hook));
        self
    }

    /// Installs Flagstone's hooks and these, replacing the hooks that `tokio` had.
    pub fn install(self, tokio: &mut tokio::runtime::Builder) -> &mut tokio::runtime::Builder {
        let Self { start, stop, park, unpark } = self;
        tokio.on_thread_start(move || {
            // Refused or not, the thread can allocate: without a shard the buckets serve it, and
            // the heap counts the refusal.
            let _ = thread::lease();
            run(&start);
        });
        tokio.on_thread_park(move || {
            run(&park);
            flagstone_epoch::warn_if_guard_held();
            thread::park();
        });
        tokio.on_thread_unpark(move || run(&unpark));
        tokio.on_thread_stop(move || {
            run(&stop);
            thread::give_back();
        });
        tokio
    }
}

fn run(hooks: &[Hook]) {
    for hook in hooks {
        hook();
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("start", &self.start.len())
            .field("stop", &self.stop.len())
            .field("park", &self.park.len())
            .field("unpark", &self.unpark.len())
            .finish()
    }
}
