//! Commands: one file per family, each with its table of [`Spec`]s, and the dispatcher over them.
//!
//! A request is looked up, checked against its row (arguments, subscriber mode, memory limit) and
//! only then handed to its handler: whatever is refused was refused before anything changed.

pub mod blocking;
pub mod client;
pub mod config;
pub mod connection;
pub mod counters;
pub mod expiry;
pub mod info;
pub mod introspect;
pub mod keys;
pub mod lists;
pub mod memory;
pub mod pubsub;
pub mod server;
pub mod spec;
pub mod strings;

use std::sync::{Arc, LazyLock};

use flagstone::Heap;
use flagstone::epoch::Guard;

use crate::failure::Failure;
use crate::keyspace::Db;
use crate::keyspace::entry::Entry;
use crate::keyspace::expiry::Millis;
use crate::keyspace::flush::Flushed;
use crate::keyspace::shard::Key;
use crate::memory::Source;
use crate::resp::input::Args;
use crate::resp::reply::Reply;
use crate::session::{ReplyMode, Session};
use crate::shared::Shared;
use spec::{Flags, Spec};

/// All families, each with the group that clients sort it under.
const FAMILIES: [(&str, &[Spec]); 14] = [
    ("connection", client::COMMANDS),
    ("connection", connection::COMMANDS),
    ("generic", expiry::COMMANDS),
    ("generic", keys::COMMANDS),
    ("list", blocking::COMMANDS),
    ("list", lists::COMMANDS),
    ("pubsub", pubsub::COMMANDS),
    ("server", config::COMMANDS),
    ("server", info::COMMANDS),
    ("server", introspect::COMMANDS),
    ("server", memory::COMMANDS),
    ("server", server::COMMANDS),
    ("string", counters::COMMANDS),
    ("string", strings::COMMANDS),
];

/// Longest subcommand-free text that an error reply quotes of a request.
const QUOTED: usize = 128;

/// Requests above this need memory whatever they do: for a list of their keys at least.
const LARGE_REQUEST: usize = 64 << 10;

/// Room that every command has for its reply before it runs: for all but strings and arrays.
const REPLY_ROOM: usize = 128;

/// Every row, sorted by name. A command's number is its place here.
static TABLE: LazyLock<Table> = LazyLock::new(Table::new);

struct Table {
    rows: Vec<&'static Spec>,
    /// Where the names of each first letter begin; one more for the end.
    letters: [usize; 27],
}

/// What a handler works with.
#[derive(Debug)]
pub struct Context<'a> {
    /// The server.
    pub shared: &'a Arc<Shared>,
    /// The connection.
    pub session: &'a mut Session,
    /// Held while the command runs: what it finds stays readable.
    pub guard: &'a Guard<'a>,
    /// What is to be done when the command has run, without a guard.
    pub after: &'a mut After,
}

/// Work that the command's own guard would keep from being done.
#[derive(Debug, Default)]
pub struct After {
    /// What a flush took out, to be retired and freed.
    pub flushed: Vec<Flushed>,
    /// Whether everything that is free is to be given back.
    pub purge: bool,
}

/// Bytes waiting for readers from which on a writing client frees what it can. Chosen, not measured.
const COLLECT_FROM: u64 = 4 << 20;

impl<'a> Context<'a> {
    /// The reply, to be written.
    pub fn reply(&mut self) -> Reply<'_> {
        self.session.reply()
    }

    /// The chosen database.
    pub fn db(&self) -> &'a Db {
        self.shared.keyspace.db(self.session.db)
    }

    /// The key of these bytes.
    pub fn key<'k>(&self, bytes: &'k [u8]) -> Key<'k> {
        self.db().key(bytes)
    }

    /// The entry of a key, for a command that reads: counts a hit or a miss.
    pub fn read(&mut self, key: &Key<'_>) -> Option<&'a Entry> {
        let entry = self.db().read(key, self.now(), self.guard);
        self.session.count_read(entry.is_some());
        entry
    }

    /// The time of this batch.
    pub fn now(&self) -> Millis {
        self.session.now
    }
}

/// Runs one request: writes its reply, or leaves the session blocked. The guard is one for the whole batch
/// and taken anew after each request.
pub fn execute(shared: &Arc<Shared>, session: &mut Session, guard: &mut Guard<'_>, args: Args<'_>) {
    let skip = session.reply_mode == ReplyMode::SkipNext;
    if skip {
        session.reply_mode = ReplyMode::On;
        session.out.set_muted(true);
    }
    let mark = session.out.mark();
    let mut result = run(shared, session, guard, args);
    guard.repin();
    if session.out.is_starved() {
        session.out.set_back(mark);
        let command = result.map_or_else(|(_, command, _)| command, Some);
        result = Err((Failure::NO_MEMORY, command, true));
    }
    if let Err((failure, command, ran)) = result {
        if failure == Failure::NO_MEMORY {
            shared.stats.oom_refusals.add(1);
        }
        session.reply().error(failure.as_str());
        let stripe = shared.stats.stripe(session.client.id);
        match command {
            Some(command) if ran => stripe.failed(command),
            Some(command) => stripe.rejected(command),
            None => drop(stripe.errors.add(1)),
        }
    }
    if skip {
        session.out.set_muted(session.reply_mode == ReplyMode::Off);
    }
}

/// How many commands there are.
pub fn count() -> usize {
    TABLE.rows.len()
}

/// Every row, sorted by name.
pub fn all() -> &'static [&'static Spec] {
    &TABLE.rows
}

/// The row of a name, in any case, and its number.
pub fn find(name: &[u8]) -> Option<(usize, &'static Spec)> {
    TABLE.find(name)
}

/// The group of a command.
pub fn group(name: &str) -> &'static str {
    let family = FAMILIES.iter().find(|(_, rows)| rows.iter().any(|row| row.name == name));
    family.map_or("generic", |(group, _)| group)
}

/// A request refused or failed: the error, the command's number if it is one, and whether it ran.
type Refusal = (Failure, Option<usize>, bool);

/// Returns the command's number.
fn run(
    shared: &Arc<Shared>,
    session: &mut Session,
    guard: &mut Guard<'_>,
    args: Args<'_>,
) -> Result<usize, Refusal> {
    let Some((number, row)) = TABLE.find(args.at(0)) else {
        return Err((unknown(args), None, false));
    };
    let refuse = |failure| (failure, Some(number), false);
    let spec = resolve(row, args).map_err(refuse)?;
    if session.is_restricted() && !row.flags.has(Flags::WHILE_SUBSCRIBED) {
        return Err(refuse(Failure::text(format!(
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET \
             are allowed in this context",
            row.name
        ))));
    }
    if spec.flags.has(Flags::DENYOOM) {
        let reclaim = || free_retired(guard);
        let admitted =
            shared.gauge.admit(args.wire_len(), &shared.keyspace, &shared.tunables, reclaim);
        if admitted.is_err() {
            shared.stats.oom_refusals.add(1);
            return Err(refuse(Failure::OUT_OF_MEMORY));
        }
    }
    let needs_memory = spec.flags.has(Flags::DENYOOM)
        || spec.flags.has(Flags::KEEPS)
        || args.wire_len() > LARGE_REQUEST;
    if needs_memory && !shared.has_memory_for(args.wire_len()) {
        return Err(refuse(Failure::NO_MEMORY));
    }
    // What changes something is always answered.
    if session.out.reserve(REPLY_ROOM).is_err() {
        return Err(refuse(Failure::NO_MEMORY));
    }
    note(shared, session, number, row);
    let mut after = After::default();
    let result =
        (spec.handler)(&mut Context { shared, session, guard: &*guard, after: &mut after }, args);
    after.run(shared, guard, spec.flags.has(Flags::WRITE));
    result.map_err(|failure| (failure, Some(number), true))?;
    Ok(number)
}

impl After {
    #[inline]
    fn run(self, shared: &Shared, guard: &mut Guard<'_>, wrote: bool) {
        let much = wrote && shared.keyspace.domain().reserved_bytes() > COLLECT_FROM;
        if self.purge || much || !self.flushed.is_empty() {
            drop(self.flushed);
            free_retired(guard);
        }
        if self.purge && shared.gauge.source() == Source::Heap {
            // What could not be reached shows in the heap's own statistics; the reply only says that
            // what could be given back was.
            let _ = Heap::global().purge();
        }
    }
}

/// Frees what was retired and nobody reads. Under a guard the domain moves on by one step; a grace period
/// takes a few.
#[cold]
fn free_retired(guard: &mut Guard<'_>) {
    const STEPS: usize = 4;
    for _ in 0..STEPS {
        guard.repin();
        guard.participant().collect();
    }
}

/// Counts a call. Calls of one command in a row are counted together.
fn note(shared: &Shared, session: &mut Session, number: usize, row: &'static Spec) {
    match &mut session.run {
        Some((command, calls)) if *command == number => *calls += 1,
        other => {
            if let Some((command, calls)) = other.replace((number, 1)) {
                shared.stats.stripe(session.client.id).called(command, calls);
            }
            session.last_command = row.name;
        }
    }
}

/// The row that a request runs: the command's own or its subcommand's, its arguments counted.
fn resolve(row: &'static Spec, args: Args<'_>) -> Result<&'static Spec, Failure> {
    if !row.admits(args.len()) {
        return Err(Failure::arity(row.name));
    }
    if row.subcommands.is_empty() {
        return Ok(row);
    }
    // A container's arity makes sure that there is a name, but for COMMAND, which runs alone, too.
    let Some(name) = args.get(1) else { return Ok(row) };
    let Some(sub) = row.subcommands.iter().find(|sub| is_name(sub.name, name)) else {
        return Err(Failure::text(format!(
            "ERR unknown subcommand '{}'. Try {} HELP.",
            quote(name),
            row.name.to_ascii_uppercase()
        )));
    };
    if !sub.admits(args.len()) {
        return Err(Failure::arity(&format!("{}|{}", row.name, sub.name)));
    }
    Ok(sub)
}

fn unknown(args: Args<'_>) -> Failure {
    let mut text =
        format!("ERR unknown command '{}', with args beginning with: ", quote(args.at(0)));
    let limit = text.len() + QUOTED;
    for arg in args.from(1) {
        if text.len() >= limit {
            break;
        }
        let quoted = quote(&arg[..arg.len().min(limit - text.len())]);
        text.push_str(&format!("'{quoted}' "));
    }
    Failure::text(text)
}

/// Bytes of a request for an error line, cut and made printable.
pub fn quote(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(QUOTED)])
        .replace(|c: char| c.is_control(), " ")
}

/// Whether `given` is `name` in any case.
pub fn is_name(name: &str, given: &[u8]) -> bool {
    given.eq_ignore_ascii_case(name.as_bytes())
}

/// The reply of a container's `HELP`, from its rows.
pub fn help(cx: &mut Context<'_>, container: &str) -> Result<(), Failure> {
    let (_, row) = find(container.as_bytes()).expect("a container of the table");
    let title = format!("{} <subcommand> ...", container.to_ascii_uppercase());
    let mut lines = vec![title];
    for sub in row.subcommands {
        lines.push(format!("{} {}", sub.name.to_ascii_uppercase(), sub.arguments).trim().into());
        lines.push(format!("    {}", sub.summary));
    }
    let mut reply = cx.reply();
    reply.array(lines.len());
    lines.iter().for_each(|line| reply.simple(line));
    Ok(())
}

impl Table {
    fn new() -> Self {
        let mut rows: Vec<&'static Spec> =
            FAMILIES.iter().flat_map(|(_, rows)| rows.iter()).collect();
        rows.sort_by_key(|row| row.name);
        let mut letters = [0; 27];
        for (i, start) in letters.iter_mut().enumerate() {
            *start = rows.partition_point(|row| row.name.as_bytes()[0] < b'a' + i as u8);
        }
        Self { rows, letters }
    }

    fn find(&self, name: &[u8]) -> Option<(usize, &'static Spec)> {
        let letter = name.first()?.to_ascii_lowercase().wrapping_sub(b'a');
        if letter >= 26 {
            return None;
        }
        let range = self.letters[letter as usize]..self.letters[letter as usize + 1];
        range.map(|i| (i, self.rows[i])).find(|(_, row)| is_name(row.name, name))
    }
}

#[cfg(test)]
#[path = "tests.rs"]
pub(crate) mod tests;
