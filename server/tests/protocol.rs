//! The wire seen from outside: whole, cut, pipelined, inline and hostile requests.

mod client_support;
mod wire;

use client_support::{Server, poll};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;
use wire::{Wire, encode};

#[test]
fn ten_thousand_requests_in_one_pipeline() {
    const REQUESTS: usize = 10_000;
    let server = Server::start(&[]);
    let mut wire = Wire::connect(server.resp);
    let request = encode(&[b"INCR", b"n"]);
    let mut writer = wire.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || writer.write_all(&request.repeat(REQUESTS)).unwrap());
    for n in 1..=REQUESTS {
        assert_eq!(wire.reply(), format!(":{n}"));
    }
    sending.join().unwrap();
    assert!(wire.is_silent());
}

#[test]
fn a_request_byte_by_byte() {
    let server = Server::start(&[]);
    let mut wire = Wire::connect(server.resp);
    wire.stream.set_nodelay(true).unwrap();
    let mut bytes = encode(&[b"SET", b"k", b"a\r\nb"]);
    bytes.extend_from_slice(b"GET k\r\n");
    for byte in bytes {
        wire.raw(&[byte]);
    }
    assert_eq!(wire.reply(), "+OK");
    assert_eq!(wire.reply(), "a\r\nb");
}

#[test]
fn inline_requests_and_empty_lines() {
    let server = Server::start(&[]);
    let mut wire = Wire::connect(server.resp);
    wire.raw(b"\r\n\r\nPING\r\n*0\r\nSET \"a key\" 'a \"value\"'\nGET \"a key\"\r\n");
    assert_eq!(wire.reply(), "+PONG");
    assert_eq!(wire.reply(), "+OK");
    assert_eq!(wire.reply(), "a \"value\"");
}

#[test]
fn what_is_no_request_gets_an_error_and_the_connection_closed() {
    let server = Server::start(&[]);
    let endless_count = [b"*".as_slice(), &[b'1'; 100]].concat();
    let endless_line = vec![b'x'; 70 * 1024];
    for (bytes, expected) in [
        (b"*1000000000\r\n".as_slice(), "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*9223372036854775807\r\n", "invalid multibulk length"),
        (b"*x\r\n", "invalid multibulk length"),
        (b"*2\r\n$-5\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n$9223372036854775807\r\n", "invalid bulk length"),
        (b"*1\r\n*1\r\n*1\r\n*1\r\n", "expected '$', got '*'"),
        (b"*1\r\n+PING\r\n", "expected '$', got '+'"),
        (b"*1\r\n$4\r\nPINGxx", "bulk string not followed by CRLF"),
        (b"SET k \"v\r\n", "unbalanced quotes in request"),
        (&endless_count, "too big mbulk count string"),
        (&endless_line, "too big inline request"),
    ] {
        let mut wire = Wire::connect(server.resp);
        // What was right before is still answered.
        wire.raw(b"PING\r\n");
        wire.raw(bytes);
        assert_eq!(wire.reply(), "+PONG");
        assert_eq!(wire.reply(), format!("-ERR Protocol error: {expected}"));
        assert_eq!(wire.reply_or_end(), None, "{expected}");
    }
    let mut wire = Wire::connect(server.resp);
    assert_eq!(wire.info_number("protocol_errors"), 13);
}

/// A client may announce as much as it likes: memory follows what arrives.
#[test]
fn announced_sizes_cost_nothing() {
    let server = Server::start(&[]);
    let mut observer = Wire::connect(server.resp);
    let before = observer.info_number("used_memory");
    let announcing: Vec<Wire> = (0..50)
        .map(|i| {
            let mut wire = Wire::connect(server.resp);
            wire.raw(if i % 2 == 0 { b"*1048576\r\n$1\r\n" } else { b"*2\r\n$536870912\r\nab" });
            wire
        })
        .collect();
    poll("fifty clients that have announced", || {
        let list = observer.run("CLIENT LIST");
        (list.lines().filter(|line| !line.contains(" qbuf=0 ")).count() >= 50).then_some(())
    });
    let after = observer.info_number("used_memory");
    // A read buffer each, and the connection itself.
    assert!(after < before + 50 * 100 * 1024, "{before} -> {after}");
    drop(announcing);
}

#[test]
fn a_large_value_goes_in_and_out_unchanged() {
    const BYTES: usize = 40 << 20;
    let server = Server::start(&[]);
    let mut wire = Wire::connect(server.resp);
    let value: Vec<u8> = (0..BYTES).map(|i| (i % 251) as u8).collect();
    wire.send(&[b"SET", b"big", &value]);
    assert_eq!(wire.reply(), "+OK");
    assert_eq!(wire.int("STRLEN big"), BYTES as i64);
    wire.post("GET big");
    let mut reply = vec![0; format!("${BYTES}\r\n").len() + BYTES + 2];
    wire.stream.read_exact(&mut reply).unwrap();
    let start = reply.len() - BYTES - 2;
    assert!(reply[start..start + BYTES] == value, "the value came back changed");
    assert_eq!(wire.run("PING"), "+PONG");
    // The read buffer that it came through is gone: what is in use is about the value itself.
    let used = wire.info_number("used_memory");
    assert!(used < (BYTES + BYTES / 4) as u64, "{used}");
}

#[test]
fn both_protocol_versions_on_one_connection() {
    let server = Server::start(&[]);
    let mut wire = Wire::connect(server.resp);
    assert_eq!(wire.run("GET none"), "nil");
    assert!(wire.run("HELLO 3").starts_with("{server: flagstone"));
    assert_eq!(wire.run("GET none"), "null");
    assert_eq!(wire.run("CONFIG GET databases"), "{databases: 16}");
    assert_eq!(wire.run("BLPOP none 0.01"), "null");
    wire.raw(b"HELLO 2\r\n");
    wire.resp3 = false;
    assert!(wire.reply().starts_with("[server, flagstone"));
    assert_eq!(wire.run("CONFIG GET databases"), "[databases, 16]");
}

#[test]
fn quit_answers_and_closes_and_the_rest_is_not_run() {
    let server = Server::start(&[]);
    let mut wire = Wire::connect(server.resp);
    wire.raw(b"SET a 1\r\nQUIT\r\nSET b 2\r\n");
    assert_eq!(wire.reply(), "+OK");
    assert_eq!(wire.reply(), "+OK");
    assert_eq!(wire.reply_or_end(), None);
    let mut other = Wire::connect(server.resp);
    assert_eq!(other.run("EXISTS a b"), ":1");
}

/// `printf ... | nc` closes its side as soon as it has sent everything.
#[test]
fn a_client_that_only_half_closes_gets_its_replies() {
    let server = Server::start(&[]);
    let mut wire = Wire::connect(server.resp);
    wire.raw(b"PING\r\nECHO bye\r\n");
    wire.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(wire.reply(), "+PONG");
    assert_eq!(wire.reply(), "bye");
    assert_eq!(wire.reply_or_end(), None);
}

/// A client that sends and never reads is not read from any more, whatever it sends.
#[test]
fn a_client_that_does_not_read_is_held_back() {
    const REQUESTS: usize = 8_000;
    const VALUE: usize = 25_000;
    let server = Server::start(&[]);
    let mut observer = Wire::connect(server.resp);
    observer.send(&[b"SET", b"v", &vec![b'v'; VALUE]]);
    observer.reply();
    let mut stubborn = Wire::connect(server.resp);
    // 56 kB of requests, which the sockets' buffers hold, for 200 MB of replies.
    stubborn.raw(&b"GET v\r\n".repeat(REQUESTS));
    let deadline = std::time::Instant::now() + Duration::from_secs(3);
    let mut most = 0;
    while std::time::Instant::now() < deadline {
        most = most.max(observer.info_number("used_memory"));
    }
    assert!(most < 20 << 20, "{most} bytes in use");
    // It was only held back: everything comes once it reads.
    for _ in 0..REQUESTS {
        assert_eq!(stubborn.reply().len(), VALUE);
    }
}
