//! A server whose requests for memory fail, one after the other: every reply is whole or an error, and the
//! connection goes on or ends; nothing else ends, and nothing stays behind.
//!
//! A scenario is run with the N-th request refused, alone or with all that follow, for every N until it
//! makes no more; after each run there is memory again, and what it left is compared with what its
//! replies said. When the server is gone, so is every byte that it took.

#[path = "../client_support/mod.rs"]
mod client_support;
mod lists;
mod pubsub;
#[path = "../scarce/mod.rs"]
mod scarce;
mod strings;
#[path = "../wire/mod.rs"]
mod wire;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use client_support::PATIENCE;
use flagstone_server::server::Server;
use flagstone_server::settings::Settings;
use flagstone_server::shared::Shared;
use scarce::{Scarce, fail, outstanding, relieve, spare_this_thread};
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static ALLOCATOR: Scarce = Scarce;

/// The allocator is one, so sweeps take turns.
static TURN: Mutex<()> = Mutex::new(());

/// A server on a runtime of this process.
struct InProcess {
    addr: SocketAddr,
    shared: Arc<Shared>,
    runtime: Runtime,
}

/// What a run saw of the failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Requests that were answered with `-OOM`.
    errors: usize,
    /// Connections that ended.
    ends: usize,
}

/// What is swept over.
trait Scenario: Sized {
    /// From this size on blocks are refused: what has a size that clients choose is above it here, and what
    /// the server and its libraries allocate for themselves is below.
    const FROM: usize;

    /// Connects, and stores what is to be there. There is memory.
    fn begin(server: &InProcess) -> Self;
    /// The work, while requests fail. Checks every reply.
    fn work(&mut self) -> Seen;
    /// There is memory again: all is as the replies said, and is taken away.
    fn end(self);
}

/// What a sweep came to.
#[derive(Clone, Copy, Debug, Default)]
struct Swept {
    requests: u64,
    seen: Seen,
}

fn start() -> InProcess {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let resp = SocketAddr::from(([127, 0, 0, 1], 0));
    let shared = Shared::new(Settings { resp, ..Settings::default() });
    let server = runtime.block_on(Server::bind(Arc::clone(&shared))).unwrap();
    let addr = server.local_addr();
    runtime.spawn(server.run(std::future::pending()));
    InProcess { addr, shared, runtime }
}

/// Polls often: a sweep waits a thousand times.
fn soon<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Waits until all connections are gone, and ends the server. Returns how many bytes are out then.
fn stop(server: InProcess) -> i64 {
    soon("all connections to end", || server.shared.clients.is_empty().then_some(()));
    let InProcess { shared, runtime, .. } = server;
    drop(runtime);
    soon("everybody to let go of the server", || (Arc::strong_count(&shared) == 1).then_some(()));
    drop(shared);
    outstanding()
}

/// One run without failures on a server of its own: what is made once in a process is made. Returns how
/// many bytes are out when it is gone.
fn warm_up<S: Scenario>() -> i64 {
    let server = start();
    for _ in 0..2 {
        let mut scenario = S::begin(&server);
        assert_eq!(scenario.work(), Seen::default());
        scenario.end();
    }
    stop(server)
}

/// Sweeps, and returns what it came to.
fn sweep<S: Scenario>(once: bool) -> Swept {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    spare_this_thread();
    let before = warm_up::<S>();
    let server = start();
    let mut swept = Swept::default();
    for first in 1.. {
        let mut scenario = S::begin(&server);
        fail(first, if once { first } else { u64::MAX }, S::FROM);
        let seen = scenario.work();
        let refused = relieve();
        assert!(refused > 0 || seen == Seen::default(), "there was memory: {seen:?}");
        scenario.end();
        // That all goes on with memory is seen with every end; that all works, now and then.
        if refused == 0 || first % 8 == 1 {
            let mut again = S::begin(&server);
            assert_eq!(again.work(), Seen::default(), "with memory again, after request {first}");
            again.end();
        }
        swept.requests = first;
        swept.seen.errors += seen.errors;
        swept.seen.ends += seen.ends;
        if refused == 0 {
            break;
        }
    }
    assert_eq!(stop(server) - before, 0, "bytes that stay");
    println!("once: {once}, {swept:?}");
    swept
}
