//! Strings, and requests and replies of all kinds in pipelines.

use std::net::SocketAddr;

use super::{InProcess, Scenario, Seen, sweep};
use crate::wire::{self, Wire};

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
        case(&[b"SET", b"other", &text(20_000).into_bytes()], "+OK"),
        case(&[b"SET", b"text", &text(12_000).into_bytes(), b"GET"], text(12_000)),
        case(&[b"SET", b"shared", &text(200_000).into_bytes(), b"XX"], "+OK"),
        case(&[b"SETNX", b"text", large.as_bytes()], ":0"),
        case(&[b"MSET", b"a", &text(9_000).into_bytes(), b"b", &text(70_000).into_bytes()], "+OK"),
        case(&[b"LPOP", b"none"], "nil"),
        case(&[b"GETSET", b"text", &text(12_000).into_bytes()], text(12_000)),
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

/// What changes with every run, on a key of its own: appended text is there or it is not, and what an
/// error was answered for is where it was.
fn change(addr: SocketAddr) -> Option<()> {
    let mut wire = Wire::connect(addr);
    let piece = vec![b'p'; 9_000];
    let mut ask = |words: &[&[u8]]| -> Option<String> {
        std::io::Write::write_all(&mut wire.stream, &wire::encode(words)).ok()?;
        // What could not even be read ends the connection.
        wire.reply_or_end().filter(|reply| !reply.starts_with("-OOM no memory for a request"))
    };
    let mut length = 0;
    ask(&[b"DEL", b"grown"])?;
    for _ in 0..6 {
        let reply = ask(&[b"APPEND", b"grown", &piece])?;
        if !reply.starts_with("-OOM ") {
            length += piece.len();
            assert_eq!(reply, format!(":{length}"));
        }
        assert_eq!(ask(&[b"STRLEN", b"grown"])?, format!(":{length}"));
    }
    let reply = ask(&[b"GETDEL", b"grown"])?;
    let left = if reply.starts_with("-OOM ") { length } else { 0 };
    assert_eq!(ask(&[b"STRLEN", b"grown"])?, format!(":{left}"));
    Some(())
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

/// Pipelines of the cases, and changes.
struct Strings {
    addr: SocketAddr,
    cases: Vec<Case>,
}

impl Scenario for Strings {
    const FROM: usize = 8 << 10;

    fn begin(server: &InProcess) -> Self {
        fill(&mut Wire::connect(server.addr));
        Self { addr: server.addr, cases: cases() }
    }

    fn work(&mut self) -> Seen {
        let (errors, ended) = run(self.addr, &self.cases);
        let _ = change(self.addr);
        Seen { errors, ends: usize::from(ended) }
    }

    fn end(self) {
        assert_eq!(run(self.addr, &self.cases), (0, false), "with memory again");
        assert_eq!(change(self.addr), Some(()));
        assert_eq!(Wire::connect(self.addr).run("FLUSHALL"), "+OK");
    }
}

// requirement: G7
#[test]
fn every_request_from_the_nth_on_fails_and_then_one_alone() {
    for once in [false, true] {
        let swept = sweep::<Strings>(once);
        // One refusal alone is made up for with less, or answered.
        assert!(swept.requests > 20 && swept.seen.errors > 5, "{swept:?}");
        assert!(once || swept.seen.ends > 5, "{swept:?}");
    }
}
