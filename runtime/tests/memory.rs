//! The admin server in a process whose address space is used up: it refuses and stays, however little is
//! left. A binary of its own, because the limit is the process's.
#![cfg(target_os = "linux")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;

use common::{PATIENCE, Server, config, wait_until};
use flagstone::Flagstone;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[global_allocator]
static ALLOCATOR: Flagstone = Flagstone::new();

/// Where a response is read to: the client must not need memory while there is none.
static RESPONSE: Mutex<[u8; 4 << 20]> = Mutex::new([0; 4 << 20]);

/// Lets the address space of this process grow by `more` bytes and no further.
fn limit(more: u64) {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: u64 = statm.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    let bytes = pages * rustix::param::page_size() as u64 + more;
    let before = getrlimit(Resource::As);
    setrlimit(Resource::As, Rlimit { current: Some(bytes), ..before }).expect("setrlimit");
}

fn relieve() {
    let before = getrlimit(Resource::As);
    setrlimit(Resource::As, Rlimit { current: None, ..before }).expect("setrlimit");
}

/// Asks for `path` while `more` bytes are left. Returns the status and the response's text.
fn get_with(server: &Server, path: &str, more: u64) -> (u16, String) {
    let open = server.figures.snapshot().connections;
    let mut stream = TcpStream::connect(server.addr).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    wait_until("the connection to be taken", || server.figures.snapshot().connections > open);
    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let mut response = RESPONSE.lock().expect("no panic");
    limit(more);
    stream.write_all(request.as_bytes()).expect("send");
    let mut length = 0;
    loop {
        match stream.read(&mut response[length..]).expect("an answer in time") {
            0 => break,
            n => length += n,
        }
    }
    relieve();
    let text = String::from_utf8(response[..length].to_vec()).expect("text");
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    (status.unwrap_or_else(|| panic!("{text}")), text)
}

// requirement: G7
#[test]
fn without_memory_to_spare_answers_are_refused_and_nothing_ends() {
    let server = Server::start(config());
    for path in ["/metrics", "/stats.json", "/healthz", "/"] {
        assert_eq!(server.get(path).status, 200);
    }
    let (mut refused, mut served) = (0, 0);
    for step in [0, 1, 3, 6, 9, 12, 16, 24, 32] {
        for path in ["/metrics", "/stats.json", "/healthz"] {
            let (status, text) = get_with(&server, path, step << 20);
            match status {
                200 => served += 1,
                503 => {
                    assert!(text.contains("no memory to spare"), "{text}");
                    assert!(text.contains("retry-after: 1"), "{text}");
                    refused += 1;
                }
                _ => panic!("{text}"),
            }
            assert_eq!(server.get(path).status, 200, "with memory again");
        }
    }
    assert!(refused >= 6 && served >= 3, "{refused} refused, {served} served");
    let stats = server.get("/stats.json").body;
    assert!(stats.contains(&format!("\"memory_refusals\":{refused}")), "{stats}");

    // A client that comes meanwhile waits, and is served when there is memory again.
    let before = server.figures.snapshot();
    limit(0);
    let mut late = TcpStream::connect(server.addr).expect("connect");
    late.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").expect("send");
    wait_until("it to be kept waiting", || {
        server.figures.snapshot().accept_errors >= before.accept_errors + 2
    });
    assert_eq!(server.figures.snapshot().connections, before.connections);
    relieve();
    late.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut text = String::new();
    late.read_to_string(&mut text).expect("an answer");
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    assert_eq!(server.figures.snapshot().connections, before.connections + 1);
}
