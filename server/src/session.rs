//! One connection's state between commands: protocol, database, subscriptions, what it waits for.
//!
//! The session belongs to the connection's task. It knows nothing of sockets: requests are executed
//! on it and replies pile up in its output, which is also how unit tests drive commands.

use std::sync::Arc;

use bytes::Bytes;
use flagstone::typed::Key;
use indexmap::IndexMap;
use tokio::time::Instant;

use crate::clients::Client;
use crate::fallible::NoMemory;
use crate::keyspace::expiry::Millis;
use crate::keyspace::waiters::{Popped, Waiter};
use crate::resp::Protocol;
use crate::resp::output::Output;
use crate::resp::reply::Reply;
use crate::settings::OutputLimit;
use crate::shared::{Shared, wall_clock};

/// Bytes of messages that are moved from the mailbox into the output at a time.
const MESSAGES_AT_A_TIME: usize = 64 * 1024;

/// Bytes of output of which others are told as they are written.
const WORTH_TELLING: usize = 16 * 1024;

/// One connection's state.
#[derive(Debug)]
pub struct Session {
    /// The connection as others see it.
    pub client: Arc<Client>,
    /// Chosen database.
    pub db: usize,
    /// Spoken protocol version.
    pub protocol: Protocol,
    /// Replies not yet written.
    pub out: Output,
    /// The time that commands of this batch see.
    pub now: Millis,
    /// Channels subscribed to, each with the subscription's key.
    pub channels: IndexMap<Box<[u8]>, Key>,
    /// Patterns subscribed to, the same.
    pub patterns: IndexMap<Box<[u8]>, Key>,
    /// What the client waits for; nothing else runs meanwhile.
    pub blocked: Option<Blocked>,
    /// Whether the connection closes once its output is written.
    pub ending: bool,
    /// Which replies are sent.
    pub reply_mode: ReplyMode,
    /// The last command's number, to count runs of one command at once.
    pub(crate) run: Option<(usize, u64)>,
    /// Reads of this batch that found their key, and that did not.
    reads: (u64, u64),
    /// The last command's name.
    pub(crate) last_command: &'static str,
    /// Bytes received and not yet run, and bytes that the read buffer holds, when last told.
    input: (usize, usize),
    /// Bytes of output that others were told of.
    viewed_output: usize,
    /// Bytes of messages in the output that the mailbox still counts.
    messages_in_output: usize,
}

/// What `CLIENT REPLY` chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyMode {
    /// All replies are sent.
    #[default]
    On,
    /// None is.
    Off,
    /// The next command's is not.
    SkipNext,
}

impl Session {
    /// The session of a client that just connected.
    pub fn new(client: Arc<Client>, shared: &Shared) -> Self {
        Self {
            client,
            db: 0,
            protocol: Protocol::default(),
            out: Output::new(limit_of(shared.tunables.output_normal.get())),
            now: wall_clock(),
            channels: IndexMap::new(),
            patterns: IndexMap::new(),
            blocked: None,
            ending: false,
            reply_mode: ReplyMode::On,
            run: None,
            reads: (0, 0),
            last_command: "NULL",
            input: (0, 0),
            viewed_output: 0,
            messages_in_output: 0,
        }
    }

    /// Starts a batch: reads the clock and the limits once for all its commands.
    pub fn start_batch(&mut self, shared: &Shared) {
        self.now = wall_clock();
        self.out.set_limit(limit_of(shared.tunables.output_normal.get()));
    }

    /// Ends a batch: counts what is not counted yet and tells others about this connection.
    pub fn end_batch(&mut self, shared: &Shared, unread: usize, input_held: usize) {
        if let Some((command, calls)) = self.run.take() {
            shared.stats.stripe(self.client.id).called(command, calls);
        }
        let (hits, misses) = std::mem::take(&mut self.reads);
        if hits + misses > 0 {
            let stripe = shared.stats.stripe(self.client.id);
            stripe.hits.add(hits);
            stripe.misses.add(misses);
        }
        self.input = (unread, input_held);
        self.write_view();
    }

    /// Counts a read that found its key, or did not.
    pub fn count_read(&mut self, hit: bool) {
        let (hits, misses) = &mut self.reads;
        *if hit { hits } else { misses } += 1;
    }

    /// Tells others about this connection.
    pub fn write_view(&mut self) {
        self.viewed_output = self.out.held();
        let mut view = self.client.view.lock();
        view.db = self.db;
        view.protocol = self.protocol;
        view.channels = self.channels.len();
        view.patterns = self.patterns.len();
        view.blocked = self.blocked.is_some();
        (view.unread, view.input_held) = self.input;
        view.output_held = self.viewed_output;
        view.command = self.last_command;
        view.active = std::time::Instant::now();
    }

    /// Writes replies in the session's protocol version.
    pub fn reply(&mut self) -> Reply<'_> {
        Reply::new(&mut self.out, self.protocol)
    }

    /// Subscriptions, of both kinds.
    pub fn subscriptions(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    /// Whether only subscription commands may run: RESP2 cannot tell replies from messages.
    pub fn is_restricted(&self) -> bool {
        self.protocol == Protocol::Resp2 && self.subscriptions() > 0
    }

    /// Moves messages from the mailbox behind the replies in the output, a portion at a time.
    pub fn take_messages(&mut self) {
        self.take_messages_up_to(MESSAGES_AT_A_TIME);
    }

    /// Moves all messages: before a confirmation after which none of them may come.
    pub fn take_all_messages(&mut self) {
        self.take_messages_up_to(usize::MAX);
    }

    fn take_messages_up_to(&mut self, portion: usize) {
        let Self { client, out, messages_in_output, reply_mode, .. } = self;
        let mut taken = 0usize;
        out.set_muted(false);
        client.mailbox.take_messages(|message: Bytes| {
            taken += message.len();
            out.put_shared(message);
            taken < portion
        });
        if out.is_starved() {
            // One was taken and has no room: the client is closed, and so does not miss it unawares.
            let _ = client.mailbox.evict();
        }
        *messages_in_output += taken;
        out.set_muted(*reply_mode == ReplyMode::Off);
    }

    /// Takes `n` written bytes off the output. Others are told when there was much of it.
    pub fn wrote(&mut self, n: usize) {
        self.out.advance(n);
        if self.viewed_output >= WORTH_TELLING {
            self.write_view();
        }
    }

    /// Tells the mailbox that everything in the output was written.
    pub fn output_written(&mut self) {
        if self.messages_in_output > 0 {
            self.client.mailbox.written(std::mem::take(&mut self.messages_in_output));
        }
    }

    /// Ends all subscriptions, without confirming them.
    pub fn unsubscribe_all(&mut self, shared: &Shared) {
        if self.subscriptions() == 0 {
            return;
        }
        shared.stats.subscribers.add(-1);
        let channels = std::mem::take(&mut self.channels).into_values();
        let patterns = std::mem::take(&mut self.patterns).into_values();
        shared.keyspace.with_participant(|participant| {
            let guard = participant.pin();
            for key in channels.chain(patterns) {
                shared.pubsub.unsubscribe(key, &guard);
            }
        });
    }
}

/// A client in `BLPOP` or `BRPOP`. Dropping it ends the wait: the client leaves all queues, and an
/// element that it was given and did not see goes back to its list.
#[derive(Debug)]
pub struct Blocked {
    shared: Arc<Shared>,
    db: usize,
    keys: Vec<Box<[u8]>>,
    waiter: Arc<Waiter>,
    /// When waiting ends; `None` for never.
    pub deadline: Option<Instant>,
}

impl Blocked {
    /// A wait that has begun: `waiter` stands in the queues of `keys`.
    pub fn new(
        shared: Arc<Shared>,
        db: usize,
        keys: Vec<Box<[u8]>>,
        waiter: Arc<Waiter>,
        deadline: Option<Instant>,
    ) -> Self {
        shared.stats.blocked.add(1);
        Self { shared, db, keys, waiter, deadline }
    }

    /// The element, once somebody pushed one, or that there was no memory to hand it over.
    pub fn served(&self) -> Option<Result<Popped, NoMemory>> {
        self.waiter.served()
    }

    /// Ends the wait; an element that came at the last moment is returned.
    #[must_use]
    pub fn give_up(self) -> Option<Popped> {
        self.waiter.close()
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        self.shared.stats.blocked.add(-1);
        let keyspace = &self.shared.keyspace;
        let db = keyspace.db(self.db);
        let unseen = self.waiter.close();
        keyspace.with_participant(|participant| {
            let guard = participant.pin();
            db.leave(self.keys.iter().map(|key| &**key), self.waiter.ticket(), &guard);
            if let Some(popped) = unseen {
                // If another type took the key's place there is no list to go back to, and without memory
                // the list may have no room; Redis, which counts an element as delivered when it was
                // popped, loses it in every case.
                let _ = db.put_back(popped, wall_clock(), &guard);
            }
        });
    }
}

fn limit_of(limit: OutputLimit) -> usize {
    match limit.hard {
        0 => usize::MAX,
        hard => usize::try_from(hard).unwrap_or(usize::MAX),
    }
}
