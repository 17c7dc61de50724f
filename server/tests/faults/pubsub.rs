//! Messages: subscriptions of long names and of many, publishing to subscribers of both protocol versions
//! and by pattern, ends of subscriptions.
//!
//! A message that was answered with an error reached nobody. One that was answered with a number reached
//! everybody who is still there; who could not be given it was closed.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;

use super::{InProcess, Scenario, Seen, sweep};
use crate::wire::{Wire, encode};

/// Names of one request: what a session and the server keep of them are blocks that can be refused.
const MANY: usize = 400;
/// Messages of one pipeline: as many wait in a mailbox at once.
const PIPELINE: usize = 300;
/// Bytes of long names, patterns and messages.
const LONG: usize = 9_000;

/// Somebody who subscribes.
struct Subscriber {
    wire: Option<Wire>,
    /// What it was told that it is subscribed to.
    topics: BTreeSet<String>,
    /// Numbers of the messages that came, one for each subscription that they came by.
    got: Vec<usize>,
    seen: Seen,
}

/// A message, and the answer to its publisher, if that came.
struct Sent {
    number: usize,
    channel: String,
    answer: Option<String>,
}

struct Hall {
    addr: SocketAddr,
    /// Speaks RESP2, by name.
    by_name: Subscriber,
    /// Speaks RESP3, by name and by patterns.
    by_pattern: Subscriber,
    /// Subscribes to many and ends that.
    fickle: Subscriber,
    publisher: Option<Wire>,
    sent: Vec<Sent>,
}

impl Subscriber {
    fn connect(addr: SocketAddr) -> Self {
        Self {
            wire: Some(Wire::connect(addr)),
            topics: BTreeSet::new(),
            got: Vec::new(),
            seen: Seen::default(),
        }
    }

    /// The next answer; messages that come before it are noted.
    fn answer(&mut self) -> Option<String> {
        loop {
            let frame = self.wire.as_mut()?.reply_or_end();
            let Some(frame) = frame else {
                self.wire = None;
                self.seen.ends += 1;
                return None;
            };
            let text = frame.trim_start_matches('>');
            if !text.starts_with("[message, ") && !text.starts_with("[pmessage, ") {
                return Some(text.to_owned());
            }
            let payload = text.rsplit(", ").next().expect("a message has parts");
            self.got.push(payload[..5].parse().expect("a number of five digits"));
        }
    }

    /// Sends a request that is answered once for each name, and notes what was done. A refusal is the last
    /// answer.
    fn change(&mut self, command: &str, names: &[String]) {
        let Some(wire) = &mut self.wire else { return };
        let mut words: Vec<&[u8]> = vec![command.as_bytes()];
        words.extend(names.iter().map(String::as_bytes));
        let ends = command.ends_with("UNSUBSCRIBE");
        let mut expected = names.to_vec();
        if names.is_empty() {
            // Of all in the order of their making, which is that of their names here.
            expected = self.topics.iter().cloned().collect();
        }
        if wire.stream.write_all(&encode(&words)).is_err() {
            // Its end is seen with the next answer.
            let _ = self.answer();
            return;
        }
        for name in expected {
            let Some(answer) = self.answer() else { return };
            if answer.starts_with("-OOM ") {
                self.seen.errors += 1;
                if answer.starts_with("-OOM no memory for a request") {
                    self.wire = None;
                    self.seen.ends += 1;
                }
                return;
            }
            if ends {
                self.topics.remove(&name)
            } else {
                self.topics.insert(name.clone())
            };
            let (command, count) = (command.to_lowercase(), self.topics.len());
            assert!(
                answer == format!("[{command}, {name}, :{count}]"),
                "{command} of {name:.20}: {answer:.60}"
            );
        }
    }

    /// What must have come: once by each subscription that matches.
    fn due<'a>(&self, sent: impl Iterator<Item = &'a Sent>) -> Vec<usize> {
        sent.flat_map(|sent| {
            let matches = |topic: &&String| **topic == sent.channel || is_for(topic, &sent.channel);
            std::iter::repeat_n(sent.number, self.topics.iter().filter(matches).count())
        })
        .collect()
    }

    /// With memory again: ends all subscriptions, so that everything has come, and looks at it.
    fn check(mut self, sent: &[Sent]) {
        let taken = |sent: &&Sent| sent.answer.as_ref().is_some_and(|text| text.starts_with(':'));
        let known = self.due(sent.iter().filter(taken));
        let unknown = self.due(sent.iter().filter(|sent| sent.answer.is_none()));
        let is_there = self.wire.is_some();
        let (patterns, names): (Vec<String>, Vec<String>) =
            self.topics.iter().cloned().partition(|topic| is_pattern(topic));
        if !names.is_empty() {
            self.change("UNSUBSCRIBE", &names);
        }
        if !patterns.is_empty() {
            self.change("PUNSUBSCRIBE", &patterns);
        }
        if self.wire.is_some() {
            assert!(self.topics.is_empty());
            assert!(self.got.len() >= known.len(), "{} of {}", self.got.len(), known.len());
        } else if is_there {
            // Evicted before it was asked; it had got the first of what was due.
            assert!(self.got.len() <= known.len() + unknown.len());
        }
        let due: Vec<usize> = known.into_iter().chain(unknown).collect();
        assert!(due.starts_with(&self.got), "{:?} of {due:?}", self.got);
    }
}

impl Hall {
    fn publish(&mut self, messages: &[(&str, usize)]) {
        let Some(publisher) = &mut self.publisher else { return };
        let mut requests = Vec::new();
        let first = self.sent.len();
        for (channel, length) in messages {
            let number = self.sent.len();
            let message = format!("{number:05}{}", "m".repeat(*length));
            requests.extend(encode(&[b"PUBLISH", channel.as_bytes(), message.as_bytes()]));
            self.sent.push(Sent { number, channel: (*channel).to_owned(), answer: None });
        }
        // What was answered arrives though sending fails.
        let _ = publisher.stream.write_all(&requests);
        for sent in &mut self.sent[first..] {
            match publisher.reply_or_end() {
                // Has not run, and nothing behind it will.
                Some(answer) if answer.starts_with("-OOM no memory for a request") => break,
                Some(answer) => {
                    assert!(answer.starts_with([':', '-']), "{answer}");
                    assert!(answer.starts_with(':') || answer.starts_with("-OOM "), "{answer}");
                    sent.answer = Some(answer);
                }
                None => break,
            }
        }
        if self.sent.last().is_some_and(|sent| sent.answer.is_none()) {
            self.publisher = None;
        }
    }
}

fn is_pattern(topic: &str) -> bool {
    topic.ends_with('*')
}

/// Whether a pattern of ours matches.
fn is_for(pattern: &str, channel: &str) -> bool {
    pattern.strip_suffix('*').is_some_and(|prefix| channel.starts_with(prefix))
}

fn long(letter: &str) -> String {
    letter.repeat(LONG)
}

impl Scenario for Hall {
    const FROM: usize = 8 << 10;

    fn begin(server: &InProcess) -> Self {
        let connect = || Subscriber::connect(server.addr);
        let mut by_pattern = connect();
        by_pattern.wire.as_mut().expect("it is there").run("HELLO 3");
        Self {
            addr: server.addr,
            by_name: connect(),
            by_pattern,
            fickle: connect(),
            publisher: Some(Wire::connect(server.addr)),
            sent: Vec::new(),
        }
    }

    fn work(&mut self) -> Seen {
        let text = str::to_owned;
        self.by_name.change("SUBSCRIBE", &[text("c"), long("l"), long("o")]);
        self.by_pattern.change("SUBSCRIBE", &[text("c")]);
        self.by_pattern.change("PSUBSCRIBE", &[text("c*"), format!("{}*", long("x"))]);
        let many: Vec<String> = (0..MANY).map(|n| format!("n{n:04}")).collect();
        self.fickle.change("SUBSCRIBE", &many);
        self.publish(&[("c", LONG), ("c", 10), (&long("l"), 5_000), (&long("x"), 5)]);
        self.publish(&[("c", 20); PIPELINE]);
        self.publish(&[("nobody", LONG)]);
        self.by_name.change("UNSUBSCRIBE", &[long("o"), long("o")]);
        self.fickle.change("UNSUBSCRIBE", &[]);
        let mut seen = Seen::default();
        for subscriber in [&mut self.by_name, &mut self.by_pattern, &mut self.fickle] {
            let Seen { errors, ends } = std::mem::take(&mut subscriber.seen);
            seen.errors += errors;
            seen.ends += ends;
        }
        let refused = |sent: &&Sent| sent.answer.as_ref().is_some_and(|text| text.starts_with('-'));
        seen.errors += self.sent.iter().filter(refused).count();
        seen.ends += usize::from(self.publisher.is_none());
        seen
    }

    fn end(self) {
        let Self { addr, by_name, by_pattern, fickle, sent, .. } = self;

        for subscriber in [by_name, by_pattern, fickle] {
            subscriber.check(&sent);
        }
        let mut wire = Wire::connect(addr);
        super::soon("all subscriptions to end", || {
            let none = wire.run("PUBSUB CHANNELS") == "[]" && wire.int("PUBSUB NUMPAT") == 0;
            none.then_some(())
        });
        assert_eq!(wire.run("PUBLISH c nobody"), ":0");
    }
}

// requirement: G7
#[test]
fn messages_are_whole_and_none_is_missed_unawares_whichever_request_fails() {
    for once in [false, true] {
        let swept = sweep::<Hall>(once);
        // One refusal alone is made up for with less, or answered.
        assert!(swept.requests > 30 && swept.seen.errors > 10, "{swept:?}");
        assert!(once || swept.seen.ends > 30, "{swept:?}");
    }
}
