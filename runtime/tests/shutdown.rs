//! Shutting down loses no reply, and ends.

mod common;

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Server, config};
use serde_json::{Value, json};

/// A section that says when it is asked and answers when it is released.
struct Gate {
    asked: mpsc::Receiver<()>,
    release: mpsc::Sender<()>,
}

fn gate() -> (Gate, impl Fn() -> Value + Send + Sync + 'static) {
    let (ask, asked) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let ends = Arc::new(Mutex::new((ask, released)));
    let section = move || {
        let ends = ends.lock().expect("lock");
        let _ = ends.0.send(());
        let _ = ends.1.recv();
        json!("x".repeat(1 << 20))
    };
    (Gate { asked, release }, section)
}

#[test]
fn a_response_in_flight_arrives_whole() {
    let (gate, section) = gate();
    let mut server = Server::start(config().section("slow", section));
    let mut client = server.connect();
    client.send("GET /stats.json HTTP/1.1\r\nHost: h\r\n\r\n");
    gate.asked.recv_timeout(common::PATIENCE).expect("the request arrives");

    server.ask_to_stop();
    let addr = server.addr;
    common::wait_until("the port to close", || std::net::TcpStream::connect(addr).is_err());
    gate.release.send(()).expect("the section waits");

    let response = client.response(true);
    assert_eq!(response.status, 200);
    let stats: Value = serde_json::from_str(&response.body).expect("whole");
    assert_eq!(stats["slow"].as_str().map(str::len), Some(1 << 20));
    assert_eq!(client.until_closed(), "", "and then the connection ends");
    server.wait_until_stopped();
}

#[test]
fn requests_sent_before_the_shutdown_are_answered() {
    let mut server = Server::start(config());
    let mut idle = server.connect();
    assert_eq!(idle.get("/healthz").status, 200);
    // One request on a connection that was idle, others on connections that nobody has accepted
    // yet.
    let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
    clients.push(idle);
    for client in &mut clients {
        client.send("GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    server.ask_to_stop();
    for mut client in clients {
        assert_eq!(client.response(true).status, 200);
        client.until_closed();
    }
    server.wait_until_stopped();
    assert_eq!(server.figures.snapshot().open_connections, 0);
}

#[test]
fn idle_and_silent_connections_do_not_hold_it_up() {
    let mut server = Server::start(config().shutdown_grace(common::PATIENCE));
    let mut idle = server.connect();
    assert_eq!(idle.get("/healthz").status, 200);
    let mut silent = server.connect();
    server.ask_to_stop();
    let start = Instant::now();
    server.wait_until_stopped();
    assert!(start.elapsed() < common::PATIENCE / 2);
    assert_eq!((idle.until_closed(), silent.until_closed()), (String::new(), String::new()));
}

#[test]
fn what_does_not_finish_within_the_grace_is_cut_off() {
    let (gate, section) = gate();
    let grace = Duration::from_millis(200);
    let mut server = Server::start(config().shutdown_grace(grace).section("slow", section));
    let mut client = server.connect();
    client.send("GET /stats.json HTTP/1.1\r\nHost: h\r\n\r\n");
    gate.asked.recv_timeout(common::PATIENCE).expect("the request arrives");
    let start = Instant::now();
    server.ask_to_stop();
    server.wait_until_stopped();
    assert!(start.elapsed() >= grace);
    assert_eq!(client.until_closed(), "");
    drop(gate);
}

#[test]
fn dropping_the_server_closes_its_port() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let admin = flagstone::admin::bind(config()).await.expect("bind");
        let addr = admin.local_addr();
        drop(admin);
        assert!(tokio::net::TcpStream::connect(addr).await.is_err());
    });
}
