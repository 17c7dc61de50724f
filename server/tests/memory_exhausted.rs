//! The server in an address space that is used up: every request is answered, nothing ends, and with
//! memory again all works as before.
#![cfg(target_os = "linux")]

mod client_support;
mod wire;

use client_support::{Server, http_get, poll};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use wire::Wire;

const OOM: &str = "-OOM the server has no memory for this";
const MIB: u64 = 1 << 20;

/// Lets the server's address space grow by `more` bytes and no further; without a number, at will.
fn limit(server: &Server, more: Option<u64>) {
    let id = server.process.id();
    let statm = std::fs::read_to_string(format!("/proc/{id}/statm")).unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    let current = more.map(|more| pages * rustix::param::page_size() as u64 + more);
    let pid = Pid::from_raw(i32::try_from(id).unwrap());
    prlimit(pid, Resource::As, Rlimit { current, maximum: None }).unwrap();
}

fn is_oom(reply: &str) -> bool {
    reply.starts_with("-OOM ")
}

/// Requests sent before their replies are read.
const PIPELINE: usize = 50;

/// Sets keys with values of `bytes` until one is refused. Returns how many were set, and a number that no
/// key has.
fn fill(wire: &mut Wire, bytes: usize) -> (usize, usize) {
    let value = vec![b'v'; bytes];
    let pipeline = if bytes < 1 << 20 { PIPELINE } else { 1 };
    let mut stored = 0;
    for first in (0..).step_by(pipeline) {
        assert!(first < 1_000_000, "never refused");
        let numbers = first..first + pipeline;
        for n in numbers.clone() {
            wire.send(&[b"SET", format!("key:{n}").as_bytes(), &value]);
        }
        let replies: Vec<String> = numbers.clone().map(|_| wire.reply()).collect();
        assert!(replies.iter().all(|reply| reply == "+OK" || reply == OOM), "{replies:?}");
        stored += replies.iter().filter(|reply| *reply == "+OK").count();
        if replies.iter().any(|reply| reply == OOM) {
            return (stored, numbers.end);
        }
    }
    unreachable!("the numbers have no end")
}

/// Deletes the keys. Returns how many there were.
fn clear(wire: &mut Wire, end: usize) -> usize {
    let mut deleted = 0;
    for first in (0..end).step_by(PIPELINE) {
        let numbers = first..end.min(first + PIPELINE);
        numbers.clone().for_each(|n| wire.post(&format!("DEL key:{n}")));
        deleted += numbers.filter(|_| wire.reply() == ":1").count();
    }
    deleted
}

/// What is refused without memory, and what is not.
fn without_memory(wire: &mut Wire, mut large: Wire, stored: usize, bytes: usize) {
    let refused = [
        "SET new 1",
        "APPEND key:0 x",
        "LPUSH new a",
        "INCR new",
        "MSET new 1",
        "BLPOP new 1",
        "SUBSCRIBE channel",
        "PUBLISH channel message",
    ];
    for command in refused {
        assert_eq!(wire.run(command), OOM, "{command}");
    }
    assert_eq!(wire.run("GET new"), "nil");
    assert_eq!(wire.int("DBSIZE"), stored as i64);
    assert_eq!(wire.int("STRLEN key:0"), bytes as i64);
    assert_eq!(wire.run("GET key:0"), "v".repeat(bytes));
    // A reply that there is no memory for is an error, and the next one is whole. Longer values would be
    // shared with the reply and not copied.
    if bytes < 16 << 10 {
        let mut many = vec![b"key:0".as_slice(); (64 << 20) / bytes];
        many[0] = b"MGET";
        wire.send(&many);
        let reply = wire.reply();
        assert!(is_oom(&reply), "{}", &reply[..reply.len().min(100)]);
    }
    assert_eq!(wire.run("PING"), "+PONG");
    // A request that does not fit is answered, and ends the connection that it stands in.
    // The end of the connection may come before the answer was read: it was still sending.
    if let Some(reply) = large.reply_or_error(&[b"SET", b"large", &vec![b'l'; 64 << 20]]) {
        assert!(is_oom(&reply), "{reply}");
    }
    assert_eq!(wire.run("EXISTS large"), ":0");
    assert!(wire.info_number("oom_refusals") > refused.len() as u64);
}

// requirement: W4
#[test]
fn without_memory_every_request_is_answered_and_nothing_ends() {
    let server = Server::start(&["--workers", "2"]);
    let mut wire = Wire::connect(server.resp);
    assert_eq!(http_get(server.admin, "/metrics").unwrap().status, 200);
    wire.run("SET warm 1");
    wire.run("FLUSHALL");
    let at_start = wire.info_number("used_memory");
    for (left, bytes) in [(48, 100_000), (40, 1_000), (64, 12_000), (50, 3_000_000), (0, 1_000)] {
        let mut large = Wire::connect(server.resp);
        assert_eq!(large.run("PING"), "+PONG");
        limit(&server, Some(left * MIB));
        let (stored, end) = fill(&mut wire, bytes);
        if stored > 0 {
            // Less than what must be there for anything more.
            limit(&server, Some(20 * MIB));
            without_memory(&mut wire, large, stored, bytes);
            // Room is made by commands that free.
            assert_eq!(clear(&mut wire, end), stored);
        } else {
            let mut late = Wire::connect(server.resp);
            let refused = "-OOM the server has no memory for another client";
            assert_eq!(late.reply_or_end().as_deref(), Some(refused));
        }
        limit(&server, None);
        assert_eq!(wire.run("SET new 1"), "+OK", "with memory again");
        assert_eq!(Wire::connect(server.resp).run("GET new"), "1");
        assert_eq!(wire.run("FLUSHALL"), "+OK");
    }
    poll("the memory to come back", || {
        (wire.info_number("used_memory") < at_start + 4 * MIB).then_some(())
    });
    assert_eq!(http_get(server.admin, "/healthz").unwrap().status, 200);
    assert!(server.terminate().success());
}
