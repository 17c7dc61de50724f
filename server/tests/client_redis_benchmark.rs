//! The server under an unmodified `redis-benchmark`, pipelined, with not one error.

mod client_support;

use client_support::{Server, client, run};

/// What is run, and the rows that redis-benchmark prints for it.
const TESTS: &str = "ping,set,get,incr,lpush,rpush,lpop,rpop,lrange_100,mset";
const ROWS: [&str; 12] = [
    "PING_INLINE",
    "PING_MBULK",
    "SET",
    "GET",
    "INCR",
    "LPUSH",
    "RPUSH",
    "LPOP",
    "RPOP",
    "LPUSH (needed to benchmark LRANGE)",
    "LRANGE_100 (first 100 elements)",
    "MSET (10 keys)",
];
const REQUESTS: &str = "20000";

#[test]
fn every_pipelined_test_ends_without_an_error() {
    benchmark(&[]);
}

#[test]
fn every_pipelined_test_ends_without_an_error_over_resp3() {
    benchmark(&["-3"]);
}

/// redis-benchmark ends with a failure at the first error reply; a server whose configuration it
/// cannot read is a warning. Neither may happen.
fn benchmark(flags: &[&str]) {
    let Some(program) = client("redis-benchmark", "redis-tools") else { return };
    let server = Server::start(&[]);
    let mut command = server.client(&program);
    command.args(["-t", TESTS, "-P", "16", "-n", REQUESTS, "--csv"]).args(flags);
    let output = run(&mut command, b"");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    for word in ["error", "warning"] {
        assert!(!said.to_lowercase().contains(word), "{said}");
    }
    let rows: Vec<&str> =
        said.lines().skip(1).filter_map(|row| row.strip_prefix('"')?.split('"').next()).collect();
    assert_eq!(rows, ROWS, "{said}");
}
