//! Publish and subscribe: who listens to which channel and pattern.
//!
//! Subscriptions are values of a typed slab: a topic lists their keys, a session has them as well, and each
//! says whose it is by the client's key. A client that has gone is a miss, also for a publisher that comes
//! across one of its subscriptions before the session has ended it.
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
use flagstone::epoch::{Domain, Guard};
use flagstone::typed::{Key, Slab, Stats};
use indexmap::IndexMap;

use crate::clients::Clients;
use crate::fallible::{NoMemory, try_boxed};
use crate::glob;
use crate::mailbox::Post;
use crate::resp::Protocol;
use crate::resp::output::Output;
use crate::resp::reply::Reply;
use crate::settings::OutputLimit;
use crate::sync::{Mutex, Padded};

const LOCKS: usize = 16;

/// Subscriptions by client, in the order of their making but for gaps that the last one fills.
type Subscribers = IndexMap<Key, Key>;
type Topics = HashMap<Box<[u8]>, Subscribers>;

/// What a subscription is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A channel, by its name.
    Channel,
    /// All channels that match a pattern.
    Pattern,
}

/// One client's subscription to one channel or pattern.
#[derive(Debug)]
struct Subscription {
    client: Key,
    kind: Kind,
    name: Box<[u8]>,
}

/// All subscriptions of a server.
#[derive(Debug)]
pub struct PubSub {
    subscriptions: Arc<Slab<Subscription>>,
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
    /// No subscriptions; guards of `domain` protect those that come.
    pub fn new(domain: &Domain) -> Self {
        Self {
            subscriptions: Slab::<()>::builder().build_shared(domain),
            channels: Default::default(),
            patterns: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// Subscribes a client to a channel or a pattern. Returns the subscription's key, or `None` if the
    /// client has one to that already.
    ///
    /// # Errors
    /// There is no memory for it. The client has no new subscription.
    pub fn try_subscribe(
        &self,
        kind: Kind,
        name: &[u8],
        client: Key,
        guard: &Guard<'_>,
    ) -> Result<Option<Key>, NoMemory> {
        let subscription = Subscription { client, kind, name: try_boxed(name)? };
        let mut topics = self.lock(kind, name).lock();
        let is_new = !topics.contains_key(name);
        if is_new {
            topics.try_reserve(1)?;
            topics.insert(try_boxed(name)?, Subscribers::new());
        }
        let subscribers = topics.get_mut(name).expect("it was there, or was put there");
        if subscribers.contains_key(&client) {
            return Ok(None);
        }
        let made = subscribers.try_reserve(1).map_err(NoMemory::from).and_then(|()| {
            self.subscriptions.try_insert(subscription, guard).map_err(|_| NoMemory)
        });
        match made {
            Ok(key) => drop(subscribers.insert(client, key)),
            // A topic is there for as long as somebody listens.
            Err(NoMemory) if is_new => drop(topics.remove(name)),
            Err(NoMemory) => {}
        }
        made.map(Some)
    }

    /// Ends a subscription. False if it has ended before.
    pub fn unsubscribe(&self, key: Key, guard: &Guard<'_>) -> bool {
        let Some(Subscription { client, kind, name }) = self.subscriptions.get(key, guard) else {
            return false;
        };
        let mut topics = self.lock(*kind, name).lock();
        // Whoever takes it out under the lock ends it; another may have been faster.
        if !self.subscriptions.remove(key, guard) {
            return false;
        }
        if let Some(subscribers) = topics.get_mut(name) {
            subscribers.swap_remove(client);
            if subscribers.is_empty() {
                topics.remove(name);
                shrink(&mut topics);
            }
        }
        true
    }

    /// Posts a message to everybody who subscribed to its channel or to a pattern that matches. Where memory
    /// ends after the first has it, the others are evicted: nobody who stays has missed one.
    ///
    /// # Errors
    /// There is no memory for the message. Nobody has it.
    pub fn try_publish(
        &self,
        channel: &[u8],
        payload: &[u8],
        limit: OutputLimit,
        clients: &Clients,
        guard: &Guard<'_>,
    ) -> Result<Published, NoMemory> {
        let mut published = Published::default();
        let post = |parts: &[&[u8]], subscribers: &Subscribers, published: &mut Published| {
            let message = Message::new(parts);
            let keys = subscribers.values();
            let mut subscriptions = keys.filter_map(|key| self.subscriptions.get(*key, guard));
            subscriptions.try_for_each(|subscription| {
                message.post(subscription.client, limit, clients, guard, published)
            })
        };
        let channels = self.lock(Kind::Channel, channel).lock();
        if let Some(subscribers) = channels.get(channel) {
            post(&[b"message", channel, payload], subscribers, &mut published)?;
        }
        let patterns = self.patterns.lock();
        for (pattern, subscribers) in patterns.iter() {
            if glob::matches(pattern, channel) {
                post(&[b"pmessage", pattern, channel, payload], subscribers, &mut published)?;
            }
        }
        Ok(published)
    }

    /// Channels that somebody listens to and that match `pattern`, if there is one.
    ///
    /// # Errors
    /// There is no memory for the list.
    pub fn try_channels(&self, pattern: Option<&[u8]>) -> Result<Vec<Box<[u8]>>, NoMemory> {
        let wanted = |name: &[u8]| pattern.is_none_or(|pattern| glob::matches(pattern, name));
        let mut names = Vec::new();
        for channels in &self.channels {
            let channels = channels.lock();
            for name in channels.keys().filter(|name| wanted(name)) {
                names.try_reserve(1)?;
                names.push(try_boxed(name)?);
            }
        }
        Ok(names)
    }

    /// How many listen to a channel by its name.
    pub fn subscribers(&self, channel: &[u8]) -> usize {
        self.lock(Kind::Channel, channel).lock().get(channel).map_or(0, Subscribers::len)
    }

    /// How many channels somebody listens to.
    pub fn channel_count(&self) -> usize {
        self.channels.iter().map(|channels| channels.lock().len()).sum()
    }

    /// How many patterns somebody listens to.
    pub fn pattern_count(&self) -> usize {
        self.patterns.lock().len()
    }

    /// How many subscriptions there are, of both kinds.
    pub fn len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Whether nobody listens to anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Figures of the slab of subscriptions.
    pub fn stats(&self) -> Stats {
        self.subscriptions.stats()
    }

    fn lock(&self, kind: Kind, name: &[u8]) -> &Mutex<Topics> {
        match kind {
            Kind::Channel => &self.channels[self.hasher.hash_one(name) as usize % LOCKS],
            Kind::Pattern => &self.patterns,
        }
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

    fn post(
        &self,
        client: Key,
        limit: OutputLimit,
        clients: &Clients,
        guard: &Guard<'_>,
        published: &mut Published,
    ) -> Result<(), NoMemory> {
        let Some(client) = clients.get(client, guard) else { return Ok(()) };
        let encoded = if client.speaks_resp3.is_raised() {
            self.encoded(&self.resp3, Protocol::Resp3)
        } else {
            self.encoded(&self.resp2, Protocol::Resp2)
        };
        let post = match encoded {
            Ok(encoded) => client.mailbox.post(encoded, limit),
            Err(NoMemory) if *published == Published::default() => return Err(NoMemory),
            Err(NoMemory) => client.mailbox.evict(),
        };
        match post {
            Post::Taken => published.receivers += 1,
            Post::Evicted => published.evicted += 1,
            Post::Closed => {}
        }
        Ok(())
    }

    fn encoded(&self, cell: &OnceCell<Bytes>, protocol: Protocol) -> Result<Bytes, NoMemory> {
        if let Some(encoded) = cell.get() {
            return Ok(encoded.clone());
        }
        let encoded = try_encode(protocol, self.parts)?;
        Ok(cell.get_or_init(|| encoded).clone())
    }
}

/// Bytes of a string's head and end, at most.
const BULK_HEAD: usize = 32;

fn try_encode(protocol: Protocol, parts: &[&[u8]]) -> Result<Bytes, NoMemory> {
    let mut output = Output::new(usize::MAX);
    let room = parts.iter().map(|part| part.len() + BULK_HEAD).sum::<usize>();
    output.reserve(room + BULK_HEAD)?;
    let mut reply = Reply::new(&mut output, protocol);
    reply.push(parts.len());
    for part in parts {
        reply.bulk(part);
    }
    let mut slices = [IoSlice::new(&[])];
    let filled = output.slices(&mut slices);
    debug_assert_eq!(filled, 1, "copies go into one tail");
    Ok(try_boxed(&slices[0])?.into())
}

/// Gives back room for topics that are gone, once there is eight times as much as needed. Where there is no
/// memory for a smaller table, later.
fn shrink(topics: &mut Topics) {
    const KEPT: usize = 64;
    if topics.capacity() <= KEPT.max(8 * topics.len()) {
        return;
    }
    let mut fewer = Topics::new();
    if fewer.try_reserve(2 * topics.len()).is_ok() {
        fewer.extend(topics.drain());
        *topics = fewer;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::Client;
    use flagstone::epoch::Participant;
    use std::net::SocketAddr;

    const LIMIT: OutputLimit = OutputLimit { hard: 1000, soft: 0, soft_seconds: 0 };

    /// A server's clients and subscriptions, and a thread in its domain.
    struct Hall {
        clients: Clients,
        pubsub: PubSub,
        participant: Participant,
    }

    impl Hall {
        fn new() -> Self {
            let domain = Domain::new();
            Self {
                clients: Clients::new(&domain),
                pubsub: PubSub::new(&domain),
                participant: domain.register(),
            }
        }

        fn client(&self) -> Arc<Client> {
            let addr = SocketAddr::from(([127, 0, 0, 1], 1));
            self.clients.admit(addr, addr, u64::MAX, &self.participant.pin()).unwrap()
        }

        fn subscribe(&self, name: &[u8], client: &Client) -> Option<Key> {
            self.pubsub
                .try_subscribe(Kind::Channel, name, client.key, &self.participant.pin())
                .unwrap()
        }

        fn subscribe_pattern(&self, name: &[u8], client: &Client) -> Option<Key> {
            self.pubsub
                .try_subscribe(Kind::Pattern, name, client.key, &self.participant.pin())
                .unwrap()
        }

        fn unsubscribe(&self, key: Key) -> bool {
            self.pubsub.unsubscribe(key, &self.participant.pin())
        }

        fn publish(&self, channel: &[u8], payload: &[u8]) -> Published {
            self.pubsub
                .try_publish(channel, payload, LIMIT, &self.clients, &self.participant.pin())
                .unwrap()
        }
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
        let hall = Hall::new();
        let (a, b) = (hall.client(), hall.client());
        assert!(hall.subscribe(b"news", &a).is_some());
        assert!(hall.subscribe(b"news", &a).is_none());
        assert!(hall.subscribe_pattern(b"n*", &a).is_some());
        assert!(hall.subscribe_pattern(b"*s", &b).is_some());
        assert_eq!(hall.pubsub.len(), 3);
        b.speaks_resp3.raise();
        let published = hall.publish(b"news", b"hi");
        assert_eq!(published, Published { receivers: 3, evicted: 0 });
        assert_eq!(
            messages(&a),
            ["*3 $7 message $4 news $2 hi ", "*4 $8 pmessage $2 n* $4 news $2 hi ",]
        );
        assert_eq!(messages(&b), [">4 $8 pmessage $2 *s $4 news $2 hi "]);
        assert_eq!(hall.publish(b"other", b"hi").receivers, 0);
    }

    #[test]
    fn what_nobody_listens_to_is_forgotten() {
        let hall = Hall::new();
        let a = hall.client();
        let channel = hall.subscribe(b"x", &a).unwrap();
        let pattern = hall.subscribe_pattern(b"x*", &a).unwrap();
        let pubsub = &hall.pubsub;
        assert_eq!((pubsub.channel_count(), pubsub.pattern_count()), (1, 1));
        assert_eq!(pubsub.try_channels(Some(b"?")).unwrap(), [Box::from(b"x".as_slice())]);
        assert!(pubsub.try_channels(Some(b"y")).unwrap().is_empty());
        assert_eq!(pubsub.subscribers(b"x"), 1);
        assert!(hall.unsubscribe(channel));
        assert!(!hall.unsubscribe(channel), "a stale key is a miss");
        assert!(hall.unsubscribe(pattern));
        assert!(pubsub.is_empty());
        assert_eq!((pubsub.channel_count(), pubsub.pattern_count()), (0, 0));
    }

    #[test]
    fn a_slow_client_is_evicted_and_the_others_get_theirs() {
        let hall = Hall::new();
        let (slow, quick) = (hall.client(), hall.client());
        hall.subscribe(b"x", &slow);
        hall.subscribe(b"x", &quick);
        let payload = [b'x'; 600];
        assert_eq!(hall.publish(b"x", &payload).receivers, 2);
        quick.mailbox.take_messages(|_| true);
        let (_, bytes) = slow.mailbox.waiting();
        quick.mailbox.written(bytes);
        let published = hall.publish(b"x", &payload);
        assert_eq!(published, Published { receivers: 1, evicted: 1 });
        assert_eq!(hall.publish(b"x", b""), Published { receivers: 1, evicted: 0 });
    }

    /// A publisher may meet the subscription of a client that has gone and not been taken out yet.
    #[test]
    fn a_client_that_has_gone_is_a_miss() {
        let hall = Hall::new();
        let (gone, there) = (hall.client(), hall.client());
        let stale = hall.subscribe(b"x", &gone).unwrap();
        hall.subscribe(b"x", &there);
        assert!(hall.clients.remove(gone.key, &hall.participant.pin()));
        assert_eq!(hall.publish(b"x", b"hi"), Published { receivers: 1, evicted: 0 });
        // Whoever comes next is not taken for it, though the slots are used again.
        hall.participant.collect();
        let next: Vec<_> = (0..200).map(|_| hall.client()).collect();
        assert_eq!(hall.publish(b"x", b"hi").receivers, 1);
        assert!(next.iter().all(|client| client.mailbox.waiting().0 == 0));
        assert!(hall.unsubscribe(stale));
        assert_eq!(hall.pubsub.subscribers(b"x"), 1);
    }
}
