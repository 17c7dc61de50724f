//! What all connections of one server share.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use crate::allocator::Serving;
use crate::clients::Clients;
use crate::commands;
use crate::keyspace::Keyspace;
use crate::keyspace::expiry::Millis;
use crate::memory::Gauge;
use crate::pubsub::PubSub;
use crate::settings::{DATABASES, Settings, Tunables};
use crate::spare::Spare;
use crate::stats::{Stats, Totals};

/// One server's state.
#[derive(Debug)]
pub struct Shared {
    /// What it was started with.
    pub settings: Settings,
    /// What may change while it runs.
    pub tunables: Tunables,
    /// The data.
    pub keyspace: Keyspace,
    /// The subscriptions.
    pub pubsub: PubSub,
    /// The connected clients.
    pub clients: Clients,
    /// The counters.
    pub stats: Stats,
    /// The memory limit.
    pub gauge: Gauge,
    /// The system's memory.
    pub spare: Spare,
    /// The allocator that served when the server started.
    pub allocator: Serving,
    /// When it started.
    pub started: Instant,
    /// Where RESP is served; set once the port is known.
    pub resp_addr: OnceLock<SocketAddr>,
    /// Told when a client asks for shutdown.
    pub shutdown_asked: Notify,
}

impl Shared {
    /// A server's state before it listens.
    pub fn new(settings: Settings) -> Arc<Self> {
        let allocator = Serving::now();
        let keyspace = Keyspace::new(DATABASES, settings.shards);
        Arc::new(Self {
            tunables: Tunables::new(&settings),
            gauge: Gauge::new(allocator.verified, &keyspace),
            spare: Spare::default(),
            pubsub: PubSub::new(keyspace.domain()),
            clients: Clients::new(keyspace.domain()),
            keyspace,
            stats: Stats::new(commands::count()),
            allocator,
            started: Instant::now(),
            resp_addr: OnceLock::new(),
            shutdown_asked: Notify::new(),
            settings,
        })
    }
}

impl Shared {
    /// Worker threads that serve, as configured or one per core.
    pub fn workers(&self) -> usize {
        self.settings.workers.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
        })
    }

    /// Whether the system has memory for a request of so many bytes.
    #[inline]
    pub fn has_memory_for(&self, request: usize) -> bool {
        self.spare.admits(request, self.gauge.estimate(&self.keyspace))
    }

    /// Everything counted since the server started.
    pub fn totals(&self) -> Totals {
        Totals { expired: self.keyspace.figures().expired, ..self.stats.totals() }
    }

    /// The port of RESP; 0 before it is known.
    pub fn port(&self) -> u16 {
        self.resp_addr.get().map_or(0, SocketAddr::port)
    }
}

/// The wall clock in milliseconds since the epoch, for deadlines.
pub fn wall_clock() -> Millis {
    u64::try_from(wall_clock_exact().as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock since the epoch.
pub fn wall_clock_exact() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
