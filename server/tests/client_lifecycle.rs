//! How `flagstone serve` starts, refuses to start, and ends, seen from outside. Needs no client.

mod client_support;

use client_support::{
    Running, Scratch, Server, deploy_dir, http_get, refuse_to_start, resp_connection,
    signal_terminate,
};
use std::io::{BufRead, BufReader, Read, Write};
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

#[test]
fn a_terminate_signal_during_a_pipelined_load_loses_no_reply() {
    const CONNECTIONS: usize = 4;
    const COMMANDS: usize = 5000;
    let server = Server::start(&[]);
    let addr = server.resp;
    let mut readers = Vec::new();
    for id in 0..CONNECTIONS {
        let mut stream = resp_connection(addr);
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let command = format!("INCR counter:{id}\r\n");
        // The writer may block on a full socket, so it has a thread of its own.
        let writer = thread::spawn(move || {
            stream.write_all(command.repeat(COMMANDS).as_bytes()).unwrap();
            stream
        });
        let mut first = String::new();
        reader.read_line(&mut first).unwrap();
        assert_eq!(first, ":1\r\n");
        readers.push((reader, writer));
    }
    // Half of the connections have sent all that they will send; the others still have replies
    // to read, which the server must not throw away.
    signal_terminate(server.process.id());
    for (id, (mut reader, writer)) in readers.into_iter().enumerate() {
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap_or_else(|e| panic!("connection {id}: {e}"));
        let mut last = 1;
        for reply in rest.split_inclusive("\r\n") {
            last += 1;
            assert_eq!(reply, format!(":{last}\r\n"), "connection {id}");
        }
        assert_eq!(last, COMMANDS, "connection {id}");
        drop(writer.join().unwrap());
    }
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
