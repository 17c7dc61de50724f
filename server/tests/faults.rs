//! A server whose requests for memory fail, one after the other: every reply is whole or an error, and the
//! connection goes on or ends; nothing else ends, and nothing stays behind.

mod client_support;
mod scarce;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use client_support::poll;
use flagstone_server::server::Server;
use flagstone_server::settings::Settings;
use flagstone_server::shared::Shared;
use scarce::{Scarce, fail, outstanding, relieve, spare_this_thread};
use tokio::runtime::{Builder, Runtime};
use wire::Wire;

#[global_allocator]
static ALLOCATOR: Scarce = Scarce;

/// From this size on blocks are refused: what has a size that clients choose is above it here, and what
/// the server and its libraries allocate for themselves is below.
const FROM: usize = 8 << 10;

/// A server on a runtime of this process.
struct InProcess {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

fn start() -> InProcess {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let resp = SocketAddr::from(([127, 0, 0, 1], 0));
    let shared = Shared::new(Settings { resp, ..Settings::default() });
    let server = runtime.block_on(Server::bind(Arc::clone(&shared))).unwrap();
    let addr = server.local_addr();
    runtime.spawn(server.run(std::future::pending()));
    InProcess { addr, shared, _runtime: runtime }
}

/// A request, and what it is answered when there is memory.
struct Case {
    request: Vec<u8>,
    reply: String,
}

fn case(words: &[&[u8]], reply: impl Into<String>) -> Case {
    Case { request: wire::encode(words), reply: reply.into() }
}

fn cases() -> Vec<Case> {
    let text = |n: usize| "v".repeat(n);
    let (key, large) = ("k".repeat(9_000), text(100_000));
    let list = format!("[{}]", vec![text(3_000); 30].join(", "));
    let inline =
        Case { request: format!("PING {}\r\n", text(10_000)).into_bytes(), reply: text(10_000) };
    vec![
        case(&[b"GET", b"text"], text(12_000)),
        case(&[b"GET", b"shared"], text(200_000)),
        case(&[b"PING", large.as_bytes()], &large),
        case(&[b"ECHO", large.as_bytes()], &large),
        case(&[b"EXISTS", key.as_bytes()], ":1"),
        case(&[b"LRANGE", b"list", b"0", b"-1"], list),
        case(&[b"MGET", b"text", b"none", b"text"], format!("[{0}, nil, {0}]", text(12_000))),
        case(&[b"STRLEN", b"text"], ":12000"),
        inline,
    ]
}

fn fill(wire: &mut Wire) {
    let text = vec![b'v'; 200_000];
    wire.send(&[b"SET", b"text", &text[..12_000]]);
    wire.send(&[b"SET", b"shared", &text]);
    wire.send(&[b"SET", "k".repeat(9_000).as_bytes(), b"1"]);
    (0..3).for_each(|_| assert_eq!(wire.reply(), "+OK"));
    for n in 1..=30 {
        wire.send(&[b"RPUSH", b"list", &text[..3_000]]);
        assert_eq!(wire.reply(), format!(":{n}"));
    }
}

/// Sends all cases in one go, several times, and reads what comes. Returns how many were answered with
/// errors, and whether the connection ended.
fn run(addr: SocketAddr, cases: &[Case]) -> (usize, bool) {
    let mut wire = Wire::connect(addr);
    let mut errors = 0;
    for round in 0..2 {
        for case in cases {
            // The server may have closed: then what it has answered is still read.
            if std::io::Write::write_all(&mut wire.stream, &case.request).is_err() {
                break;
            }
        }
        for case in cases {
            match wire.reply_or_end() {
                None => return (errors, true),
                Some(reply) if reply.starts_with("-OOM ") => errors += 1,
                Some(reply) => assert!(
                    reply == case.reply,
                    "round {round}: {} instead of {}",
                    &reply[..reply.len().min(80)],
                    &case.reply[..case.reply.len().min(80)]
                ),
            }
        }
    }
    (errors, false)
}

/// Returns over how many requests it went, and how many errors and ends of connections it saw.
fn sweep(once: bool) -> (usize, usize, usize) {
    let server = start();
    let cases = cases();
    fill(&mut Wire::connect(server.addr));
    assert_eq!(run(server.addr, &cases), (0, false));
    let idle = || {
        poll("all connections to end", || server.shared.clients.is_empty().then_some(()));
        outstanding()
    };
    idle();
    let (mut all_errors, mut ends) = (0, 0);
    for first in 1.. {
        fail(first, if once { first } else { u64::MAX }, FROM);
        let (errors, ended) = run(server.addr, &cases);
        let refused = relieve();
        all_errors += errors;
        ends += usize::from(ended);
        assert!(refused > 0 || errors == 0 && !ended, "there was memory");
        let before = idle();
        assert_eq!(
            run(server.addr, &cases),
            (0, false),
            "with memory again, after request {first}"
        );
        // The counters of a stripe, a table that grew: less than any of what was refused.
        let grown = idle() - before;
        assert!(grown < FROM as i64, "{grown} bytes more after request {first}");
        if refused == 0 {
            return (first as usize, all_errors, ends);
        }
    }
    unreachable!("the numbers have no end")
}

// requirement: G7
#[test]
fn every_request_from_the_nth_on_fails_and_then_one_alone() {
    spare_this_thread();
    for once in [false, true] {
        let (swept, errors, ends) = sweep(once);
        println!("{swept} requests: {errors} errors, {ends} connections ended");
        assert!(swept > 20 && errors > 5 && ends > 5, "{swept}, {errors}, {ends}");
    }
}
