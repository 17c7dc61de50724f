//! The bench that command families are tested on: a server's state and one session, no socket.
//!
//! Requests are typed as inline lines; replies are printed as in the black-box tests.

use std::io::IoSlice;
use std::sync::Arc;

use super::*;
use crate::resp::Protocol;
use crate::resp::input::Input;
use crate::resp::scan::WireLimits;
use crate::settings::Settings;

#[path = "../../tests/wire/print.rs"]
mod print;

/// One server, one client.
pub(crate) struct Bench {
    pub shared: Arc<Shared>,
    pub session: Session,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// With settings changed.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings { shards: 4, ..Settings::default() };
        change(&mut settings);
        let shared = Shared::new(settings);
        let session = Self::connect(&shared);
        Self { shared, session }
    }

    /// Another client of the same server.
    pub fn another(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), session: Self::connect(&self.shared) }
    }

    fn connect(shared: &Arc<Shared>) -> Session {
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 4000));
        let client = shared.keyspace.with_participant(|participant| {
            shared.clients.admit(addr, addr, u64::MAX, &participant.pin()).unwrap()
        });
        Session::new(client, shared)
    }

    /// Runs one inline request and prints all that it wrote.
    pub fn run(&mut self, line: &str) -> String {
        let mut input = Input::new(WireLimits::default());
        input.feed(line.as_bytes());
        input.feed(b"\n");
        let args = input.next_request().unwrap().expect("a whole line");
        let participant = self.shared.keyspace.domain().local().expect("a living thread");
        execute(&self.shared, &mut self.session, &mut participant.pin(), args);
        self.session.end_batch(&self.shared, 0, 0);
        self.printed()
    }

    /// Prints what was left in the mailbox.
    pub fn messages(&mut self) -> String {
        self.session.take_all_messages();
        let printed = self.printed();
        self.session.output_written();
        printed
    }

    /// The integer that a request answers.
    pub fn int(&mut self, line: &str) -> i64 {
        let reply = self.run(line);
        reply.strip_prefix(':').and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{reply}"))
    }

    /// Lets time pass.
    pub fn advance(&mut self, millis: u64) {
        self.session.now += millis;
    }

    /// Takes what was written out of the output and prints it.
    pub fn printed(&mut self) -> String {
        let out = &mut self.session.out;
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = out.slices(&mut slices);
        let bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(bytes.len(), out.len(), "more slices than the bench looks at");
        out.advance(bytes.len());
        let mut printed = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let resp3 = self.session.protocol == Protocol::Resp3;
            let (reply, len) = print::reply(rest, resp3).expect("whole replies");
            printed.push(reply);
            rest = &rest[len..];
        }
        printed.join(" ")
    }
}

#[test]
fn names_are_found_in_any_case() {
    assert_eq!(find(b"GeT").unwrap().1.name, "get");
    assert!(find(b"gett").is_none());
    assert!(find(b"").is_none());
    assert!(find(b"\xff").is_none());
    for (number, row) in all().iter().enumerate() {
        assert_eq!(find(row.name.as_bytes()).unwrap().0, number, "{}", row.name);
    }
}

#[test]
fn the_table_is_well_formed() {
    for pair in all().windows(2) {
        assert!(pair[0].name < pair[1].name, "{} is there twice", pair[0].name);
    }
    for row in all() {
        let lower = row.name.bytes().all(|byte| byte.is_ascii_lowercase());
        assert!(lower, "{}", row.name);
        assert!(row.arity != 0 && !row.summary.is_empty(), "{}", row.name);
        let both = row.flags.has(Flags::WRITE) && row.flags.has(Flags::READONLY);
        assert!(!both, "{}", row.name);
        let keyed = row.flags.has(Flags::WRITE) || row.flags.has(Flags::READONLY);
        let whole = ["flushall", "flushdb", "keys", "scan", "dbsize"].contains(&row.name);
        assert_eq!(
            keyed && !whole,
            row.keys.first > 0 && row.subcommands.is_empty(),
            "{}",
            row.name
        );
    }
}

#[test]
fn what_is_no_command_is_quoted() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.run("BOO a 'b c'"),
        "-ERR unknown command 'BOO', with args beginning with: 'a' 'b c' "
    );
    let long = "x".repeat(1000);
    let reply = bench.run(&format!("{long} {long} {long}"));
    assert!(reply.len() < 400, "{}", reply.len());
    assert_eq!(bench.run("GET"), "-ERR wrong number of arguments for 'get' command");
    assert_eq!(bench.run("GET a b"), "-ERR wrong number of arguments for 'get' command");
    assert_eq!(bench.run("CONFIG BOO"), "-ERR unknown subcommand 'BOO'. Try CONFIG HELP.");
    assert_eq!(bench.run("CONFIG GET"), "-ERR wrong number of arguments for 'config|get' command");
    assert_eq!(bench.run("CONFIG"), "-ERR wrong number of arguments for 'config' command");
}

#[test]
fn calls_failures_and_refusals_are_counted() {
    let mut bench = Bench::new();
    bench.run("SET k v");
    bench.run("GET k");
    bench.run("GET k");
    bench.run("INCR k");
    bench.run("GET");
    bench.run("BOO");
    let totals = bench.shared.stats.totals();
    let of = |name: &str| totals.commands[find(name.as_bytes()).unwrap().0];
    assert_eq!((of("get").calls, of("get").rejected), (2, 1));
    assert_eq!((of("incr").calls, of("incr").failed), (1, 1));
    assert_eq!((totals.calls(), totals.errors), (4, 3));
}

#[test]
fn every_container_helps() {
    let mut bench = Bench::new();
    for row in all().iter().filter(|row| !row.subcommands.is_empty()) {
        let reply = bench.run(&format!("{} HELP", row.name));
        assert!(reply.starts_with("[+") && reply.contains("HELP"), "{}: {reply}", row.name);
    }
}
