//! The admin server outlives a process that has run out of file descriptors. A binary of its own,
//! because the limit is the process's.
#![cfg(unix)]

mod common;

use std::fs::File;

use common::{Server, config, wait_until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn running_out_of_descriptors_delays_connections_and_ends_nothing() {
    let server = Server::start(config());
    assert_eq!(server.get("/healthz").status, 200);
    // Its end of that connection must not become the free descriptor below.
    wait_until("the first connection to close", || server.figures.snapshot().open_connections == 0);

    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..before }).expect("setrlimit");
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
        assert!(taken.len() < 100, "the limit is not in force");
    }
    // One descriptor for the client; none is left for the server's end of the connection.
    drop(taken.pop());
    let mut client = server.connect();
    client.send("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_until("accepting to fail, and fail again", || {
        server.figures.snapshot().accept_errors >= 3
    });
    assert_eq!(server.figures.snapshot().open_connections, 0);

    drop(taken);
    assert_eq!(client.response(true).status, 200, "the client that waited is served");
    setrlimit(Resource::Nofile, before).expect("setrlimit");
    assert_eq!(server.get("/metrics").status, 200);
    // It waited between its attempts: a loop that spins fails thousands of times.
    assert!(server.figures.snapshot().accept_errors < 1_000);
}
