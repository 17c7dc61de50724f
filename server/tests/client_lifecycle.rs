//! How `flagstone serve` starts, refuses to start, and ends, seen from outside. Needs no client.

mod client_support;

use client_support::{
    Running, Scratch, Server, deploy_dir, http_get, refuse_to_start, resp_connection,
    signal_terminate,
};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

#[test]
fn bad_flags_give_one_line_and_status_2() {
    for flags in [
        &["--nosuch"][..],
        &["--resp", "not-an-address"],
        &["--resp"],
        &["--workers", "0"],
        &["--workers", "many"],
        &["--maxmemory", "-1"],
        &["stray"],
    ] {
        let line = refuse_to_start(flags);
        let culprit = flags.last().unwrap();
        assert!(line.contains(culprit), "{flags:?}: {line}");
    }
}

#[test]
fn a_busy_port_gives_one_line_and_status_2() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for flags in
        [["--resp", &addr, "--admin", "127.0.0.1:0"], ["--admin", &addr, "--resp", "127.0.0.1:0"]]
    {
        let line = refuse_to_start(&flags);
        assert!(line.contains(&addr), "{line}");
    }
}

#[test]
fn a_bad_configuration_file_gives_one_line_and_status_2() {
    let scratch = Scratch::new("bad-configuration");
    let files = [
        scratch.file("malformed.toml", "resp = \n"),
        scratch.file("unknown.toml", "nosuchkey = 1\n"),
        scratch.file("type.toml", "workers = \"two\"\n"),
        scratch.0.join("absent.toml").into_os_string().into_string().unwrap(),
    ];
    for file in files {
        let line = refuse_to_start(&["--config", &file]);
        assert!(line.contains(&file), "{file}: {line}");
    }
}

#[test]
fn the_shipped_configuration_starts_and_flags_come_before_it() {
    let file = deploy_dir().join("flagstone.toml");
    let server = Server::start(&["--config", file.to_str().unwrap()]);
    // Port 0 on the command line won over the file's ports.
    assert_ne!((server.resp.port(), server.admin.port()), (7379, 9600));
    assert_eq!(http_get(server.admin, "/healthz").unwrap().status, 200);
}

#[test]
fn every_key_that_the_shipped_configuration_only_shows_is_one() {
    let shipped = std::fs::read_to_string(deploy_dir().join("flagstone.toml")).unwrap();
    let mut shown = 0;
    let mut text = String::new();
    for line in shipped.lines() {
        let key = line
            .strip_prefix("# ")
            .filter(|rest| rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')));
        shown += usize::from(key.is_some());
        text.push_str(key.unwrap_or(line));
        text.push('\n');
    }
    assert!(shown > 5, "{text}");
    let scratch = Scratch::new("every-key");
    let server = Server::start(&["--config", &scratch.file("flagstone.toml", &text)]);
    assert_eq!(http_get(server.admin, "/healthz").unwrap().status, 200);
}

#[test]
fn the_admin_endpoints_are_exact() {
    let server = Server::start(&[]);
    let metrics = http_get(server.admin, "/metrics").unwrap();
    assert_eq!(metrics.status, 200);
    assert!(
        metrics.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{}",
        metrics.head
    );
    let json = http_get(server.admin, "/stats.json").unwrap();
    assert_eq!(json.status, 200);
    assert!(json.head.contains("content-type: application/json"), "{}", json.head);
    for path in ["/metrics/", "/metric", "/..", "/stats"] {
        assert_eq!(http_get(server.admin, path).unwrap().status, 404, "{path}");
    }
}

/// Replies are larger than what sockets hold, and nobody reads them before the signal: at that moment
/// the server has replies it could not send and commands it has not read.
#[test]
fn a_terminate_signal_during_a_pipelined_load_loses_no_reply() {
    const CONNECTIONS: usize = 3;
    const COMMANDS: usize = 1000;
    const KEYS: usize = 10;
    const VALUE: usize = 16 << 10;
    let scratch = Scratch::new("patient");
    let patient = scratch.file("patient.toml", "shutdown_timeout_seconds = 60\n");
    let server = Server::start(&["--config", &patient]);

    let value = |key: usize| char::from(b'a' + key as u8).to_string().repeat(VALUE);
    let mut setup = resp_connection(server.resp);
    for key in 0..KEYS {
        write!(setup, "*3\r\n$3\r\nSET\r\n$1\r\n{key}\r\n${VALUE}\r\n{}\r\n", value(key)).unwrap();
    }
    let mut stored = vec![0; "+OK\r\n".len() * KEYS];
    setup.read_exact(&mut stored).unwrap();
    assert_eq!(stored, "+OK\r\n".repeat(KEYS).as_bytes());

    let commands: String = (0..COMMANDS).map(|i| format!("GET {}\r\n", i % KEYS)).collect();
    let mut loaded: Vec<_> = (0..CONNECTIONS).map(|_| resp_connection(server.resp)).collect();
    for connection in &mut loaded {
        connection.write_all(commands.as_bytes()).unwrap();
    }
    for connection in &loaded {
        let mut first = [0; 1];
        assert_eq!(connection.peek(&mut first).unwrap(), 1, "the server is at work");
    }
    signal_terminate(server.process.id());

    let expected: String =
        (0..COMMANDS).map(|i| format!("${VALUE}\r\n{}\r\n", value(i % KEYS))).collect();
    thread::scope(|scope| {
        for (id, mut connection) in loaded.into_iter().enumerate() {
            let expected = &expected;
            scope.spawn(move || {
                let mut replies = String::new();
                let end = connection.read_to_string(&mut replies);
                assert!(
                    end.is_ok() && replies == *expected,
                    "connection {id}: {} of {} bytes, then {end:?}",
                    replies.len(),
                    expected.len()
                );
            });
        }
    });
    let mut process = server.process;
    let status = process.wait();
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn an_idle_server_ends_cleanly_on_a_terminate_signal() {
    let server = Server::start(&[]);
    // An open, silent connection does not hold the server up.
    let mut silent = resp_connection(server.resp);
    let status = server.terminate();
    assert_eq!(status.code(), Some(0), "{status}");
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
}

#[test]
fn help_and_version_go_to_standard_output() {
    for (flag, word) in [("--help", "serve"), ("--version", env!("CARGO_PKG_VERSION"))] {
        let mut process =
            Running::start(std::process::Command::new(env!("CARGO_BIN_EXE_flagstone")).arg(flag));
        assert_eq!(process.wait().code(), Some(0), "{flag}");
        assert!(process.stdout().join("\n").contains(word), "{flag}: {}", process.transcript());
    }
}
