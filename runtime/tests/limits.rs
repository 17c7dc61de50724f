//! Clients that are many, slow or rude, and settings that cannot be served.

mod common;

use std::time::{Duration, Instant};

use common::{Client, Server, config, wait_until};
use flagstone::admin::{self, BindError, Config};
use serde_json::json;

/// Short enough to wait for, long enough not to hit the client of a slow machine.
const SHORT: Duration = Duration::from_secs(1);

fn bind_error(config: Config) -> BindError {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(admin::bind(config)).expect_err("this cannot be served")
}

#[test]
fn an_address_that_others_can_reach_is_refused_unless_allowed() {
    for ip in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:192.0.2.1]:0"] {
        let addr = ip.parse::<std::net::SocketAddr>().expect("an address");
        let error = bind_error(Config::new(addr));
        assert!(matches!(error, BindError::Remote(a) if a == addr), "{error:?}");
        assert!(error.to_string().contains("allow_remote"), "{error}");
    }
    let all = Config::new(([0, 0, 0, 0], 0)).allow_remote(true);
    let server = Server::start(all);
    let mut client = Client::connect(([127, 0, 0, 1], server.addr.port()).into());
    assert_eq!(client.get("/healthz").status, 200);
}

#[test]
fn limits_of_zero_and_taken_names_are_refused() {
    let zero = |c: Config| match bind_error(c) {
        BindError::Zero(name) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(zero(config().max_connections(0)), "max_connections");
    assert_eq!(zero(config().max_requests_per_connection(0)), "max_requests_per_connection");
    assert_eq!(zero(config().header_timeout(Duration::ZERO)), "header_timeout");
    assert_eq!(zero(config().idle_timeout(Duration::ZERO)), "idle_timeout");
    assert_eq!(zero(config().response_timeout(Duration::ZERO)), "response_timeout");
    let taken = |c: Config| match bind_error(c) {
        BindError::Section(name) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(taken(config().section("heap", || json!(1))), "heap");
    let twice = config().section("mine", || json!(1)).section("mine", || json!(2));
    assert_eq!(taken(twice), "mine");
}

#[test]
fn a_busy_port_is_an_error_that_names_it() {
    let server = Server::start(config());
    let error = bind_error(Config::new(server.addr));
    assert!(matches!(error, BindError::Listen(addr, _) if addr == server.addr), "{error:?}");
    assert!(error.to_string().contains(&server.addr.to_string()), "{error}");
}

#[test]
fn the_longest_durations_are_not_an_overflow() {
    let server = Server::start(
        config()
            .header_timeout(Duration::MAX)
            .idle_timeout(Duration::MAX)
            .response_timeout(Duration::MAX)
            .shutdown_grace(Duration::MAX),
    );
    let mut client = server.connect();
    assert_eq!(client.get("/healthz").status, 200);
    assert_eq!(client.get("/metrics").status, 200);
}

#[test]
fn a_head_that_does_not_arrive_ends_the_connection() {
    let server = Server::start(config().header_timeout(SHORT));
    // Nothing at all, and a head that never ends.
    for sent in ["", "GET /healthz HTTP/1.1\r\nHost: h\r\nX-Slow: "] {
        let start = Instant::now();
        let mut client = server.connect();
        client.send(sent);
        client.until_closed();
        assert!(start.elapsed() >= SHORT - Duration::from_millis(20), "{sent:?} too early");
    }
    wait_until("both to count", || server.figures.snapshot().timeouts == 2);
}

#[test]
fn a_head_in_drops_does_not_gain_time() {
    let server = Server::start(config().header_timeout(SHORT));
    let mut client = server.connect();
    let start = Instant::now();
    // A byte now and then, each well within the limit; the writes fail once the server has closed.
    client.send("GET /healthz HTTP/1.1\r\nX: ");
    while start.elapsed() < common::PATIENCE {
        std::thread::sleep(SHORT / 20);
        if std::io::Write::write_all(&mut client.stream, b"x").is_err() {
            break;
        }
    }
    assert!(start.elapsed() < common::PATIENCE, "the connection went on");
    wait_until("it to count", || server.figures.snapshot().timeouts == 1);
}

#[test]
fn the_limit_for_heads_is_not_the_limit_for_idling() {
    let server = Server::start(config().header_timeout(SHORT));
    let mut client = server.connect();
    assert_eq!(client.get("/healthz").status, 200);
    // The pause between two scrapes is longer than a head may take.
    std::thread::sleep(SHORT * 2);
    assert_eq!(client.get("/healthz").status, 200);
    // The second head has the same limit as the first.
    client.send("GET /hea");
    client.until_closed();
    assert_eq!(server.figures.snapshot().timeouts, 1);
}

#[test]
fn an_idle_connection_ends() {
    let server = Server::start(config().idle_timeout(SHORT));
    let mut client = server.connect();
    assert_eq!(client.get("/healthz").status, 200);
    assert_eq!(client.until_closed(), "");
    wait_until("it to count", || server.figures.snapshot().timeouts == 1);
}

#[test]
fn a_response_that_takes_too_long_ends_the_connection() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let server = Server::start(config().response_timeout(SHORT).section("slow", move || {
        let _ = held.lock().expect("lock").recv();
        json!(1)
    }));
    let mut client = server.connect();
    client.send("GET /stats.json HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.until_closed(), "");
    // Others are served meanwhile.
    assert_eq!(server.get("/healthz").status, 200);
    drop(release);
}

#[test]
fn a_client_that_does_not_read_gives_its_place_back() {
    let big = "x".repeat(32 << 20);
    let server = Server::start(
        config().max_connections(1).idle_timeout(SHORT).section("big", move || json!(big)),
    );
    let mut deaf = server.connect();
    deaf.send("GET /stats.json HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_until("the request", || server.figures.snapshot().requests == 1);
    // The only place is the deaf client's until the limit.
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.figures.snapshot().timeouts, 1);
}

#[test]
fn oversize_heads_are_answered_with_431() {
    let server = Server::start(config());
    let long = format!("GET /healthz HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    let many = format!("GET /healthz HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(100));
    for request in [long, many] {
        let mut client = server.connect();
        // The server may close before it has read all of it.
        let _ = std::io::Write::write_all(&mut client.stream, request.as_bytes());
        let answer = client.until_closed();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn connections_past_the_cap_wait_and_are_then_served() {
    let server = Server::start(config().max_connections(3));
    let mut open: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for client in &mut open {
        assert_eq!(client.get("/healthz").status, 200);
    }
    let mut waiting = server.connect();
    waiting.send("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n");
    // The three go on, the fourth does not begin.
    for client in &mut open {
        assert_eq!(client.get("/healthz").status, 200);
    }
    let figures = server.figures.snapshot();
    assert_eq!((figures.open_connections, figures.connections), (3, 3));
    drop(open.pop());
    assert_eq!(waiting.response(true).status, 200);
    assert_eq!(server.figures.snapshot().connections, 4);
}

#[test]
fn a_connection_ends_after_its_last_request() {
    let server = Server::start(config().max_requests_per_connection(2));
    let mut client = server.connect();
    assert_eq!(client.get("/healthz").header("connection"), None);
    assert_eq!(client.get("/healthz").header("connection"), Some("close"));
    assert_eq!(client.until_closed(), "");
}

#[test]
fn clients_that_vanish_leave_nothing_open() {
    let server = Server::start(config());
    for sent in ["", "GET", "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n"] {
        for _ in 0..20 {
            server.connect().send(sent);
        }
    }
    wait_until("all to close", || {
        let figures = server.figures.snapshot();
        figures.connections == 60 && figures.open_connections == 0
    });
}
