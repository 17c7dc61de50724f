//! Any commands of a few clients against one server's state, without sockets.
//!
//! Owns the grammar of requests (names from the command table, option words from its own texts, small
//! sets of keys and values so that they meet) and the oracles: every reply is whole and decodes in the
//! client's protocol version; who is not waiting, muted or leaving gets one; and when all clients are
//! gone and the data is flushed, every account is back at zero.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;

use arbitrary::{Arbitrary, Result, Unstructured};
use flagstone_server::commands::blocking::{answer_none, deliver};
use flagstone_server::commands::{self, execute};
use flagstone_server::resp::Protocol;
use flagstone_server::resp::input::Input;
use flagstone_server::resp::scan::WireLimits;
use flagstone_server::session::{ReplyMode, Session};
use flagstone_server::settings::Settings;
use flagstone_server::shared::{Shared, wall_clock};

use crate::resp::encode;

/// Clients of a script.
const CLIENTS: usize = 3;
/// Requests that are run at most.
const REQUESTS: usize = 200;
/// Longest value in bytes, as configured.
const BULK: usize = 64 << 10;

/// Runs the requests that some bytes stand for.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut server = Server::new(1 << (u8::arbitrary(&mut input).unwrap_or(0) % 4));
    for _ in 0..REQUESTS {
        if input.is_empty() || server.step(&mut input).is_err() {
            break;
        }
    }
    server.end();
}

struct Server {
    shared: Arc<Shared>,
    sessions: Vec<Session>,
}

impl Server {
    fn new(shards: usize) -> Self {
        let wire = WireLimits { bulk: BULK, ..WireLimits::default() };
        let shared = Shared::new(Settings { shards, wire, ..Settings::default() });
        let sessions = (0..CLIENTS).map(|_| connect(&shared)).collect();
        Self { shared, sessions }
    }

    /// One request of one client, or the end of what it waits for.
    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let choice = u8::arbitrary(input)?;
        let session = &mut self.sessions[usize::from(choice) % CLIENTS];
        session.now += [0, 1, 999, 100_000][usize::from(choice / 64)];
        if let Some(blocked) = session.blocked.take() {
            match blocked.served() {
                None if choice & 32 == 0 => session.blocked = Some(blocked),
                _ => {
                    let popped = blocked.give_up();
                    match popped {
                        Some(popped) => deliver(&self.shared, session, Ok(popped)),
                        None => answer_none(session),
                    }
                    assert!(replies(session) > 0, "an ended wait is answered");
                }
            }
            return Ok(());
        }
        if session.ending {
            leave(&self.shared, session);
            *session = connect(&self.shared);
        }
        let words = request(input)?;
        self.run(usize::from(choice) % CLIENTS, &words);
        Ok(())
    }

    fn run(&mut self, client: usize, words: &[Vec<u8>]) {
        let mut wire = Input::new(self.shared.settings.wire);
        wire.feed(&encode(words));
        let Ok(Some(args)) = wire.next_request() else { return };
        let session = &mut self.sessions[client];
        let was_heard = session.reply_mode == ReplyMode::On;
        self.shared.keyspace.with_participant(|participant| {
            execute(&self.shared, session, &mut participant.pin(), args);
        });
        session.end_batch(&self.shared, 0, 0);
        let got = replies(session);
        let is_heard = was_heard && session.reply_mode == ReplyMode::On;
        let is_shutdown = words[0].eq_ignore_ascii_case(b"shutdown");
        let excused = !is_heard || session.blocked.is_some() || is_shutdown;
        assert!(got > 0 || excused, "no reply to {:?}", printed(words));
        for session in &mut self.sessions {
            session.take_all_messages();
            replies(session);
        }
    }

    /// All clients leave, all data goes: nothing is left in any account.
    fn end(mut self) {
        for session in &mut self.sessions {
            leave(&self.shared, session);
        }
        self.sessions = vec![connect(&self.shared)];
        self.run(0, &[b"FLUSHALL".to_vec()]);
        leave(&self.shared, &mut self.sessions[0]);
        let (stats, left) = (&self.shared.stats, self.shared.keyspace.figures());
        assert_eq!((left.keys, left.volatile, left.dataset_bytes, left.waited_for), (0, 0, 0, 0));
        assert_eq!((stats.blocked.get(), stats.subscribers.get()), (0, 0));
        assert!(self.shared.clients.is_empty());
    }
}

fn connect(shared: &Arc<Shared>) -> Session {
    let address = SocketAddr::from(([127, 0, 0, 1], 4000));
    let client = shared.keyspace.with_participant(|participant| {
        shared.clients.admit(address, address, u64::MAX, &participant.pin()).expect("no limit")
    });
    let mut session = Session::new(client, shared);
    session.now = wall_clock();
    session
}

fn leave(shared: &Shared, session: &mut Session) {
    session.client.mailbox.close();
    session.unsubscribe_all(shared);
    session.blocked = None;
    let (clients, key) = (&shared.clients, session.client.key);
    shared.keyspace.with_participant(|participant| clients.remove(key, &participant.pin()));
}

/// Takes what was written out of the session and counts the replies and messages in it.
fn replies(session: &mut Session) -> usize {
    let mut bytes = Vec::new();
    while !session.out.is_empty() {
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = session.out.slices(&mut slices);
        let taken: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
        session.out.advance(taken.len());
        bytes.extend(taken);
    }
    session.output_written();
    let mut count = 0;
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let len = match session.protocol {
            Protocol::Resp2 => {
                redis_protocol::resp2::decode::decode(rest).map(|reply| reply.map(|(_, len)| len))
            }
            Protocol::Resp3 => redis_protocol::resp3::decode::complete::decode(rest)
                .map(|reply| reply.map(|(_, len)| len)),
        };
        let Ok(Some(len)) = len else {
            panic!("no whole reply: {len:?} in {:?}", printed(&[rest]))
        };
        count += 1;
        rest = &rest[len..];
    }
    count
}

fn printed(words: &[impl AsRef<[u8]>]) -> Vec<String> {
    let text = |word: &[u8]| word[..word.len().min(200)].escape_ascii().to_string();
    words.iter().map(|word| text(word.as_ref())).collect()
}

/// A request: mostly one of the table with about as many arguments as it wants.
fn request(input: &mut Unstructured<'_>) -> Result<Vec<Vec<u8>>> {
    if input.ratio(1u8, 16u8)? {
        let count = input.int_in_range(1..=5usize)?;
        return (0..count).map(|_| argument(input, "")).collect();
    }
    let row = *input.choose(commands::all())?;
    let mut words = vec![row.name.as_bytes().to_vec()];
    let mut spec = row;
    if !row.subcommands.is_empty() && input.ratio(7u8, 8u8)? {
        spec = input.choose(row.subcommands)?;
        words.push(spec.name.as_bytes().to_vec());
    }
    let least = spec.arity.unsigned_abs() as usize;
    let more = if spec.arity < 0 { input.int_in_range(0..=4usize)? } else { 0 };
    while words.len() < least + more {
        words.push(argument(input, spec.arguments)?);
    }
    Ok(words)
}

/// An argument; `arguments` is what the command's help says, whose words are its options.
fn argument(input: &mut Unstructured<'_>, arguments: &str) -> Result<Vec<u8>> {
    const NUMBERS: [&str; 16] = [
        "0",
        "1",
        "-1",
        "2",
        "10",
        "-2",
        "100",
        "3",
        "0.5",
        "1e300",
        "65535",
        "65536",
        "-0",
        "9223372036854775807",
        "-9223372036854775808",
        "18446744073709551616",
    ];
    const TEXTS: [&str; 12] = [
        "",
        "v",
        "*",
        "k*",
        "[a-",
        "?1",
        "\\",
        "a b\r\n",
        "string",
        "list",
        "maxmemory",
        "timeout",
    ];
    Ok(match input.int_in_range(0..=9u8)? {
        0..=3 => format!("k{}", input.int_in_range(0..=5u8)?).into_bytes(),
        4 | 5 => input.choose(&NUMBERS)?.as_bytes().to_vec(),
        6 => input.choose(&TEXTS)?.as_bytes().to_vec(),
        7 => {
            let is_letter = |c: char| c.is_ascii_alphabetic() || c == '-';
            let options: Vec<&str> =
                arguments.split(|c| !is_letter(c)).filter(|word| !word.is_empty()).collect();
            match options.as_slice() {
                [] => b"NX".to_vec(),
                options => input.choose(options)?.as_bytes().to_vec(),
            }
        }
        8 => vec![b'x'; usize::from(u16::arbitrary(input)? % 5000)],
        _ => {
            let len = input.int_in_range(0..=24usize)?;
            input.bytes(len.min(input.len()))?.to_vec()
        }
    })
}
