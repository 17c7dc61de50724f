//! Limits and ends: memory, connections, descriptors, idle time, output, shutdown.

mod client_support;
mod wire;

use client_support::{PATIENCE, Running, Scratch, Server, poll, signal_terminate};
use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};
use wire::{Wire, encode};

const OOM: &str = "-OOM command not allowed when used memory > 'maxmemory'.";

#[test]
fn at_the_memory_limit_writes_are_refused_and_the_rest_goes_on() {
    const LIMIT: u64 = 32 << 20;
    let server = Server::start(&["--maxmemory", "32mb"]);
    let mut wire = Wire::connect(server.resp);
    assert_eq!(wire.info_number("maxmemory"), LIMIT);
    wire.run("RPUSH list a b c");
    wire.run("SET counter 1");
    let value = vec![b'v'; 100_000];
    let mut stored = 0;
    let refusal = loop {
        wire.send(&[b"SET", format!("key:{stored}").as_bytes(), &value]);
        let reply = wire.reply();
        if reply != "+OK" {
            break reply;
        }
        stored += 1;
        assert!(stored < 400, "never refused");
    };
    assert_eq!(refusal, OOM);
    // The buffer that a request comes through is not the keyspace's growth: it may come on top.
    let used = wire.info_number("used_memory");
    assert!(used <= LIMIT + (1 << 20), "{used}");
    assert!(used >= LIMIT - (1 << 20), "refused at {used}");
    // What is refused changes nothing. Larger than any room that buffers may have left by now.
    let large = vec![b'l'; 4 << 20];
    for command in ["RPUSH list", "LPUSHX list", "SET counter", "MSET counter", "APPEND key:0"] {
        let words = command.split(' ').map(str::as_bytes).chain([large.as_slice()]);
        wire.send(&words.collect::<Vec<_>>());
        assert_eq!(wire.reply(), OOM, "{command}");
    }
    assert_eq!(wire.run("GET counter"), "1");
    assert_eq!(wire.int("DBSIZE"), stored + 2);
    // Reads, pops, deletes and deadlines go on.
    assert_eq!(wire.run("LPOP list"), "a");
    assert_eq!(wire.run("EXPIRE counter 100"), ":1");
    assert_eq!(wire.int("STRLEN key:0"), 100_000);
    assert_eq!(wire.run("LRANGE list 0 -1"), "[b, c]");
    assert!(wire.info_number("oom_refusals") >= 2);
    for n in 0..stored / 2 {
        assert_eq!(wire.int(&format!("DEL key:{n}")), 1);
    }
    assert_eq!(wire.run("SET room 1"), "+OK");
    // A higher limit counts at once.
    assert_eq!(wire.run("CONFIG SET maxmemory 64mb"), "+OK");
    wire.send(&[b"SET", b"more", &vec![b'm'; 16 << 20]]);
    assert_eq!(wire.reply(), "+OK");
}

/// Many writers at the limit at once: each of them may be one request over, together no more.
#[test]
fn concurrent_writers_do_not_run_past_the_limit() {
    const LIMIT: u64 = 48 << 20;
    let server = Server::start(&["--maxmemory", "48mb", "--workers", "4"]);
    let addr = server.resp;
    let writers: Vec<_> = (0..8)
        .map(|id| {
            std::thread::spawn(move || {
                let mut wire = Wire::connect(addr);
                let value = vec![b'v'; 20_000];
                let mut refused = 0;
                for n in 0..1000 {
                    wire.send(&[b"SET", format!("{id}:{n}").as_bytes(), &value]);
                    match wire.reply().as_str() {
                        "+OK" => {}
                        OOM => refused += 1,
                        other => panic!("{other}"),
                    }
                }
                refused
            })
        })
        .collect();
    let refused: usize = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    assert!(refused > 0, "160 MB fitted into 48 MiB");
    let mut wire = Wire::connect(addr);
    let peak = wire.info_number("used_memory_peak");
    // Eight connections' buffers come on top of what the keyspace accounts for.
    assert!(peak < LIMIT + (4 << 20), "{peak}");
    assert_eq!(wire.int("DBSIZE"), 8000 - refused as i64);
}

#[test]
fn memory_comes_back_after_a_flush() {
    let server = Server::start(&[]);
    let mut wire = Wire::connect(server.resp);
    let before = wire.info_number("used_memory");
    let mut requests = Vec::new();
    for n in 0..50_000 {
        let key = format!("key:{n}");
        requests.extend(encode(&[b"SET", key.as_bytes(), &[b'x'; 200]]));
    }
    let mut writer = wire.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &requests));
    for _ in 0..50_000 {
        assert_eq!(wire.reply(), "+OK");
    }
    sending.join().unwrap().unwrap();
    let full = wire.info_number("used_memory");
    let dataset = wire.info_number("used_memory_dataset");
    assert!(dataset > 50_000 * 200 && dataset < full, "{dataset} of {full}");
    let rss = wire.info_number("used_memory_rss");
    assert_eq!(wire.run("FLUSHALL ASYNC"), "+OK");
    poll("memory in use to fall", || {
        (wire.info_number("used_memory") < before + (full - before) / 10).then_some(())
    });
    poll("resident memory to fall", || {
        wire.run("MEMORY PURGE");
        (wire.info_number("used_memory_rss") < rss - (full - before) / 2).then_some(())
    });
}

#[test]
fn too_many_clients_are_told_so() {
    let scratch = Scratch::new("maxclients");
    let file = scratch.file("few.toml", "maxclients = 3\n");
    let server = Server::start(&["--config", &file]);
    let mut first = Wire::connect(server.resp);
    assert_eq!(first.run("PING"), "+PONG");
    let mut others: Vec<Wire> = (0..2).map(|_| Wire::connect(server.resp)).collect();
    others.iter_mut().for_each(|wire| assert_eq!(wire.run("PING"), "+PONG"));
    let mut refused = Wire::connect(server.resp);
    assert_eq!(refused.reply(), "-ERR max number of clients reached");
    assert_eq!(refused.reply_or_end(), None);
    assert_eq!(first.info_number("rejected_connections"), 1);
    drop(others);
    poll("room for another", || Wire::connect(server.resp).run("PING").eq("+PONG").then_some(()));
}

/// Without descriptors the server goes on serving who is connected, and accepts again later.
#[test]
fn running_out_of_descriptors_is_survived() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 40; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_flagstone")]);
    command.args(["serve", "--workers", "1", "--resp", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let mut process = Running::start(&mut command);
    let addr = poll("the server's address", || {
        assert!(process.ended().is_none(), "{}", process.transcript());
        let line = process.stdout().into_iter().find(|line| line.starts_with("RESP"))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    });
    let mut first = Wire::connect(addr);
    assert_eq!(first.run("PING"), "+PONG");
    let crowd: Vec<Wire> = (0..60).map(|_| Wire::connect(addr)).collect();
    poll("a failed accept", || (first.info_number("accept_errors") > 0).then_some(()));
    assert_eq!(first.run("PING"), "+PONG");
    drop(crowd);
    assert_eq!(Wire::connect(addr).run("PING"), "+PONG");
}

#[test]
fn idle_clients_are_closed_when_asked_for() {
    let server = Server::start(&[]);
    let mut busy = Wire::connect(server.resp);
    let mut idle = Wire::connect(server.resp);
    let mut subscriber = Wire::connect(server.resp);
    subscriber.run("SUBSCRIBE x");
    assert_eq!(idle.run("PING"), "+PONG");
    assert_eq!(busy.run("CONFIG SET timeout 1"), "+OK");
    // The setting counts for who waits already, too: nothing more comes from this one.
    let closed = Instant::now();
    while closed.elapsed() < Duration::from_millis(1500) {
        assert_eq!(busy.run("PING"), "+PONG");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(idle.reply_or_end(), None);
    assert!(subscriber.is_silent(), "subscribers may be silent");
    assert_eq!(busy.run("PUBLISH x y"), ":1");
}

#[test]
fn a_reply_over_the_limit_closes_the_connection() {
    let server = Server::start(&[]);
    let mut wire = Wire::connect(server.resp);
    wire.send(&[b"SET", b"v", &[b'v'; 1000]]);
    wire.reply();
    wire.send(&[b"CONFIG", b"SET", b"client-output-buffer-limit", b"normal 1mb 0 0"]);
    assert_eq!(wire.reply(), "+OK");
    let mut greedy = Wire::connect(server.resp);
    let mut words = vec![b"MGET".as_slice()];
    words.resize(5001, b"v");
    greedy.send(&words);
    let mut rest = Vec::new();
    let _ = greedy.stream.read_to_end(&mut rest);
    assert!(rest.len() < 5_000_000, "{}", rest.len());
    assert_eq!(wire.info_number("client_output_buffer_limit_disconnections"), 1);
}

#[test]
fn keys_expire_by_themselves() {
    let server = Server::start(&[]);
    let mut wire = Wire::connect(server.resp);
    let mut requests = Vec::new();
    for n in 0..2000 {
        requests.extend(format!("SET key:{n} v PX 200\r\n").into_bytes());
    }
    wire.raw(&requests);
    (0..2000).for_each(|_| assert_eq!(wire.reply(), "+OK"));
    poll("nothing to be left", || (wire.int("DBSIZE") == 0).then_some(()));
    assert_eq!(wire.info_number("expired_keys"), 2000);
}

#[test]
fn a_shutdown_ends_waits_and_subscriptions_and_says_so() {
    let server = Server::start(&[]);
    let mut waiting = Wire::connect(server.resp);
    let mut observer = Wire::connect(server.resp);
    let mut subscriber = Wire::connect(server.resp);
    subscriber.run("SUBSCRIBE x");
    waiting.post("BLPOP list 0");
    poll("a blocked client", || (observer.info_number("blocked_clients") == 1).then_some(()));
    observer.run("PUBLISH x last");
    let status = server.terminate();
    assert_eq!(status.code(), Some(0));
    assert_eq!(subscriber.reply(), "[message, x, last]");
    assert_eq!(subscriber.reply_or_end(), None);
    assert_eq!(waiting.reply(), "-UNBLOCKED the server is shutting down");
    assert_eq!(waiting.reply_or_end(), None);
    assert_eq!(observer.reply_or_end(), None);
}

#[test]
fn a_client_can_ask_for_shutdown() {
    let mut server = Server::start(&[]);
    let mut wire = Wire::connect(server.resp);
    wire.post("SHUTDOWN NOSAVE");
    assert_eq!(wire.reply_or_end(), None);
    assert_eq!(server.process.wait().code(), Some(0));
}

/// A client that does not take its replies holds a shutdown up for the timeout and no longer.
#[test]
fn a_shutdown_does_not_wait_for_ever() {
    let scratch = Scratch::new("patience");
    let file = scratch.file("brief.toml", "shutdown_timeout_seconds = 1\n");
    let mut server = Server::start(&["--config", &file]);
    let mut wire = Wire::connect(server.resp);
    wire.send(&[b"SET", b"v", &vec![b'v'; 32 << 20]]);
    wire.reply();
    let mut stubborn = Wire::connect(server.resp);
    stubborn.raw(b"GET v\r\nGET v\r\n");
    poll("replies that wait", || (wire.info_number("mem_clients_normal") > 1 << 20).then_some(()));
    signal_terminate(server.process.id());
    let start = Instant::now();
    assert_eq!(server.process.wait().code(), Some(0));
    assert!(start.elapsed() < PATIENCE);
    assert!(server.process.stderr().join("\n").contains("1 connections had not taken"));
}

/// requirement: D10
#[test]
fn the_command_line_shows_the_figures_of_the_endpoint() {
    let server = Server::start(&[]);
    let mut wire = Wire::connect(server.resp);
    wire.run("MSET a 1 b 2 c 3");
    let admin = server.admin.to_string();
    let stats = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flagstone"));
        let output = command.args(["stats", "--admin", &admin]).args(more).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let json: serde_json::Value = serde_json::from_str(&stats(&["--json"])).unwrap();
    assert_eq!(json["server"]["keys"], 3);
    assert_eq!(json["server"]["commands_total"]["mset"], 1);
    let built_with = flagstone_server::allocator::BUILT_WITH;
    assert_eq!(json["server"]["allocator"], built_with);
    assert_eq!(json["server"]["allocator_verified"], built_with == "flagstone");
    let table = stats(&[]);
    let row = |name: &str| {
        let line = table.lines().find(|line| line.split_ascii_whitespace().next() == Some(name));
        line.unwrap_or_else(|| panic!("no {name} in {table}")).split_ascii_whitespace().nth(1)
    };
    assert_eq!(row("server.keys"), Some("3"));
    assert_eq!(row("server.commands_total.mset"), Some("1"));
    let metrics = poll("a report with the command", || {
        let body = client_support::http_get(server.admin, "/metrics").ok()?.body;
        body.contains("flagstone_server_commands_total{command=\"mset\"} 1").then_some(body)
    });
    assert!(metrics.contains("\nflagstone_server_keys 3\n"), "{metrics}");
}

#[test]
fn stats_of_a_server_that_is_not_there_is_one_line_and_status_2() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_flagstone"));
    let output = command.args(["stats", "--admin", &free.to_string()]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.lines().count() == 1 && said.contains(&free.to_string()), "{said}");
}

/// Commands that were received and not yet run, because the client takes its replies slowly, are run
/// and answered before the end.
#[test]
fn a_shutdown_finishes_what_was_received_for_a_slow_reader() {
    const GETS: usize = 300;
    let mut server = Server::start(&[]);
    let mut wire = Wire::connect(server.resp);
    wire.send(&[b"SET", b"v", &vec![b'v'; 100_000]]);
    assert_eq!(wire.reply(), "+OK");
    wire.raw(&b"GET v\r\n".repeat(GETS));
    wire.raw(b"BLPOP none 0\r\nPING\r\n");
    // The first reply shows that the server is at it; 30 MB do not fit into the sockets' buffers.
    assert_eq!(wire.reply().len(), 100_000);
    signal_terminate(server.process.id());
    std::thread::sleep(Duration::from_millis(500));
    for _ in 1..GETS {
        assert_eq!(wire.reply().len(), 100_000);
    }
    assert_eq!(wire.reply(), "-UNBLOCKED the server is shutting down");
    assert_eq!(wire.reply(), "+PONG");
    assert_eq!(wire.reply_or_end(), None);
    assert_eq!(server.process.wait().code(), Some(0));
}

/// Idle connections hold no buffers, and what is told of them says so.
#[test]
fn idle_connections_are_cheap() {
    const CLIENTS: usize = 200;
    let server = Server::start(&[]);
    let mut observer = Wire::connect(server.resp);
    observer.send(&[b"SET", b"v", &vec![b'v'; 1 << 20]]);
    observer.reply();
    let before = observer.info_number("used_memory");
    let idle: Vec<Wire> = (0..CLIENTS)
        .map(|_| {
            let mut wire = Wire::connect(server.resp);
            assert_eq!(wire.run("GET v").len(), 1 << 20);
            wire
        })
        .collect();
    poll("buffers to go back", || {
        let each = observer.info_number("used_memory").saturating_sub(before) / CLIENTS as u64;
        (each < 8 * 1024).then_some(())
    });
    let told = observer.info_number("mem_clients_normal");
    assert!(told < 64 * 1024, "{told}");
    drop(idle);
}
