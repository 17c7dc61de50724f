//! Publishers and subscribers, and elements handed to clients that wait.
//!
//! One publisher numbers its messages by channel; subscribers that read must see the numbers without a
//! gap from the first on. One producer numbers the elements of a list; consumers wait in BLPOP, and
//! every element must reach exactly one of them, in order.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use super::checks::Check;
use super::keys::content;
use super::pulse::Pace;
use super::scene::Scene;
use super::wire::{Frame, PATIENCE, Received, Wire, describe, is_oom};
use crate::rng::Rng;

const CHANNELS: u64 = 4;
/// Subscribers that read.
pub const SUBSCRIBERS: u64 = 3;
/// Clients that wait for elements.
pub const CONSUMERS: u64 = 2;
const QUEUE: &[u8] = b"soak:queue";
/// How often a client that only listens looks whether it is time to finish.
const LOOK: Duration = Duration::from_millis(100);

/// Publishes until the end.
pub fn publish(scene: &Scene<'_>) {
    let mut rng = Rng::new(0x9b);
    // Across connections: subscribers do not see where one ends.
    let mut next = [0u64; CHANNELS as usize];
    scene.keep(Check::Messages, || {
        let mut wire = Wire::connect(scene.target.resp)?;
        let mut pace = Pace::new(f64::from(scene.plan.load(300)));
        while !pace.rest(&scene.pulse) {
            let channel = rng.below(CHANNELS as usize);
            let number = next[channel];
            let mut message = format!("{number}:").into_bytes();
            message.extend(content(&[(number, rng.skewed(16, 2048))]));
            let reply =
                wire.ask(&[b"PUBLISH", format!("soak:channel:{channel}").as_bytes(), &message])?;
            next[channel] += 1;
            match reply {
                Frame::Integer(_) => scene.count("messages published", 1),
                reply => {
                    scene.ledger.broke(Check::Messages, format!("PUBLISH got {}", describe(&reply)))
                }
            }
        }
        Ok(())
    });
}

/// Subscribes, reads, unsubscribes, comes again, until the end.
pub fn subscribe(scene: &Scene<'_>, id: u64) {
    let mut rng = Rng::part(0x5b, id);
    scene.keep(Check::Messages, || {
        let mut wire = Wire::connect(scene.target.resp)?;
        let mut seen: HashMap<Vec<u8>, u64> = HashMap::new();
        let by_pattern = rng.below(2) == 0;
        if by_pattern {
            wire.queue(&[b"PSUBSCRIBE", b"soak:channel:*"]);
        } else {
            for channel in 0..CHANNELS {
                wire.queue(&[b"SUBSCRIBE", format!("soak:channel:{channel}").as_bytes()]);
            }
        }
        wire.flush()?;
        let messages = rng.range(50, 2000);
        let mut taken = 0;
        while taken < messages && !scene.pulse.is_stopped() {
            match wire.receive_within(LOOK)? {
                Received::Frame(frame) => taken += take(scene, &mut seen, &frame),
                Received::Silence => {}
                Received::End => {
                    return Err(io::Error::other("a subscriber that reads was closed"));
                }
            }
        }
        scene.count("messages received", taken as u64);
        if !scene.pulse.is_stopped() && rng.below(2) == 0 {
            unsubscribe(&mut wire, by_pattern)?;
        }
        Ok(())
    });
}

/// Checks one push. The number of messages in it: one or none.
fn take(scene: &Scene<'_>, seen: &mut HashMap<Vec<u8>, u64>, frame: &Frame) -> usize {
    let Some((channel, message)) = message(frame) else { return 0 };
    let outcome = check(seen, channel, message);
    scene.ledger.judge(Check::Messages, outcome);
    1
}

fn check(seen: &mut HashMap<Vec<u8>, u64>, channel: &[u8], message: &[u8]) -> Result<(), String> {
    let name = String::from_utf8_lossy(channel);
    let colon = message.iter().position(|byte| *byte == b':');
    let number = colon.and_then(|at| std::str::from_utf8(&message[..at]).ok()?.parse::<u64>().ok());
    let (Some(colon), Some(number)) = (colon, number) else {
        return Err(format!("{name}: a message of {} bytes without a number", message.len()));
    };
    let body = &message[colon + 1..];
    if body != content(&[(number, body.len())]) {
        return Err(format!("{name}: message {number} has another content"));
    }
    let expected = seen.get(channel).map(|last| last + 1);
    seen.insert(channel.to_vec(), number);
    match expected {
        Some(expected) if expected != number => {
            Err(format!("{name}: message {number} came where {expected} was due"))
        }
        _ => Ok(()),
    }
}

/// Channel and payload of a message's push.
fn message(frame: &Frame) -> Option<(&[u8], &[u8])> {
    let Frame::Array(parts) = frame else { return None };
    match parts.as_slice() {
        [Frame::BulkString(kind), Frame::BulkString(channel), Frame::BulkString(payload)]
            if kind == b"message" =>
        {
            Some((channel, payload))
        }
        [Frame::BulkString(kind), _, Frame::BulkString(channel), Frame::BulkString(payload)]
            if kind == b"pmessage" =>
        {
            Some((channel, payload))
        }
        _ => None,
    }
}

/// Ends every subscription in good order; messages may come until the server says so.
fn unsubscribe(wire: &mut Wire, by_pattern: bool) -> io::Result<()> {
    let (command, last): (&[u8], &[u8]) = if by_pattern {
        (b"PUNSUBSCRIBE", b"punsubscribe")
    } else {
        (b"UNSUBSCRIBE", b"unsubscribe")
    };
    wire.queue(&[command]);
    wire.flush()?;
    loop {
        let frame = wire.receive()?;
        if let Frame::Array(parts) = &frame
            && parts.first() == Some(&Frame::BulkString(last.to_vec()))
            && parts.last() == Some(&Frame::Integer(0))
        {
            return Ok(());
        }
    }
}

/// Pushes numbered elements until the end, then a last one for each consumer; tells how many numbers
/// were taken.
pub fn produce(scene: &Scene<'_>, produced: &Sender<u64>) {
    let mut next = 0u64;
    scene.keep(Check::Handover, || {
        let mut wire = Wire::connect(scene.target.resp)?;
        let mut pace = Pace::new(f64::from(scene.plan.load(100)));
        while !pace.rest(&scene.pulse) {
            match wire.ask(&[b"RPUSH", QUEUE, next.to_string().as_bytes()])? {
                Frame::Integer(_) => next += 1,
                // The memory cap: nothing was pushed.
                reply if is_oom(&reply) => {}
                reply => {
                    let got = describe(&reply);
                    scene.ledger.broke(Check::Handover, format!("RPUSH got {got}"));
                }
            }
        }
        for _ in 0..CONSUMERS {
            wire.ask(&[b"RPUSH", QUEUE, b"end"])?;
        }
        Ok(())
    });
    // Nobody listens only if the soak has failed altogether.
    let _ = produced.send(next);
}

/// What one consumer got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consumed {
    /// Elements.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
}

/// Waits for elements until the last one.
pub fn consume(scene: &Scene<'_>) -> Consumed {
    let mut consumed = Consumed::default();
    let mut last = None;
    loop {
        match consume_on_one_connection(scene, &mut consumed, &mut last) {
            Ok(true) => return consumed,
            Ok(false) => {}
            Err(error) => {
                scene.ledger.broke(Check::Handover, format!("a consumer's connection: {error}"));
                if scene.pulse.rest(LOOK) {
                    return consumed;
                }
            }
        }
    }
}

/// True after the last element; false when it is time for another connection.
fn consume_on_one_connection(
    scene: &Scene<'_>,
    consumed: &mut Consumed,
    last: &mut Option<u64>,
) -> io::Result<bool> {
    let mut wire = Wire::connect(scene.target.resp)?;
    for _ in 0..500 {
        // Without end: a wait that is over as an element comes is the server's to settle.
        let reply = wire.ask(&[b"BLPOP", QUEUE, b"0"])?;
        let element = match &reply {
            Frame::Array(parts) => match parts.as_slice() {
                [_, Frame::BulkString(element)] => String::from_utf8_lossy(element).into_owned(),
                _ => return Err(io::Error::other(describe(&reply))),
            },
            _ => return Err(io::Error::other(describe(&reply))),
        };
        if element == "end" {
            return Ok(true);
        }
        let number: u64 = element.parse().map_err(io::Error::other)?;
        consumed.count += 1;
        consumed.sum += number;
        let in_order = last.is_none_or(|last| last < number);
        scene.ledger.judge(
            Check::Handover,
            if in_order { Ok(()) } else { Err(format!("element {number} after {last:?}")) },
        );
        *last = Some(number);
    }
    Ok(false)
}

/// Compares what was pushed with what arrived.
pub fn settle(scene: &Scene<'_>, produced: &Receiver<u64>, consumed: &[Consumed]) {
    let Ok(produced) = produced.recv_timeout(PATIENCE) else {
        scene.ledger.broke(Check::Handover, "the producer did not end");
        return;
    };
    let count: u64 = consumed.iter().map(|part| part.count).sum();
    let sum: u64 = consumed.iter().map(|part| part.sum).sum();
    let expected = (produced, produced * produced.saturating_sub(1) / 2);
    scene.count("elements handed over", count);
    scene.ledger.judge(
        Check::Handover,
        if (count, sum) == expected {
            Ok(())
        } else {
            Err(format!("{produced} elements pushed, {count} arrived, or not each once"))
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_checked_for_number_and_content() {
        let make = |number: u64| {
            let mut message = format!("{number}:").into_bytes();
            message.extend(content(&[(number, 20)]));
            message
        };
        let mut seen = HashMap::new();
        assert_eq!(check(&mut seen, b"a", &make(7)), Ok(()));
        assert_eq!(check(&mut seen, b"a", &make(8)), Ok(()));
        assert_eq!(check(&mut seen, b"b", &make(3)), Ok(()));
        assert!(check(&mut seen, b"a", &make(10)).unwrap_err().contains("where 9 was due"));
        assert!(check(&mut seen, b"a", &make(10)).unwrap_err().contains("where 11 was due"));
        let mut other = make(11);
        other[5] ^= 1;
        assert!(check(&mut seen, b"a", &other).unwrap_err().contains("another content"));
        assert!(check(&mut seen, b"a", b"nothing").is_err());
    }

    #[test]
    fn pushes_are_told_from_confirmations() {
        let bulk = |text: &str| Frame::BulkString(text.as_bytes().to_vec());
        let push = Frame::Array(vec![bulk("message"), bulk("c"), bulk("m")]);
        assert_eq!(message(&push), Some((&b"c"[..], &b"m"[..])));
        let push = Frame::Array(vec![bulk("pmessage"), bulk("*"), bulk("c"), bulk("m")]);
        assert_eq!(message(&push), Some((&b"c"[..], &b"m"[..])));
        let confirmation = Frame::Array(vec![bulk("subscribe"), bulk("c"), Frame::Integer(1)]);
        assert_eq!(message(&confirmation), None);
    }
}
