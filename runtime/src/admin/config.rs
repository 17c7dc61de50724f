//! Settings of the admin server, and why it may not start.
//!
//! Everything that a client could use up has a limit here.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use flagstone_slab::Heap;
use flagstone_telemetry::json::MEMBERS;
use flagstone_telemetry::prometheus::Exporter;
use serde_json::Value;

use crate::heap_ref::HeapRef;
use crate::scavenger;

/// The default address: port 9600 on the loopback interface.
pub const DEFAULT_ADDR: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9600);

/// Produces a member of `/stats.json`.
pub(super) type Section = Arc<dyn Fn() -> Value + Send + Sync>;
/// Says whether a part of the program is well.
pub(super) type Health = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Settings of an admin server.
#[derive(Clone)]
#[must_use = "a configuration does nothing until it is bound"]
pub struct Config {
    pub(super) addr: SocketAddr,
    pub(super) allow_remote: bool,
    pub(super) max_connections: usize,
    pub(super) header_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) response_timeout: Duration,
    pub(super) max_requests: usize,
    pub(super) shutdown_grace: Duration,
    pub(super) per_shard_metrics: bool,
    pub(super) heap: HeapRef,
    pub(super) exporter: Option<Exporter>,
    pub(super) scavenger: Option<scavenger::Figures>,
    pub(super) sections: Vec<(String, Section)>,
    pub(super) health: Vec<Health>,
}

impl Default for Config {
    /// The settings for [`DEFAULT_ADDR`].
    fn default() -> Self {
        Self::new(DEFAULT_ADDR)
    }
}

impl Config {
    /// The default settings for an address. Port 0 lets the system choose.
    pub fn new(addr: impl Into<SocketAddr>) -> Self {
        Self {
            addr: addr.into(),
            allow_remote: false,
            max_connections: 64,
            header_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(75),
            response_timeout: Duration::from_secs(30),
            max_requests: 10_000,
            shutdown_grace: Duration::from_secs(5),
            per_shard_metrics: false,
            heap: HeapRef::default(),
            exporter: None,
            scavenger: None,
            sections: Vec::new(),
            health: Vec::new(),
        }
    }

    /// Allows an address that other machines can reach. The endpoints carry no secret of the
    /// program's, and ask for none: whoever reaches the port reads them.
    pub fn allow_remote(mut self, allow: bool) -> Self {
        self.allow_remote = allow;
        self
    }

    /// Connections served at a time, 64 by default. Further ones wait in the listener's backlog.
    pub fn max_connections(mut self, n: usize) -> Self {
        self.max_connections = n;
        self
    }

    /// Time for the head of a request to arrive, from its first byte (from the connection's start
    /// for the first request); 5 s by default.
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        self.header_timeout = timeout;
        self
    }

    /// Time that a connection may stay open between two requests; 75 s by default.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Time from a request's head to the last byte of its response; 30 s by default.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// Requests served on one connection before it is closed; 10,000 by default.
    pub fn max_requests_per_connection(mut self, n: usize) -> Self {
        self.max_requests = n;
        self
    }

    /// How long a shutdown waits for responses in flight; 5 s by default.
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.shutdown_grace = grace;
        self
    }

    /// Exports series of every shard on `/metrics` (label `shard`); off by default.
    pub fn per_shard_metrics(mut self, on: bool) -> Self {
        self.per_shard_metrics = on;
        self
    }

    /// The heap to show; by default the global one.
    pub fn heap(mut self, heap: impl Deref<Target = Heap> + Send + Sync + 'static) -> Self {
        self.heap = HeapRef::new(heap);
        self
    }

    /// The exporter behind `/metrics`. Give one from [`Exporter::install`] to serve what the
    /// program itself emits through `metrics`, too; by default a local one, which shows Flagstone's
    /// series only.
    pub fn exporter(mut self, exporter: Exporter) -> Self {
        self.exporter = Some(exporter);
        self
    }

    /// Shows the figures of a scavenger, too.
    pub fn scavenger(mut self, figures: scavenger::Figures) -> Self {
        self.scavenger = Some(figures);
        self
    }

    /// Adds a top-level member to `/stats.json`. `section` runs at each request, on a thread that
    /// may block; if it panics, the member says so and the others are shown. Its name must be none
    /// of [`MEMBERS`] and given once.
    pub fn section(
        mut self,
        name: impl Into<String>,
        section: impl Fn() -> Value + Send + Sync + 'static,
    ) -> Self {
        self.sections.push((name.into(), Arc::new(section)));
        self
    }

    /// Adds a check to `/healthz`, which answers 503 with the text of every check that fails.
    /// `check` runs on the worker that serves the request, so that a full blocking pool does not
    /// look like an ill program: it must not block.
    pub fn health(
        mut self,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.health.push(Arc::new(check));
        self
    }

    /// How long a shutdown waits, for whoever waits for it.
    pub(crate) fn grace(&self) -> Duration {
        self.shutdown_grace
    }

    /// The figures of `scavenger`, unless others were given.
    pub(crate) fn scavenger_if_none(mut self, figures: scavenger::Figures) -> Self {
        self.scavenger.get_or_insert(figures);
        self
    }

    /// Refuses what cannot be served.
    pub(super) fn check(&self) -> Result<(), BindError> {
        if !self.allow_remote && !self.addr.ip().to_canonical().is_loopback() {
            return Err(BindError::Remote(self.addr));
        }
        let limits = [
            ("max_connections", self.max_connections == 0),
            ("max_requests_per_connection", self.max_requests == 0),
            ("header_timeout", self.header_timeout.is_zero()),
            ("idle_timeout", self.idle_timeout.is_zero()),
            ("response_timeout", self.response_timeout.is_zero()),
        ];
        if let Some((name, _)) = limits.iter().find(|(_, is_zero)| *is_zero) {
            return Err(BindError::Zero(name));
        }
        for (i, (name, _)) in self.sections.iter().enumerate() {
            let is_taken = |other: &str| other == name;
            if MEMBERS.iter().any(|m| is_taken(m))
                || self.sections[..i].iter().any(|s| is_taken(&s.0))
            {
                return Err(BindError::Section(name.clone()));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("addr", &self.addr)
            .field("allow_remote", &self.allow_remote)
            .field("max_connections", &self.max_connections)
            .field("header_timeout", &self.header_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .field("response_timeout", &self.response_timeout)
            .field("max_requests", &self.max_requests)
            .field("shutdown_grace", &self.shutdown_grace)
            .field("per_shard_metrics", &self.per_shard_metrics)
            .field("sections", &self.sections.iter().map(|s| &s.0).collect::<Vec<_>>())
            .field("health", &self.health.len())
            .finish_non_exhaustive()
    }
}

/// Why the admin server could not be bound.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindError {
    /// Other machines can reach this address, and [`Config::allow_remote`] was not given.
    Remote(SocketAddr),
    /// A limit was given as zero.
    Zero(&'static str),
    /// Two sections have this name, or it is the name of a built-in part.
    Section(String),
    /// The address could not be listened on.
    Listen(SocketAddr, io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(addr) => write!(
                f,
                "{addr} can be reached from other machines; allow_remote(true) serves it anyway"
            ),
            Self::Zero(what) => write!(f, "{what} must not be zero"),
            Self::Section(name) => write!(f, "the section name {name:?} is taken"),
            Self::Listen(addr, e) => write!(f, "cannot listen on {addr}: {e}"),
        }
    }
}

impl Error for BindError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Listen(_, e) => Some(e),
            _ => None,
        }
    }
}
