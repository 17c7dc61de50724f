//! The admin HTTP server: `/metrics`, `/stats.json`, `/healthz`.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use flagstone::admin;
//!
//! let config = admin::Config::default()
//!     .section("cache", || serde_json::json!({ "entries": 3 }))
//!     .health(|| Ok(()));
//! let admin = admin::bind(config).await?;
//! println!("metrics at http://{}/metrics", admin.local_addr());
//! admin.serve(async { /* completes when the program shall end */ }).await;
//! # Ok(())
//! # }
//! ```
//!
//! It runs on any Tokio runtime with time and I/O enabled;
//! [`runtime::Builder::admin`](crate::runtime::Builder::admin) does all of this by itself. It
//! speaks HTTP/1 and only reads: every endpoint answers GET and HEAD, and nothing that a client
//! sends changes the program. It holds against clients that are many, slow or rude: everything they
//! could use up has a limit in [`Config`], and running out of file descriptors delays new
//! connections instead of ending the server.
//!
//! Who does what: `accept` takes connections within the cap; `connection` runs one, with its limits
//! in time; `route` picks the endpoint; each file in `endpoint` makes one kind of answer from the
//! shared `Site`.

mod accept;
mod config;
mod connection;
mod endpoint;
mod figures;
mod route;
mod site;
mod spare;

pub use config::{BindError, Config, DEFAULT_ADDR};
pub use figures::Figures;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use accept::Acceptor;
use site::Site;

/// How long a shutdown lets connections go on before they are told: a request that a client has
/// sent already may not have reached us yet, and would be lost with its connection.
pub(crate) const LINGER: Duration = Duration::from_millis(200);

/// How often the exporter's buffers are emptied, whether anyone scrapes or not.
const UPKEEP: Duration = Duration::from_secs(5);

/// Binds the admin server. Clients can connect from now on; they are answered once [`Admin::serve`]
/// runs.
///
/// # Errors
/// See [`BindError`].
///
/// # Panics
/// Outside a Tokio runtime with I/O enabled.
pub async fn bind(config: Config) -> Result<Admin, BindError> {
    bind_now(config)
}

/// As [`bind`], for a caller that is not async but has entered a runtime.
pub(crate) fn bind_now(config: Config) -> Result<Admin, BindError> {
    config.check()?;
    let addr = config.addr;
    let listen = |e| BindError::Listen(addr, e);
    let listener = std::net::TcpListener::bind(addr).map_err(listen)?;
    listener.set_nonblocking(true).map_err(listen)?;
    let local_addr = listener.local_addr().map_err(listen)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(listen)?;
    let site = Arc::new(Site::new(config));
    Ok(Admin { acceptor: Acceptor::new(listener, Arc::clone(&site)), site, local_addr })
}

/// A bound admin server.
#[must_use = "a bound server answers nothing until it serves"]
pub struct Admin {
    acceptor: Acceptor,
    site: Arc<Site>,
    local_addr: SocketAddr,
}

impl Admin {
    /// The address that it listens on; the port is the real one where port 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// A reader of the server's figures, which stays valid when it has ended.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.site.figures.clone()
    }

    /// Serves until `shutdown` completes, then shuts down so that no reply is lost: connections
    /// that the system has taken are still accepted, requests that were sent are answered, idle
    /// connections are closed, and after [`Config::shutdown_grace`] what is left is cut off.
    ///
    /// Dropping the future cuts all connections off at once.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self { mut acceptor, site, .. } = self;
        let mut shutdown = pin!(shutdown);
        let mut connections = JoinSet::new();
        let (closing, told) = watch::channel(false);
        let mut upkeep = interval_at(Instant::now() + UPKEEP, UPKEEP);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);

        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                _ = upkeep.tick() => site.run_upkeep(),
                accepted = acceptor.accept() => {
                    connections.spawn(connection::run(accepted, Arc::clone(&site), told.clone()));
                }
            }
        }

        for accepted in acceptor.into_waiting() {
            connections.spawn(connection::run(accepted, Arc::clone(&site), told.clone()));
        }
        let _ = timeout(LINGER, all_of(&mut connections)).await;
        // The receivers are gone only when every connection has ended by itself.
        let _ = closing.send(true);
        if timeout(site.limits.shutdown_grace, all_of(&mut connections)).await.is_err() {
            tracing::warn!(left = connections.len(), "admin connections cut off at shutdown");
        }
        connections.shutdown().await;
    }
}

async fn all_of(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}
