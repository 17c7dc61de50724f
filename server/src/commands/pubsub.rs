//! The message family: SUBSCRIBE UNSUBSCRIBE PSUBSCRIBE PUNSUBSCRIBE PUBLISH PUBSUB.
//!
//! Messages that were posted before a change of subscriptions are sent before its confirmation, so a
//! client that reads "unsubscribed" gets nothing from that channel any more.

use flagstone::typed::Key;
use indexmap::IndexMap;

use super::spec::{Flags, Spec};
use super::{Context, REPLY_ROOM};
use crate::failure::Failure;
use crate::fallible::{NoMemory, try_boxed};
use crate::pubsub::Kind;
use crate::resp::input::Args;
use crate::session::Session;

const SUBSCRIBE: Flags = Flags::PUBSUB.and(Flags::WHILE_SUBSCRIBED);

/// The family's rows.
pub const COMMANDS: &[Spec] = &[
    Spec::new("psubscribe", -2, "pattern [pattern ...]", "Subscribes to patterns", psubscribe)
        .flags(SUBSCRIBE.and(Flags::KEEPS)),
    Spec::new("publish", 3, "channel message", "Sends a message to subscribers", publish)
        .flags(Flags::PUBSUB.and(Flags::FAST).and(Flags::KEEPS)),
    Spec::container(
        "pubsub",
        "Tells about subscriptions",
        &[
            Spec::new("channels", -2, "[pattern]", "Channels with subscribers", channels)
                .flags(Flags::PUBSUB),
            Spec::new("help", 2, "", "This text", |cx, _| super::help(cx, "pubsub")),
            Spec::new("numpat", 2, "", "Number of patterns", num_pat).flags(Flags::PUBSUB),
            Spec::new("numsub", -2, "[channel ...]", "Subscribers of channels", num_sub)
                .flags(Flags::PUBSUB),
        ],
    ),
    Spec::new(
        "punsubscribe",
        -1,
        "[pattern ...]",
        "Ends subscriptions to patterns, or all of them",
        punsubscribe,
    )
    .flags(SUBSCRIBE),
    Spec::new("subscribe", -2, "channel [channel ...]", "Subscribes to channels", subscribe)
        .flags(SUBSCRIBE.and(Flags::KEEPS)),
    Spec::new(
        "unsubscribe",
        -1,
        "[channel ...]",
        "Ends subscriptions to channels, or all of them",
        unsubscribe,
    )
    .flags(SUBSCRIBE),
];

fn subscribe(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    args.from(1).try_for_each(|name| add(cx, Kind::Channel, name))
}

fn psubscribe(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    args.from(1).try_for_each(|name| add(cx, Kind::Pattern, name))
}

fn unsubscribe(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    remove_all(cx, Kind::Channel, args)
}

fn punsubscribe(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    remove_all(cx, Kind::Pattern, args)
}

/// Subscribes and confirms. Without memory for both it does neither; what was confirmed before stands.
fn add(cx: &mut Context<'_>, kind: Kind, name: &[u8]) -> Result<(), Failure> {
    let session = &mut *cx.session;
    session.out.reserve(confirmation(name)).map_err(Failure::no_memory)?;
    let is_first = session.subscriptions() == 0;
    let topics = topics(session, kind);
    if !topics.contains_key(name) {
        topics.try_reserve(1).map_err(NoMemory::from)?;
        let own = try_boxed(name)?;
        // Messages may be posted from here on; they are sent behind the confirmation.
        let client = cx.session.client.key;
        if let Some(key) = cx.shared.pubsub.try_subscribe(kind, name, client, cx.guard)? {
            self::topics(cx.session, kind).insert(own, key);
            cx.shared.stats.subscribers.add(i64::from(is_first));
        }
    }
    let word: &[u8] = match kind {
        Kind::Channel => b"subscribe",
        Kind::Pattern => b"psubscribe",
    };
    confirm(cx, word, Some(name));
    Ok(())
}

fn remove_all(cx: &mut Context<'_>, kind: Kind, args: Args<'_>) -> Result<(), Failure> {
    if args.len() > 1 {
        return args.from(1).try_for_each(|name| {
            cx.session.out.reserve(confirmation(name)).map_err(Failure::no_memory)?;
            let key = topics(cx.session, kind).swap_remove(name);
            remove(cx, kind, Some(name), key)
        });
    }
    if topics(cx.session, kind).is_empty() {
        return remove(cx, kind, None, None);
    }
    // The oldest is confirmed first, and the last is the one that is taken out without moving others.
    topics(cx.session, kind).reverse();
    let removed = remove_from_the_last(cx, kind);
    topics(cx.session, kind).reverse();
    removed
}

fn remove_from_the_last(cx: &mut Context<'_>, kind: Kind) -> Result<(), Failure> {
    while let Some((name, _)) = topics(cx.session, kind).last() {
        let room = confirmation(name);
        cx.session.out.reserve(room).map_err(Failure::no_memory)?;
        let last = topics(cx.session, kind).pop();
        let (name, key) = last.expect("there was one just now");
        remove(cx, kind, Some(&name), Some(key))?;
    }
    Ok(())
}

/// Ends a subscription that is out of the session already, if there was one, and confirms.
fn remove(
    cx: &mut Context<'_>,
    kind: Kind,
    name: Option<&[u8]>,
    key: Option<Key>,
) -> Result<(), Failure> {
    if let Some(key) = key {
        cx.shared.pubsub.unsubscribe(key, cx.guard);
        if cx.session.subscriptions() == 0 {
            cx.shared.stats.subscribers.add(-1);
        }
    }
    cx.session.take_all_messages();
    if let Err(refused) = cx.session.out.reserve(confirmation(name.unwrap_or_default())) {
        // The messages have taken the room, and there is no more: a client that was not told would wait.
        let _ = cx.session.client.mailbox.evict();
        return Err(Failure::no_memory(refused));
    }
    let word: &[u8] = match kind {
        Kind::Channel => b"unsubscribe",
        Kind::Pattern => b"punsubscribe",
    };
    confirm(cx, word, name);
    Ok(())
}

/// What the session is subscribed to.
fn topics(session: &mut Session, kind: Kind) -> &mut IndexMap<Box<[u8]>, Key> {
    match kind {
        Kind::Channel => &mut session.channels,
        Kind::Pattern => &mut session.patterns,
    }
}

/// Bytes of a confirmation, and of an error behind it, at most.
fn confirmation(name: &[u8]) -> usize {
    name.len() + 2 * REPLY_ROOM
}

fn confirm(cx: &mut Context<'_>, word: &[u8], name: Option<&[u8]>) {
    let subscriptions = cx.session.subscriptions();
    let mut reply = cx.reply();
    reply.push(3);
    reply.bulk(word);
    match name {
        Some(name) => reply.bulk(name),
        None => reply.null(),
    }
    reply.count(subscriptions);
}

fn publish(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let shared = cx.shared;
    let limit = shared.tunables.output_pubsub.get();
    let clients = &shared.clients;
    let published = shared.pubsub.try_publish(args.at(1), args.at(2), limit, clients, cx.guard)?;
    shared.stats.published.add(1);
    shared.stats.delivered.add(published.receivers as u64);
    cx.reply().count(published.receivers);
    Ok(())
}

fn channels(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    if args.len() > 3 {
        return Err(Failure::arity("pubsub|channels"));
    }
    let names = cx.shared.pubsub.try_channels(args.get(2))?;
    cx.reply().bulks(&names);
    Ok(())
}

fn num_sub(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let shared = cx.shared;
    let names = args.from(2);
    let mut reply = cx.reply();
    reply.array(2 * names.len());
    for name in names {
        reply.bulk(name);
        reply.count(shared.pubsub.subscribers(name));
    }
    Ok(())
}

fn num_pat(cx: &mut Context<'_>, _: Args<'_>) -> Result<(), Failure> {
    let patterns = cx.shared.pubsub.pattern_count();
    cx.reply().count(patterns);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::tests::Bench;

    #[test]
    fn messages_reach_subscribers() {
        let mut listener = Bench::new();
        let mut speaker = listener.another();
        assert_eq!(listener.run("SUBSCRIBE a b"), "[subscribe, a, :1] [subscribe, b, :2]");
        assert_eq!(listener.run("PSUBSCRIBE a*"), "[psubscribe, a*, :3]");
        assert_eq!(speaker.run("PUBLISH a hi"), ":2");
        assert_eq!(speaker.run("PUBLISH b ho"), ":1");
        assert_eq!(speaker.run("PUBLISH c hu"), ":0");
        assert_eq!(listener.messages(), "[message, a, hi] [pmessage, a*, a, hi] [message, b, ho]");
    }

    #[test]
    fn a_confirmed_end_is_the_end() {
        let mut listener = Bench::new();
        let mut speaker = listener.another();
        listener.run("SUBSCRIBE a b");
        speaker.run("PUBLISH a 1");
        assert_eq!(listener.run("UNSUBSCRIBE a"), "[message, a, 1] [unsubscribe, a, :1]");
        assert_eq!(speaker.run("PUBLISH a 2"), ":0");
        assert_eq!(listener.run("UNSUBSCRIBE"), "[unsubscribe, b, :0]");
        assert_eq!(listener.run("UNSUBSCRIBE"), "[unsubscribe, nil, :0]");
        assert_eq!(listener.run("PUNSUBSCRIBE x"), "[punsubscribe, x, :0]");
        assert_eq!(listener.messages(), "");
        assert_eq!(listener.shared.stats.subscribers.get(), 0);
    }

    #[test]
    fn resp2_subscribers_run_nothing_else() {
        let mut bench = Bench::new();
        bench.run("SUBSCRIBE a");
        assert_eq!(
            bench.run("GET k"),
            "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
             RESET are allowed in this context"
        );
        assert_eq!(bench.run("PING"), "[pong, ]");
        assert_eq!(bench.run("PING x"), "[pong, x]");
        bench.run("UNSUBSCRIBE a");
        assert_eq!(bench.run("PING"), "+PONG");
    }

    #[test]
    fn resp3_subscribers_run_everything_and_get_pushes() {
        let mut bench = Bench::new();
        bench.run("HELLO 3");
        assert_eq!(bench.run("SUBSCRIBE a"), ">[subscribe, a, :1]");
        assert_eq!(bench.run("SET k v"), "+OK");
        assert_eq!(bench.run("PUBLISH a hi"), ":1");
        assert_eq!(bench.messages(), ">[message, a, hi]");
    }

    #[test]
    fn who_listens() {
        let mut bench = Bench::new();
        let mut listener = bench.another();
        listener.run("SUBSCRIBE news");
        listener.run("PSUBSCRIBE n* n*");
        assert_eq!(bench.run("PUBSUB CHANNELS"), "[news]");
        assert_eq!(bench.run("PUBSUB CHANNELS x*"), "[]");
        assert_eq!(bench.run("PUBSUB NUMSUB news x"), "[news, :1, x, :0]");
        assert_eq!(bench.run("PUBSUB NUMSUB"), "[]");
        assert_eq!(bench.run("PUBSUB NUMPAT"), ":1");
    }
}
