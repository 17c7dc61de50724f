//! The server: the listener, its connections, and their orderly end.
//!
//! Shutdown: the listener closes, after who waits there was taken in; every connection is ordered to drain, which means that it finishes
//! what was received, flushes and closes; who has not done so when the timeout is over is closed.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::connection;
use crate::mailbox::Order;
use crate::maintenance;
use crate::shared::Shared;

/// Pause after a failed accept; doubles while it goes on failing, up to [`ACCEPT_PAUSE_MOST`].
const ACCEPT_PAUSE: Duration = Duration::from_millis(5);
/// See [`ACCEPT_PAUSE`].
const ACCEPT_PAUSE_MOST: Duration = Duration::from_secs(1);

/// Time that connections get to notice that they are closed by force.
const FORCE_GRACE: Duration = Duration::from_secs(1);

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
    addr: SocketAddr,
}

/// The address could not be listened on.
#[derive(Debug)]
pub struct BindError {
    addr: SocketAddr,
    error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.addr, self.error)
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Connections that had not finished when the timeout was over, and were closed.
    pub forced: usize,
}

impl Server {
    /// Listens where the settings say. Clients can connect from here on and are served once
    /// [`run`](Self::run) runs.
    ///
    /// # Errors
    /// The address is taken, is not this machine's, or needs rights that the process has not.
    pub async fn bind(shared: Arc<Shared>) -> Result<Self, BindError> {
        let addr = shared.settings.resp;
        let refuse = |error| BindError { addr, error };
        let listener = TcpListener::bind(addr).await.map_err(refuse)?;
        let addr = listener.local_addr().map_err(refuse)?;
        // A second server over the same state would not change where the first one is.
        let _ = shared.resp_addr.set(addr);
        Ok(Self { listener, shared, addr })
    }

    /// The address that it listens on, with the real port where 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `stop` completes or a client asks for shutdown; then drains and returns.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Ended {
        let Self { listener, shared, .. } = self;
        let chores = tokio::spawn(maintenance::run(Arc::clone(&shared)));
        // Every connection holds a sender and sends nothing: the channel closes with the last one.
        let (alive, mut all_gone) = mpsc::channel::<()>(1);
        tokio::select! {
            () = accept(&listener, &shared, &alive) => {}
            () = stop => {}
            () = shared.shutdown_asked.notified() => {}
        }
        welcome_waiting(listener, &shared, &alive);
        drop(alive);
        order_all(&shared, Order::Drain);
        let mut forced = 0;
        if timeout(shared.settings.shutdown_timeout, all_gone.recv()).await.is_err() {
            forced = shared.clients.len();
            order_all(&shared, Order::Kill);
            // A task that does not even notice this goes down with the runtime.
            let _ = timeout(FORCE_GRACE, all_gone.recv()).await;
        }
        chores.abort();
        maintenance::last_report(&shared);
        Ended { forced }
    }
}

fn order_all(shared: &Shared, order: Order) {
    shared.keyspace.with_participant(|participant| {
        shared.clients.order_all(order, &participant.pin());
    });
}

/// Accepts for ever. Errors of the listener (no descriptor free, most of all) are counted and
/// waited out: connections that end make room.
async fn accept(listener: &TcpListener, shared: &Arc<Shared>, alive: &mpsc::Sender<()>) {
    let mut pause = ACCEPT_PAUSE;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                pause = ACCEPT_PAUSE;
                welcome(stream, peer, shared, alive);
            }
            Err(error) => {
                shared.stats.accept_errors.add(1);
                // One that went away before we came concerns nobody else.
                let gone = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset];
                if !gone.contains(&error.kind()) {
                    sleep(pause).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE_MOST);
                }
            }
        }
    }
}

/// Closes the listener, and takes in first who was already waiting there: the system has greeted
/// them, and they may have sent commands. Asks the system itself, which may know of connections that
/// the event loop has not heard of yet.
fn welcome_waiting(listener: TcpListener, shared: &Arc<Shared>, alive: &mpsc::Sender<()>) {
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            welcome(stream, peer, shared, alive);
        }
    }
}

fn welcome(stream: TcpStream, peer: SocketAddr, shared: &Arc<Shared>, alive: &mpsc::Sender<()>) {
    shared.stats.connections.add(1);
    // For its task, its place in the tables, and its first buffers.
    if !shared.has_memory_for(0) {
        shared.stats.rejected_connections.add(1);
        shared.stats.oom_refusals.add(1);
        let _ = stream.try_write(b"-OOM the server has no memory for another client\r\n");
        return;
    }
    let local = stream.local_addr().unwrap_or(shared.settings.resp);
    let most = shared.tunables.maxclients.get();
    let admitted = shared.keyspace.with_participant(|participant| {
        shared.clients.admit(peer, local, most, &participant.pin())
    });
    let Some(client) = admitted else {
        shared.stats.rejected_connections.add(1);
        // The socket is new and its buffer empty: this fits, or the client is gone already.
        let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
        return;
    };
    shared.stats.peak_clients.raise(shared.clients.len() as u64);
    // Both are about delay and dead peers; a connection without them still works.
    let _ = stream.set_nodelay(true);
    let keepalive = shared.settings.tcp_keepalive;
    if !keepalive.is_zero() {
        let probes = TcpKeepalive::new().with_time(keepalive).with_interval(keepalive / 3);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&probes);
    }
    let task = connection::serve(stream, client, Arc::clone(shared));
    let alive = alive.clone();
    tokio::spawn(async move {
        task.await;
        drop(alive);
    });
}
