//! The `FLAGSTONE_*` settings, on programs of the system under preload.

mod common;

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{has, shared};

fn under(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LD_PRELOAD", shared());
    command
}

fn errors_of(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().expect("runs");
    assert!(status.success(), "{command:?}: {status}");
    String::from_utf8(stderr).expect("UTF-8")
}

#[test]
fn a_table_is_printed_at_exit_when_asked_for() {
    assert_eq!(errors_of(&mut under("ls")), "");
    let table = errors_of(under("ls").env("FLAGSTONE_STATS", "1"));
    assert!(table.starts_with("flagstone ") && table.contains(" at exit"), "{table}");
    let allocated: u64 = table
        .lines()
        .filter_map(|line| line.split_whitespace().collect::<Vec<_>>().try_into().ok())
        .filter_map(|row: [&str; 6]| row[3].parse::<u64>().ok())
        .sum();
    assert!(allocated > 10, "`ls` allocates more than that: {table}");
}

#[test]
fn a_bad_value_is_one_line_and_the_program_runs_on() {
    for (name, value) in [
        ("FLAGSTONE_STATS", "please"),
        ("FLAGSTONE_METRICS", "0.0.0.0:0"),
        ("FLAGSTONE_SCAVENGER", "never"),
        ("FLAGSTONE_DECAY_MILLIS", "soon"),
    ] {
        let line = errors_of(under("ls").env(name, value));
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(line.starts_with(&format!("flagstone: {name}={value} is not ")), "{line}");
    }
}

/// A folder of the test's own for sockets.
fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("flagstone-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).expect("created");
    folder
}

/// Sockets in a folder, once there are `count`.
fn sockets(folder: &Path, count: usize) -> Vec<PathBuf> {
    let until = Instant::now() + Duration::from_secs(300);
    loop {
        let entries = std::fs::read_dir(folder).expect("readable");
        let found: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
        if found.len() == count {
            return found;
        }
        assert!(Instant::now() < until, "{found:?}, and not {count}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn get(socket: &Path, target: &str) -> String {
    let until = Instant::now() + Duration::from_secs(300);
    let mut stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            // Bound, and not yet listening.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                assert!(Instant::now() < until, "nobody answers at {socket:?}");
            }
            Err(error) => panic!("{socket:?}: {error}"),
        }
    };
    write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("UTF-8");
    text
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    assert!(child.wait().expect("ends").success());
}

// requirement: D10
#[test]
fn metrics_are_served_from_inside_any_program() {
    let folder = folder("metrics");
    let child = under("cat")
        .env("FLAGSTONE_METRICS", folder.join("socket.%p"))
        .stdin(Stdio::piped())
        .spawn()
        .expect("runs");
    let socket = sockets(&folder, 1).remove(0);
    assert_eq!(socket, folder.join(format!("socket.{}", child.id())));
    let metrics = get(&socket, "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    let mapped = metrics.lines().find_map(|line| line.strip_prefix("flagstone_mapped_bytes "));
    assert!(mapped.and_then(|bytes| bytes.parse::<f64>().ok()).is_some_and(|bytes| bytes > 0.0));
    let stats = get(&socket, "/stats.json");
    let (_, body) = stats.split_once("\r\n\r\n").expect("head and body");
    let stats: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(stats["heap"]["heap"], "global");
    end(child);
    sockets(&folder, 0);
    std::fs::remove_dir(&folder).expect("empty");
}

#[test]
fn a_forked_child_serves_at_a_place_of_its_own() {
    if !has("bash") {
        return;
    }
    let folder = folder("forked");
    // The parentheses are a fork without an exec.
    let child = under("bash")
        .args(["-c", "(read -r line); true"])
        .env("FLAGSTONE_METRICS", folder.join("socket.%p"))
        .stdin(Stdio::piped())
        .spawn()
        .expect("runs");
    for socket in sockets(&folder, 2) {
        assert!(get(&socket, "/metrics").contains("\nflagstone_mapped_bytes "));
    }
    end(child);
    std::fs::remove_dir_all(&folder).expect("removed");
}
