//! The same random commands to this server and to a real `redis-server`: every reply must be the same,
//! error texts included. Skipped, with a printed reason, where `redis-server` is not installed.

mod client_support;
mod wire;

use client_support::{Running, Server, poll};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use wire::Wire;

const CASES: u32 = 60;
const COMMANDS: usize = 60;

#[test]
fn replies_are_those_of_redis_in_resp2() {
    compare("HELLO 2");
}

#[test]
fn replies_are_those_of_redis_in_resp3() {
    compare("HELLO 3");
}

fn compare(hello: &str) {
    let Some((_process, redis)) = start_redis() else { return };
    let server = Server::start(&[]);
    let mut runner =
        TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let commands = prop::collection::vec(command(), 1..COMMANDS);
    let outcome = runner.run(&commands, |commands| {
        let mut ours = Wire::connect(server.resp);
        let mut theirs = Wire::connect(redis);
        for wire in [&mut ours, &mut theirs] {
            wire.run(hello);
            wire.run("FLUSHALL");
        }
        for words in &commands {
            let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            ours.send(&words);
            theirs.send(&words);
            let name = String::from_utf8_lossy(words[0]).to_ascii_lowercase();
            let replies = (ours.reply(), theirs.reply());
            if replies.0 == "+RESET" {
                (ours.resp3, theirs.resp3) = (false, false);
            }
            prop_assert_eq!(
                comparable(&name, &replies.0),
                comparable(&name, &replies.1),
                "ours, theirs for {:?}",
                words.iter().map(|w| String::from_utf8_lossy(w)).collect::<Vec<_>>()
            );
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// What of a reply can be the same: not the order of keys, and times only roughly.
fn comparable(command: &str, reply: &str) -> String {
    match command {
        "keys" => {
            let mut names: Vec<&str> =
                reply.trim_matches(['[', ']']).split(", ").filter(|n| !n.is_empty()).collect();
            names.sort_unstable();
            names.join(", ")
        }
        // Commands of one case run within the margin, but not at the same millisecond.
        "ttl" | "pttl" | "expiretime" | "pexpiretime" => match reply.strip_prefix(':') {
            Some(n) if !n.starts_with('-') => format!("{} digits", n.len()),
            _ => reply.to_owned(),
        },
        _ => reply.to_owned(),
    }
}

fn key() -> impl Strategy<Value = String> {
    (0..5).prop_map(|n| format!("key{n}"))
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (-20i64..20).prop_map(|n| n.to_string()),
        2 => "[a-c]{0,5}",
        1 => prop::sample::select(vec![
            "9223372036854775807", "-9223372036854775808", "9223372036854775808", "007", "+1",
            "-0", " 1", "1.5", "", "nan", "a b\r\n",
        ]).prop_map(str::to_owned),
        1 => Just("x".repeat(20_000)),
    ]
}

fn index() -> impl Strategy<Value = String> {
    prop_oneof![
        9 => (-6i64..6).prop_map(|n| n.to_string()),
        1 => prop::sample::select(vec!["x", "", "9223372036854775807", "1.0"])
            .prop_map(str::to_owned),
    ]
}

/// A time to live, long enough not to run out even if it is one of milliseconds, or one that is refused
/// or deletes.
fn seconds() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just("150000".to_owned()),
        1 => Just("300000".to_owned()),
        1 => prop::sample::select(vec!["0", "-1", "x", "9223372036854775807", "-9223372036854775808"])
            .prop_map(str::to_owned),
    ]
}

/// A time to be compared with another one: no two are so close that it matters how many milliseconds a
/// server let pass between them.
fn far_apart() -> impl Strategy<Value = String> {
    (0u64..1_000_000).prop_map(|n| (1_000_000 + n * 10_000).to_string())
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

fn command() -> impl Strategy<Value = Vec<String>> {
    let one_key = prop::sample::select(vec![
        "GET",
        "STRLEN",
        "GETDEL",
        "INCR",
        "DECR",
        "TYPE",
        "TTL",
        "PTTL",
        "EXPIRETIME",
        "PEXPIRETIME",
        "PERSIST",
        "LLEN",
        "LPOP",
        "RPOP",
        "DEL",
        "UNLINK",
        "EXISTS",
        "get",
    ]);
    let key_value = prop::sample::select(vec![
        "SET", "SETNX", "GETSET", "APPEND", "INCRBY", "DECRBY", "LPUSH", "RPUSH", "LPUSHX",
        "RPUSHX", "LINDEX", "LPOP", "RPOP",
    ]);
    let set_option = prop::sample::select(vec![
        "NX", "XX", "GET", "KEEPTTL", "EX", "PX", "EXAT", "PXAT", "nx", "BOO",
    ]);
    let expire = prop::sample::select(vec!["EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT"]);
    let condition = prop::sample::select(vec!["NX", "XX", "GT", "LT", "BOO"]);
    prop_oneof![
        6 => (one_key, key()).prop_map(|(c, k)| words(&[c, &k])),
        6 => (key_value, key(), value()).prop_map(|(c, k, v)| words(&[c, &k, &v])),
        2 => (key(), value(), prop::collection::vec((set_option, prop::option::of(seconds())), 0..3))
            .prop_map(|(k, v, options)| {
                let mut all = words(&["SET", &k, &v]);
                for (option, time) in options {
                    all.push(option.to_owned());
                    all.extend(time);
                }
                all
            }),
        1 => (prop::sample::select(vec!["SETEX", "PSETEX"]), key(), seconds(), value())
            .prop_map(|(c, k, s, v)| words(&[c, &k, &s, &v])),
        2 => (expire, key(), seconds(), far_apart(), prop::collection::vec(condition, 0..3))
            .prop_map(|(c, k, s, apart, conditions)| {
                let compared = conditions.iter().any(|c| ["GT", "LT"].contains(c));
                let mut all = words(&[c, &k, if compared { &apart } else { &s }]);
                all.extend(words(&conditions));
                all
            }),
        2 => (prop::sample::select(vec!["MGET", "DEL", "EXISTS", "UNLINK"]),
            prop::collection::vec(key(), 0..4))
            .prop_map(|(c, keys)| std::iter::once(c.to_owned()).chain(keys).collect()),
        2 => prop::collection::vec((key(), value()), 0..4).prop_map(|pairs| {
            let pairs = pairs.into_iter().flat_map(|(k, v)| [k, v]);
            std::iter::once("MSET".to_owned()).chain(pairs).collect()
        }),
        2 => (key(), index(), index()).prop_map(|(k, a, b)| words(&["LRANGE", &k, &a, &b])),
        2 => (prop::sample::select(vec!["LPUSH", "RPUSH"]), key(), prop::collection::vec(value(), 0..5))
            .prop_map(|(c, k, values)| words(&[c, &k]).into_iter().chain(values).collect()),
        1 => (prop::sample::select(vec!["BLPOP", "BRPOP"]), key(), key(),
            prop::sample::select(vec!["0.001", "-1", "x", "1e-3"]))
            .prop_map(|(c, a, b, t)| words(&[c, &a, &b, t])),
        1 => prop::sample::select(vec![
            vec!["PING"], vec!["PING", "a"], vec!["PING", "a", "b"], vec!["ECHO", "x"], vec!["ECHO"],
            vec!["DBSIZE"], vec!["KEYS", "*"], vec!["KEYS", "key[1-3]"], vec!["SELECT", "1"],
            vec!["SELECT", "0"], vec!["SELECT", "99"], vec!["SELECT", "x"], vec!["SCAN", "x"],
            vec!["SCAN", "0", "COUNT", "0"], vec!["SCAN", "0", "COUNT", "x"], vec!["SCAN", "0", "BOO"],
            vec!["SCAN", "0", "BOO", "1"], vec!["CONFIG", "GET", "save"], vec!["CONFIG", "GET", "nothing"],
            vec!["CONFIG", "BOO"], vec!["CONFIG"], vec!["CLIENT", "SETNAME", "a b"], vec!["CLIENT"],
            vec!["CLIENT", "GETNAME"], vec!["CLIENT", "REPLY", "BOO"], vec!["CLIENT", "KILL", "1.2.3.4:5"],
            vec!["CLIENT", "KILL", "ID", "x"], vec!["CLIENT", "LIST", "BOO"], vec!["CLIENT", "LIST", "TYPE", "x"],
            vec!["CLIENT", "UNBLOCK", "99999"], vec!["CLIENT", "UNBLOCK", "1", "x"],
            vec!["HELLO", "4"], vec!["HELLO", "x"], vec!["HELLO", "2", "BOO"], vec!["AUTH", "x"],
            vec!["AUTH", "boo", "x"], vec!["AUTH", "default", "x"], vec!["PUBLISH", "c", "m"],
            vec!["PUBSUB", "CHANNELS"], vec!["PUBSUB", "NUMSUB", "c"], vec!["PUBSUB", "NUMPAT"],
            vec!["PUBSUB", "BOO"], vec!["FLUSHALL", "BOO"], vec!["FLUSHDB"], vec!["MEMORY", "USAGE", "none"],
            vec!["MEMORY", "BOO"], vec!["NOSUCH", "a", "b"], vec!["GET"], vec!["SHUTDOWN", "BOO"],
            vec!["COMMAND", "INFO", "nosuch"], vec!["COMMAND", "GETKEYS", "MSET", "a", "1", "b", "2"],
            vec!["COMMAND", "GETKEYS", "PING"], vec!["COMMAND", "GETKEYS", "NOSUCH"],
            vec!["CONFIG", "SET", "nothing", "1"],
            vec!["CONFIG", "REWRITE"], vec!["CONFIG", "RESETSTAT"], vec!["UNSUBSCRIBE"],
            vec!["PUNSUBSCRIBE"], vec!["RESET"],
        ]).prop_map(|list| words(&list)),
    ]
}

/// A `redis-server` on a free port, saving nothing. `None`, and a line that says so, if there is none.
fn start_redis() -> Option<(Running, SocketAddr)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program =
        std::env::split_paths(&path).map(|dir| dir.join("redis-server")).find(|p| p.is_file());
    let Some(program) = program else {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        // Past the harness, which keeps what a passing test prints to itself.
        let _ = writeln!(std::io::stderr(), "skipped {test}: redis-server is not installed");
        return None;
    };
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new(program);
    command.args(["--bind", "127.0.0.1", "--port", &addr.port().to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
    command.current_dir(env!("CARGO_TARGET_TMPDIR"));
    let mut process = Running::start(&mut command);
    poll("redis-server to listen", || {
        assert!(process.ended().is_none(), "{}", process.transcript());
        TcpStream::connect(addr).ok()
    });
    Some((process, addr))
}
