//! Publish and subscribe: who listens to which channel and pattern.
//!
//! Channels are spread over locks by hash. A publisher holds its channel's lock while it posts to
//! the subscribers' mailboxes, so messages of one channel reach all subscribers in one order; posting
//! never waits ([`Mailbox::post`](crate::mailbox::Mailbox::post)). A message is encoded once per
//! protocol version and shared by all who get it.
//!
//! Locks nest channel first, patterns second, mailbox last.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use indexmap::IndexMap;

use crate::clients::Client;
use crate::glob;
use crate::mailbox::Post;
use crate::resp::Protocol;
use crate::resp::output::Output;
use crate::resp::reply::Reply;
use crate::settings::OutputLimit;
use crate::sync::{Mutex, Padded};

const LOCKS: usize = 16;

/// Subscribers by number, in the order of their subscribing but for gaps that the last one fills.
type Subscribers = IndexMap<u64, Arc<Client>>;
type Topics = HashMap<Box<[u8]>, Subscribers>;

/// All subscriptions of a server.
#[derive(Debug, Default)]
pub struct PubSub {
    channels: [Padded<Mutex<Topics>>; LOCKS],
    patterns: Mutex<Topics>,
    hasher: RandomState,
}

/// What became of a published message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Mailboxes that took it.
    pub receivers: usize,
    /// Clients that it was one message too many for.
    pub evicted: usize,
}

impl PubSub {
    /// Subscribes to a channel. False if the client was already.
    pub fn subscribe(&self, channel: &[u8], client: &Arc<Client>) -> bool {
        add(&mut self.lock(channel).lock(), channel, client)
    }

    /// Ends the subscription to a channel. False if there was none.
    pub fn unsubscribe(&self, channel: &[u8], client: u64) -> bool {
        remove(&mut self.lock(channel).lock(), channel, client)
    }

    /// Subscribes to all channels that match a pattern. False if the client was already.
    pub fn subscribe_pattern(&self, pattern: &[u8], client: &Arc<Client>) -> bool {
        add(&mut self.patterns.lock(), pattern, client)
    }

    /// Ends the subscription to a pattern. False if there was none.
    pub fn unsubscribe_pattern(&self, pattern: &[u8], client: u64) -> bool {
        remove(&mut self.patterns.lock(), pattern, client)
    }

    /// Posts a message to everybody who subscribed to its channel or to a pattern that matches.
    pub fn publish(&self, channel: &[u8], payload: &[u8], limit: OutputLimit) -> Published {
        let mut published = Published::default();
        let channels = self.lock(channel).lock();
        if let Some(subscribers) = channels.get(channel) {
            let parts: [&[u8]; 3] = [b"message", channel, payload];
            Message::new(&parts).post(subscribers, limit, &mut published);
        }
        let patterns = self.patterns.lock();
        for (pattern, subscribers) in patterns.iter() {
            if glob::matches(pattern, channel) {
                let parts: [&[u8]; 4] = [b"pmessage", pattern, channel, payload];
                Message::new(&parts).post(subscribers, limit, &mut published);
            }
        }
        published
    }

    /// Channels that somebody listens to and that match `pattern`, if there is one.
    pub fn channels(&self, pattern: Option<&[u8]>) -> Vec<Box<[u8]>> {
        let wanted = |name: &[u8]| pattern.is_none_or(|pattern| glob::matches(pattern, name));
        let mut names = Vec::new();
        for channels in &self.channels {
            names.extend(channels.lock().keys().filter(|name| wanted(name)).cloned());
        }
        names
    }

    /// How many listen to a channel by its name.
    pub fn subscribers(&self, channel: &[u8]) -> usize {
        self.lock(channel).lock().get(channel).map_or(0, Subscribers::len)
    }

    /// How many channels somebody listens to.
    pub fn channel_count(&self) -> usize {
        self.channels.iter().map(|channels| channels.lock().len()).sum()
    }

    /// How many patterns somebody listens to.
    pub fn pattern_count(&self) -> usize {
        self.patterns.lock().len()
    }

    fn lock(&self, channel: &[u8]) -> &Mutex<Topics> {
        &self.channels[self.hasher.hash_one(channel) as usize % LOCKS]
    }
}

/// A message on its way to many: encoded when the first receiver of a protocol version is met.
struct Message<'a> {
    parts: &'a [&'a [u8]],
    resp2: OnceCell<Bytes>,
    resp3: OnceCell<Bytes>,
}

impl<'a> Message<'a> {
    fn new(parts: &'a [&'a [u8]]) -> Self {
        Self { parts, resp2: OnceCell::new(), resp3: OnceCell::new() }
    }

    fn post(&self, subscribers: &Subscribers, limit: OutputLimit, published: &mut Published) {
        for client in subscribers.values() {
            let encoded = if client.speaks_resp3.is_raised() {
                self.resp3.get_or_init(|| encode(Protocol::Resp3, self.parts))
            } else {
                self.resp2.get_or_init(|| encode(Protocol::Resp2, self.parts))
            };
            match client.mailbox.post(encoded.clone(), limit) {
                Post::Taken => published.receivers += 1,
                Post::Evicted => published.evicted += 1,
                Post::Closed => {}
            }
        }
    }
}

fn encode(protocol: Protocol, parts: &[&[u8]]) -> Bytes {
    let mut output = Output::new(usize::MAX);
    let mut reply = Reply::new(&mut output, protocol);
    reply.push(parts.len());
    for part in parts {
        reply.bulk(part);
    }
    let mut slices = [IoSlice::new(&[])];
    let filled = output.slices(&mut slices);
    debug_assert_eq!(filled, 1, "copies go into one tail");
    Bytes::copy_from_slice(&slices[0])
}

fn add(topics: &mut Topics, name: &[u8], client: &Arc<Client>) -> bool {
    let subscribers = match topics.get_mut(name) {
        Some(subscribers) => subscribers,
        None => topics.entry(name.into()).or_default(),
    };
    subscribers.insert(client.id, Arc::clone(client)).is_none()
}

fn remove(topics: &mut Topics, name: &[u8], client: u64) -> bool {
    let Some(subscribers) = topics.get_mut(name) else { return false };
    let removed = subscribers.swap_remove(&client).is_some();
    if subscribers.is_empty() {
        topics.remove(name);
        topics.shrink_to(2 * topics.len());
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    const LIMIT: OutputLimit = OutputLimit { hard: 1000, soft: 0, soft_seconds: 0 };

    fn client(id: u64) -> Arc<Client> {
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        Client::new(id, addr, addr)
    }

    fn messages(client: &Client) -> Vec<String> {
        let mut messages = Vec::new();
        client.mailbox.take_messages(|message| {
            messages.push(String::from_utf8_lossy(&message).replace("\r\n", " "));
            true
        });
        messages
    }

    #[test]
    fn channels_and_patterns_each_deliver() {
        let pubsub = PubSub::default();
        let (a, b) = (client(1), client(2));
        assert!(pubsub.subscribe(b"news", &a));
        assert!(!pubsub.subscribe(b"news", &a));
        assert!(pubsub.subscribe_pattern(b"n*", &a));
        assert!(pubsub.subscribe_pattern(b"*s", &b));
        b.speaks_resp3.raise();
        let published = pubsub.publish(b"news", b"hi", LIMIT);
        assert_eq!(published, Published { receivers: 3, evicted: 0 });
        assert_eq!(
            messages(&a),
            ["*3 $7 message $4 news $2 hi ", "*4 $8 pmessage $2 n* $4 news $2 hi ",]
        );
        assert_eq!(messages(&b), [">4 $8 pmessage $2 *s $4 news $2 hi "]);
        assert_eq!(pubsub.publish(b"other", b"hi", LIMIT).receivers, 0);
    }

    #[test]
    fn what_nobody_listens_to_is_forgotten() {
        let pubsub = PubSub::default();
        let a = client(1);
        pubsub.subscribe(b"x", &a);
        pubsub.subscribe_pattern(b"x*", &a);
        assert_eq!((pubsub.channel_count(), pubsub.pattern_count()), (1, 1));
        assert_eq!(pubsub.channels(Some(b"?")), [Box::from(b"x".as_slice())]);
        assert!(pubsub.channels(Some(b"y")).is_empty());
        assert_eq!(pubsub.subscribers(b"x"), 1);
        assert!(pubsub.unsubscribe(b"x", 1));
        assert!(!pubsub.unsubscribe(b"x", 1));
        assert!(pubsub.unsubscribe_pattern(b"x*", 1));
        assert_eq!((pubsub.channel_count(), pubsub.pattern_count()), (0, 0));
    }

    #[test]
    fn a_slow_client_is_evicted_and_the_others_get_theirs() {
        let pubsub = PubSub::default();
        let (slow, quick) = (client(1), client(2));
        pubsub.subscribe(b"x", &slow);
        pubsub.subscribe(b"x", &quick);
        let payload = [b'x'; 600];
        assert_eq!(pubsub.publish(b"x", &payload, LIMIT).receivers, 2);
        quick.mailbox.take_messages(|_| true);
        let (_, bytes) = slow.mailbox.waiting();
        quick.mailbox.written(bytes);
        let published = pubsub.publish(b"x", &payload, LIMIT);
        assert_eq!(published, Published { receivers: 1, evicted: 1 });
        assert_eq!(pubsub.publish(b"x", b"", LIMIT), Published { receivers: 1, evicted: 0 });
    }
}
