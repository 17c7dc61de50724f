//! The server under an unmodified `redis-cli`: what a user types and what is printed back.
//!
//! Every test has a server of its own. Replies are compared in redis-cli's typed form (`--no-raw`),
//! so that a number that came as a string is a failure.

mod client_support;

use client_support::{Running, Server, client, poll, run};
use std::path::PathBuf;

#[test]
fn strings_are_set_read_and_counted() {
    let Some(cli) = Cli::start(&[]) else { return };
    assert_eq!(cli.typed(&["PING"]), "PONG");
    assert_eq!(cli.typed(&["ECHO", "hello"]), r#""hello""#);
    assert_eq!(cli.typed(&["SET", "k", "v"]), "OK");
    assert_eq!(cli.typed(&["GET", "k"]), r#""v""#);
    assert_eq!(cli.typed(&["GET", "absent"]), "(nil)");
    assert_eq!(cli.typed(&["SET", "k", "w", "NX"]), "(nil)");
    assert_eq!(cli.typed(&["SET", "absent", "w", "XX"]), "(nil)");
    assert_eq!(cli.typed(&["SET", "k", "w", "XX", "GET"]), r#""v""#);
    assert_eq!(cli.typed(&["MSET", "a", "1", "b", "2"]), "OK");
    assert_eq!(cli.typed(&["MGET", "a", "none", "b"]), "1) \"1\"\n2) (nil)\n3) \"2\"");
    assert_eq!(cli.typed(&["INCR", "a"]), "(integer) 2");
    assert_eq!(cli.typed(&["INCRBY", "a", "40"]), "(integer) 42");
    assert_eq!(cli.typed(&["DECR", "a"]), "(integer) 41");
    assert_eq!(cli.typed(&["INCR", "k"]), "(error) ERR value is not an integer or out of range");
    assert_eq!(cli.typed(&["APPEND", "k", "xyz"]), "(integer) 4");
    assert_eq!(cli.typed(&["STRLEN", "k"]), "(integer) 4");
    assert_eq!(cli.typed(&["TYPE", "k"]), "string");
    assert_eq!(cli.typed(&["EXISTS", "k", "a", "b", "none"]), "(integer) 3");
    assert_eq!(cli.typed(&["DEL", "k", "a", "none"]), "(integer) 2");
    assert_eq!(cli.typed(&["DBSIZE"]), "(integer) 1");
    assert_eq!(cli.typed(&["FLUSHALL"]), "OK");
    assert_eq!(cli.typed(&["DBSIZE"]), "(integer) 0");
    assert!(cli.typed(&["NOSUCH"]).starts_with("(error) ERR unknown command"));
    assert!(cli.typed(&["GET"]).starts_with("(error) ERR wrong number of arguments"));
}

#[test]
fn a_value_of_every_byte_comes_back_as_it_went() {
    let Some(cli) = Cli::start(&[]) else { return };
    let value: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let mut set = cli.server.client(&cli.program);
    set.args(["-x", "SET", "binary"]);
    assert_eq!(run(&mut set, &value).stdout, b"OK\n");
    let mut get = cli.server.client(&cli.program);
    get.args(["GET", "binary"]);
    let mut output = run(&mut get, b"").stdout;
    assert_eq!(output.pop(), Some(b'\n'));
    assert!(output == value, "the value came back with {} bytes or other ones", output.len());
}

#[test]
fn lists_are_pushed_popped_and_ranged() {
    let Some(cli) = Cli::start(&[]) else { return };
    assert_eq!(cli.typed(&["RPUSH", "l", "b", "c"]), "(integer) 2");
    assert_eq!(cli.typed(&["LPUSH", "l", "a", "z"]), "(integer) 4");
    assert_eq!(cli.typed(&["LLEN", "l"]), "(integer) 4");
    assert_eq!(cli.typed(&["LRANGE", "l", "0", "-1"]), "1) \"z\"\n2) \"a\"\n3) \"b\"\n4) \"c\"");
    assert_eq!(cli.typed(&["LRANGE", "l", "7", "9"]), "(empty array)");
    assert_eq!(cli.typed(&["LPOP", "l"]), r#""z""#);
    assert_eq!(cli.typed(&["RPOP", "l", "2"]), "1) \"c\"\n2) \"b\"");
    assert_eq!(cli.typed(&["TYPE", "l"]), "list");
    assert!(cli.typed(&["GET", "l"]).starts_with("(error) WRONGTYPE"));
    assert_eq!(cli.typed(&["LPOP", "l"]), r#""a""#);
    assert_eq!(cli.typed(&["EXISTS", "l"]), "(integer) 0");
    assert_eq!(cli.typed(&["LPOP", "l"]), "(nil)");
}

#[test]
fn a_blocked_pop_wakes_with_what_another_client_pushes() {
    let Some(cli) = Cli::start(&[]) else { return };
    // One waits for an element, and one for a time limit to pass.
    let mut waiting = cli.beside(&["BLPOP", "queue", "other", "0"]);
    let mut in_vain = cli.beside(&["BRPOP", "nothing", "0.2"]);
    assert!(in_vain.wait().success());
    assert_eq!(in_vain.stdout(), ["(nil)"]);
    assert!(waiting.ended().is_none(), "{}", waiting.transcript());
    assert_eq!(cli.typed(&["RPUSH", "queue", "job"]), "(integer) 1");
    assert!(waiting.wait().success());
    assert_eq!(waiting.stdout(), ["1) \"queue\"", "2) \"job\""]);
    assert_eq!(cli.typed(&["EXISTS", "queue"]), "(integer) 0");
}

#[test]
fn keys_expire_on_time_unless_they_are_kept() {
    let Some(cli) = Cli::start(&[]) else { return };
    assert_eq!(cli.typed(&["SET", "short", "v", "PX", "300"]), "OK");
    assert_eq!(cli.typed(&["SET", "long", "v", "EX", "1000"]), "OK");
    assert_eq!(cli.typed(&["SET", "plain", "v"]), "OK");
    assert_eq!(cli.typed(&["TTL", "plain"]), "(integer) -1");
    assert_eq!(cli.typed(&["TTL", "none"]), "(integer) -2");
    let left = integer(&cli.typed(&["PTTL", "long"]));
    assert!((1..=1_000_000).contains(&left), "{left} ms left of 1000 s");
    poll("the end of a key with 300 ms to live", || {
        (cli.typed(&["EXISTS", "short"]) == "(integer) 0").then_some(())
    });
    assert_eq!(cli.typed(&["GET", "short"]), "(nil)");

    assert_eq!(cli.typed(&["SET", "long", "w", "KEEPTTL"]), "OK");
    assert!(integer(&cli.typed(&["TTL", "long"])) > 0);
    assert_eq!(cli.typed(&["PERSIST", "long"]), "(integer) 1");
    assert_eq!(cli.typed(&["TTL", "long"]), "(integer) -1");
    assert_eq!(cli.typed(&["EXPIRE", "plain", "100"]), "(integer) 1");
    assert!(integer(&cli.typed(&["TTL", "plain"])) > 0);
    // An expiry that lies in the past deletes at once.
    assert_eq!(cli.typed(&["PEXPIRE", "plain", "-1"]), "(integer) 1");
    assert_eq!(cli.typed(&["EXISTS", "plain"]), "(integer) 0");
    assert_eq!(cli.typed(&["EXPIRE", "none", "100"]), "(integer) 0");
}

#[test]
fn a_mass_insert_is_acknowledged_and_a_scan_finds_every_key_once() {
    const KEYS: usize = 3000;
    let Some(cli) = Cli::start(&[]) else { return };
    let mut pipe = cli.server.client(&cli.program);
    pipe.arg("--pipe");
    let inserts: String = (0..KEYS).map(|i| format!("SET scan:{i} {i}\r\n")).collect();
    let said = String::from_utf8(run(&mut pipe, inserts.as_bytes()).stdout).unwrap();
    assert!(said.ends_with(&format!("errors: 0, replies: {KEYS}\n")), "{said}");
    assert_eq!(cli.typed(&["SET", "other", "1"]), "OK");
    assert_eq!(cli.typed(&["DBSIZE"]), format!("(integer) {}", KEYS + 1));

    let mut found: Vec<usize> = cli
        .raw(&["--scan", "--pattern", "scan:*"])
        .lines()
        .map(|key| key.strip_prefix("scan:").unwrap().parse().unwrap())
        .collect();
    found.sort_unstable();
    // Nothing was written during the scan, so nothing may come twice.
    assert!(found.iter().copied().eq(0..KEYS), "{} keys found", found.len());
}

#[test]
fn subscribers_get_what_is_published_to_channels_and_patterns() {
    let Some(cli) = Cli::start(&[]) else { return };
    let plain = cli.beside(&["SUBSCRIBE", "news"]);
    let pattern = cli.beside(&["PSUBSCRIBE", "ne*"]);
    for (reader, kind) in [(&plain, "subscribe"), (&pattern, "psubscribe")] {
        poll(kind, || reader.stdout().iter().any(|l| l.contains(kind)).then_some(()));
    }
    // The confirmation is printed line by line; a publish counts the receivers.
    assert_eq!(cli.typed(&["PUBLISH", "news", "first"]), "(integer) 2");
    assert_eq!(cli.typed(&["PUBLISH", "nether", "second"]), "(integer) 1");
    assert_eq!(cli.typed(&["PUBLISH", "sports", "third"]), "(integer) 0");
    let heard = |reader: &Running, lines: &[&str]| {
        poll("published messages", || {
            let all = reader.stdout();
            all.windows(lines.len()).any(|w| w == lines).then_some(())
        });
    };
    heard(&plain, &["1) \"message\"", "2) \"news\"", "3) \"first\""]);
    heard(&pattern, &["1) \"pmessage\"", "2) \"ne*\"", "3) \"news\"", "4) \"first\""]);
    heard(&pattern, &["1) \"pmessage\"", "2) \"ne*\"", "3) \"nether\"", "4) \"second\""]);
    assert!(!plain.stdout().iter().any(|l| l.contains("second")));

    // A subscriber that goes away is forgotten.
    drop(plain);
    poll("one receiver less", || {
        (cli.typed(&["PUBLISH", "news", "again"]) == "(integer) 1").then_some(())
    });
}

#[test]
fn memory_commands_and_fields_tell_true_figures() {
    const VALUE: usize = 1 << 20;
    const VALUES: usize = 16;
    let Some(cli) = Cli::start(&[]) else { return };
    let before = cli.memory();
    let mut names: Vec<String> = Vec::new();
    for i in 0..VALUES {
        names.push(format!("big:{i}"));
        let mut set = cli.server.client(&cli.program);
        set.args(["-x", "SET", &names[i]]);
        assert_eq!(run(&mut set, &vec![b'x'; VALUE]).stdout, b"OK\n");
    }
    let during = cli.memory();
    let payload = (VALUE * VALUES) as u64;
    let grown = during.field("used_memory") - before.field("used_memory");
    // Block rounding and the keyspace add to the payload, but not a third of it.
    assert!((payload..payload * 4 / 3).contains(&grown), "{grown} bytes for {payload}");
    assert!(during.field("used_memory_peak") >= during.field("used_memory"));
    assert_eq!(during.field("maxmemory"), 0);
    assert_eq!(during.text("maxmemory_policy"), "noeviction");
    assert!(during.text("mem_allocator").to_lowercase().contains("flagstone"));
    assert!(during.text("used_memory_human").ends_with('M'));
    let ratio: f64 = during.text("mem_fragmentation_ratio").parse().unwrap();
    assert!((0.5..20.0).contains(&ratio), "{ratio}");
    // The kernel's figure for the process, read a moment later, is the same but for that moment.
    let rss = resident_bytes(cli.server.process.id());
    let told = during.field("used_memory_rss");
    assert!(told.abs_diff(rss) < 8 << 20, "told {told}, the kernel says {rss}");

    let usage = integer(&cli.typed(&["MEMORY", "USAGE", "big:0"]));
    assert!((VALUE as i64..VALUE as i64 * 4 / 3).contains(&usage), "{usage}");
    assert_eq!(cli.typed(&["MEMORY", "USAGE", "none"]), "(nil)");
    let stats = cli.typed(&["MEMORY", "STATS"]);
    for name in ["peak.allocated", "total.allocated", "keys.count", "dataset.bytes"] {
        assert!(stats.contains(&format!("\"{name}\"")), "{name} in {stats}");
    }
    assert!(!cli.raw(&["MEMORY", "DOCTOR"]).is_empty());

    names.insert(0, "DEL".to_owned());
    let del: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(cli.typed(&del), format!("(integer) {VALUES}"));
    assert_eq!(cli.typed(&["MEMORY", "PURGE"]), "OK");
    let after = cli.memory();
    assert!(after.field("used_memory") < before.field("used_memory") + payload / 4);
    assert!(after.field("used_memory_peak") >= during.field("used_memory"));
    poll("the return of freed memory to the system", || {
        cli.typed(&["MEMORY", "PURGE"]);
        (resident_bytes(cli.server.process.id()) < rss - payload / 2).then_some(())
    });
}

#[test]
fn resp3_gives_maps_and_pushes() {
    let Some(cli) = Cli::start(&[]) else { return };
    let hello = cli.typed(&["-3", "HELLO"]);
    assert!(hello.contains("\"proto\" => (integer) 3"), "{hello}");
    assert!(cli.typed(&["HELLO"]).contains("\"proto\"\n"), "RESP2 gives a flat array");
    assert_eq!(cli.typed(&["-3", "GET", "none"]), "(nil)");
    assert_eq!(cli.typed(&["-3", "CONFIG", "GET", "maxmemory"]), "1# \"maxmemory\" => \"0\"");
    assert!(cli.typed(&["HELLO", "4"]).starts_with("(error) NOPROTO"));

    let reader = cli.beside(&["-3", "SUBSCRIBE", "news"]);
    poll("subscribe", || reader.stdout().iter().any(|l| l.contains("subscribe")).then_some(()));
    assert_eq!(cli.typed(&["PUBLISH", "news", "pushed"]), "(integer) 1");
    poll("a push", || reader.stdout().iter().any(|l| l.contains("\"pushed\"")).then_some(()));
}

#[test]
fn at_maxmemory_writes_are_refused_and_nothing_is_lost() {
    const OOM: &str = "(error) OOM command not allowed when used memory > 'maxmemory'.";
    const LIMIT: u64 = 48 << 20;
    const VALUE: usize = 256 << 10;
    let Some(cli) = Cli::start(&["--maxmemory", &LIMIT.to_string()]) else { return };
    assert_eq!(
        cli.typed(&["CONFIG", "GET", "maxmemory"]),
        format!("1) \"maxmemory\"\n2) \"{LIMIT}\"")
    );
    let value = vec![b'v'; VALUE];
    let write = |args: &[&str]| {
        let mut command = cli.server.client(&cli.program);
        command.args(["--no-raw", "-x"]).args(args);
        let output = run(&mut command, &value);
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    };
    let mut stored = 0;
    let refusal = loop {
        let said = write(&["SET", &format!("big:{stored}")]);
        if said != "OK" {
            break said;
        }
        stored += 1;
        assert!(stored * VALUE < 2 * LIMIT as usize, "no refusal after {stored} values");
    };
    assert_eq!(refusal, OOM);
    assert_eq!(write(&["RPUSH", "list"]), OOM);
    assert_eq!(write(&["APPEND", "big:0"]), OOM);
    assert_eq!(write(&["MSET", "other"]), OOM);
    assert!(stored * VALUE > LIMIT as usize / 4, "refused after only {stored} values");

    // Everything that was acknowledged is there, and only that.
    assert_eq!(cli.typed(&["DBSIZE"]), format!("(integer) {stored}"));
    for i in 0..stored {
        let key = format!("big:{i}");
        assert_eq!(cli.typed(&["STRLEN", &key]), format!("(integer) {VALUE}"), "{key}");
    }
    assert_eq!(cli.raw(&["GET", "big:0"]).len(), VALUE);

    // Deletes go on, and make room.
    for i in 0..stored / 2 {
        assert_eq!(cli.typed(&["DEL", &format!("big:{i}")]), "(integer) 1");
    }
    assert_eq!(cli.typed(&["SET", "small", "v"]), "OK");
    assert_eq!(cli.typed(&["GET", "small"]), r#""v""#);
}

/// A server, and the program that speaks to it.
struct Cli {
    server: Server,
    program: PathBuf,
}

impl Cli {
    fn start(flags: &[&str]) -> Option<Self> {
        let program = client("redis-cli", "redis-tools")?;
        Some(Self { server: Server::start(flags), program })
    }

    /// One command; the reply with its type, as redis-cli prints it to a terminal.
    fn typed(&self, args: &[&str]) -> String {
        let mut all = vec!["--no-raw"];
        all.extend(args);
        self.raw(&all)
    }

    /// One command; the reply as redis-cli prints it to a pipe.
    fn raw(&self, args: &[&str]) -> String {
        let output = run(self.server.client(&self.program).args(args), b"");
        let said = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        assert!(output.status.success(), "{args:?}: {said} {output:?}");
        said
    }

    /// A command that goes on beside the test.
    fn beside(&self, args: &[&str]) -> Running {
        Running::start(self.server.client(&self.program).arg("--no-raw").args(args))
    }

    fn memory(&self) -> Info {
        Info(self.raw(&["INFO", "memory"]))
    }
}

/// The text of an `INFO` section.
struct Info(String);

impl Info {
    fn text(&self, name: &str) -> &str {
        let mut lines = self.0.lines().filter_map(|line| line.trim_end().split_once(':'));
        let found = lines.find(|(field, _)| *field == name);
        found.unwrap_or_else(|| panic!("no field {name} in {}", self.0)).1
    }

    fn field(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or_else(|e| panic!("{name}: {e}: {}", self.text(name)))
    }
}

fn integer(reply: &str) -> i64 {
    let digits = reply.strip_prefix("(integer) ");
    digits.and_then(|d| d.parse().ok()).unwrap_or_else(|| panic!("not an integer: {reply}"))
}

/// The resident set of a process in bytes, as the kernel tells it.
fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
