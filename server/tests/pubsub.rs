//! Publish and subscribe between real connections: order, both protocols, slow subscribers.

mod client_support;
mod wire;

use client_support::{PATIENCE, Server, poll};
use std::io::Read;
use std::time::Instant;
use wire::Wire;

#[test]
fn messages_of_a_channel_arrive_in_one_order_everywhere() {
    const PUBLISHERS: usize = 4;
    const EACH: usize = 300;
    let server = Server::start(&["--workers", "4"]);
    let addr = server.resp;
    let mut subscribers: Vec<Wire> = (0..3)
        .map(|_| {
            let mut wire = Wire::connect(addr);
            assert_eq!(wire.run("SUBSCRIBE news"), "[subscribe, news, :1]");
            wire
        })
        .collect();
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|id| {
            std::thread::spawn(move || {
                let mut wire = Wire::connect(addr);
                for n in 0..EACH {
                    assert_eq!(wire.run(&format!("PUBLISH news {id}:{n}")), ":3");
                }
            })
        })
        .collect();
    let received: Vec<Vec<String>> = subscribers
        .iter_mut()
        .map(|wire| (0..PUBLISHERS * EACH).map(|_| wire.reply()).collect())
        .collect();
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    assert!(received.iter().all(|messages| *messages == received[0]), "different orders");
    for id in 0..PUBLISHERS {
        let own: Vec<&String> =
            received[0].iter().filter(|m| m.contains(&format!(" {id}:"))).collect();
        for (n, message) in own.iter().enumerate() {
            assert_eq!(**message, format!("[message, news, {id}:{n}]"));
        }
    }
}

#[test]
fn resp2_is_restricted_and_resp3_is_not() {
    let server = Server::start(&[]);
    let mut old = Wire::connect(server.resp);
    assert_eq!(old.run("SUBSCRIBE a"), "[subscribe, a, :1]");
    assert!(old.run("SET k v").starts_with("-ERR Can't execute 'set'"));
    assert_eq!(old.run("PING"), "[pong, ]");
    let mut new = Wire::connect(server.resp);
    new.run("HELLO 3");
    assert_eq!(new.run("SUBSCRIBE a"), ">[subscribe, a, :1]");
    assert_eq!(new.run("SET k v"), "+OK");
    let mut other = Wire::connect(server.resp);
    assert_eq!(other.run("PUBLISH a hi"), ":2");
    assert_eq!(old.reply(), "[message, a, hi]");
    assert_eq!(new.reply(), ">[message, a, hi]");
    assert_eq!(old.run("UNSUBSCRIBE"), "[unsubscribe, a, :0]");
    assert_eq!(old.run("GET k"), "v");
    assert_eq!(other.run("PUBSUB NUMSUB a"), "[a, :1]");
    drop(new);
    poll("no subscriber", || (other.run("PUBSUB NUMSUB a") == "[a, :0]").then_some(()));
}

/// The publisher never waits for a subscriber that does not read; the subscriber is closed at its
/// limit, counted, and its memory comes back.
#[test]
fn a_slow_subscriber_is_evicted_and_nobody_waits_for_it() {
    let server = Server::start(&[]);
    let mut publisher = Wire::connect(server.resp);
    publisher.send(&[b"CONFIG", b"SET", b"client-output-buffer-limit", b"pubsub 4mb 2mb 60"]);
    assert_eq!(publisher.reply(), "+OK");
    let mut slow = Wire::connect(server.resp);
    slow.run("SUBSCRIBE firehose");
    let mut quick = Wire::connect(server.resp);
    quick.run("SUBSCRIBE firehose");
    let before = publisher.info_number("used_memory");

    let payload = vec![b'x'; 64 * 1024];
    let mut most = 0;
    let deadline = Instant::now() + PATIENCE;
    let mut published = 0;
    loop {
        publisher.send(&[b"PUBLISH", b"firehose", &payload]);
        let receivers = publisher.reply();
        published += 1;
        assert_eq!(quick.reply().len(), "[message, firehose, ]".len() + payload.len());
        most = most.max(publisher.info_number("used_memory"));
        if receivers == ":1" {
            break;
        }
        assert!(Instant::now() < deadline, "never evicted after {published} messages");
    }
    assert!(published > 4 * 16, "evicted after only {published} messages of 64 KiB at 4 MiB");
    // Its queue, one copy of the message at hand, and change.
    assert!(most < before + (8 << 20), "{before} -> {most}");
    poll("the slow client's end", || {
        (publisher.info_number("connected_clients") == 2).then_some(())
    });
    assert_eq!(publisher.info_number("evicted_subscribers"), 1);
    assert_eq!(publisher.info_number("client_output_buffer_limit_disconnections"), 1);
    poll("the memory of the queue", || {
        (publisher.info_number("used_memory") < before + (1 << 20)).then_some(())
    });
    // What the sockets held arrives, perhaps cut off; then the line is dead.
    let mut rest = Vec::new();
    let _ = slow.stream.read_to_end(&mut rest);
    assert!(rest.len() < published * payload.len());
}

#[test]
fn a_subscriber_over_its_soft_limit_is_closed_though_nothing_more_is_published() {
    let server = Server::start(&[]);
    let mut publisher = Wire::connect(server.resp);
    publisher.send(&[b"CONFIG", b"SET", b"client-output-buffer-limit", b"pubsub 64mb 256kb 1"]);
    publisher.reply();
    let mut slow = Wire::connect(server.resp);
    slow.run("SUBSCRIBE firehose");
    let payload = vec![b'x'; 1 << 20];
    for _ in 0..12 {
        publisher.send(&[b"PUBLISH", b"firehose", &payload]);
        publisher.reply();
    }
    poll("the eviction", || (publisher.info_number("evicted_subscribers") == 1).then_some(()));
}

#[test]
fn subscribers_that_vanish_leave_nothing_behind() {
    let server = Server::start(&[]);
    let mut observer = Wire::connect(server.resp);
    for round in 0..20 {
        let mut wire = Wire::connect(server.resp);
        wire.raw(format!("SUBSCRIBE a{round} b c\r\nPSUBSCRIBE p{round}*\r\n").as_bytes());
        for _ in 0..4 {
            wire.reply();
        }
    }
    poll("no channels", || (observer.run("PUBSUB CHANNELS") == "[]").then_some(()));
    assert_eq!(observer.run("PUBSUB NUMPAT"), ":0");
    assert_eq!(observer.info_number("pubsub_clients"), 0);
}
