//! How a soak ends: every client leaves and takes its data along, the server must give back what they
//! held; connections that idle are closed; and a signal under load must lose no reply.
//!
//! What the server promises at a signal, and what is checked from outside: it answers everything that
//! it had received, sends every reply whole, and closes in good order. Requests whose bytes were handed
//! to the system before the signal was sent have been received, since both ends are on this machine.
//! What is sent later may or may not be answered. There is no persistence: data does not survive.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::checks::{Check, Ledger};
use super::faults::poll;
use super::plan::Plan;
use super::pulse::Pulse;
use super::scene::Scene;
use super::target::Target;
use super::watch::{number, read_json};
use super::wire::{Frame, PATIENCE, Received, Wire, describe, encode, ok};

/// Live bytes that may stay of all the clients: tables keep some room, histograms their buckets.
const MAY_STAY: i64 = 1 << 20;
/// Connections that idle until they are closed.
const IDLE: usize = 20;
/// Clients that write while the signal comes, and how far they run ahead of the replies.
const WRITERS: usize = 4;
const AHEAD: u64 = 256;
/// For how long they go on after the signal.
const PAST_SIGNAL: Duration = Duration::from_millis(300);
/// Clients that connect and ask just before the signal.
const LAST_MOMENT: usize = 8;

/// What a server without clients holds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Baseline {
    /// Live bytes of the heap, where it serves.
    pub live: Option<i64>,
    /// Open descriptors.
    pub descriptors: usize,
}

impl Baseline {
    /// Reads it, when a connection and a scrape have come and gone.
    pub fn read(scene: &Scene<'_>, heap_serves: bool) -> Result<Baseline, String> {
        let mut control = Wire::connect(scene.target.resp).map_err(|error| error.to_string())?;
        control.ask_words("INFO").map_err(|error| error.to_string())?;
        read_json(scene)?;
        let stats = read_json(scene)?;
        let live = number(&stats, "/heap/bytes/live").filter(|_| heap_serves);
        drop(control);
        let descriptors = scene.target.descriptors().map_err(|error| error.to_string())?;
        Ok(Baseline { live, descriptors })
    }
}

/// Everything is deleted and everybody is gone: memory, descriptors and clients are as at the start.
pub fn released(scene: &Scene<'_>, baseline: &Baseline) -> Result<(), String> {
    let connect = || Wire::connect(scene.target.resp).map_err(|error| error.to_string());
    let mut control = connect()?;
    let reply = control.ask_words("FLUSHALL").map_err(|error| error.to_string())?;
    if reply != ok() {
        return Err(format!("FLUSHALL got {}", describe(&reply)));
    }
    poll("clients to be forgotten", || {
        Ok(control.info("connected_clients")? == 1 && control.info("blocked_clients")? == 0)
    })?;
    let subscriptions = ["pubsub_clients", "pubsub_channels", "pubsub_patterns"];
    for field in subscriptions {
        let left = control.info(field).map_err(|error| error.to_string())?;
        if left != 0 {
            return Err(format!("without clients {field} is {left}"));
        }
    }
    drop(control);
    poll("descriptors to be closed", || Ok(scene.target.descriptors()? <= baseline.descriptors))?;
    let Some(before) = baseline.live else { return Ok(()) };
    let mut live = 0;
    let settled = poll("live bytes to fall", || {
        let stats = read_json(scene).map_err(io::Error::other)?;
        live = number(&stats, "/heap/bytes/live").unwrap_or(i64::MAX);
        Ok(live <= before + MAY_STAY)
    });
    settled.map_err(|error| format!("{error}: {before} at the start, {live} now"))
}

/// Connections that idle are closed when the server is told to: half-open ones among them.
pub fn idle(scene: &Scene<'_>) -> Result<(), String> {
    let failed = |error: io::Error| error.to_string();
    let mut idle = Vec::new();
    for n in 0..IDLE {
        let mut wire = Wire::connect(scene.target.resp).map_err(failed)?;
        if n % 2 == 0 {
            wire.send_raw(b"*2\r\n$3\r\nGET\r\n$5\r\nha").map_err(failed)?;
        }
        idle.push(wire);
    }
    let mut control = Wire::connect(scene.target.resp).map_err(failed)?;
    // They wait already when the setting comes.
    poll("idle connections to be taken in", || {
        Ok(control.info("connected_clients")? > IDLE as u64)
    })?;
    let set = control.ask_words("CONFIG SET timeout 1").map_err(failed)?;
    if set != ok() {
        return Err(format!("CONFIG SET got {}", describe(&set)));
    }
    for mut wire in idle {
        match wire.receive_within(PATIENCE) {
            Ok(Received::End) | Err(_) => {}
            Ok(other) => return Err(format!("an idle connection stays open: {other:?}")),
        }
    }
    // The control connection may have idled for as long.
    let mut control = Wire::connect(scene.target.resp).map_err(failed)?;
    let reset = control.ask_words("CONFIG SET timeout 0").map_err(failed)?;
    if reset == ok() { Ok(()) } else { Err(format!("CONFIG SET got {}", describe(&reset))) }
}

/// What one writer did and got.
#[derive(Debug, Default)]
struct Written {
    /// Requests handed to the system.
    sent: u64,
    /// Replies, one after the other.
    replies: u64,
    /// What was wrong.
    wrong: Option<String>,
}

/// Sends the signal under load and checks what comes back.
pub fn terminate(target: &mut Target, plan: &Plan, ledger: &Ledger, kill: bool) -> io::Result<()> {
    let sent: Vec<Mutex<u64>> = (0..WRITERS).map(|_| Mutex::new(0)).collect();
    let pulse = Pulse::default();
    let resp = target.resp;
    let load = Duration::from_millis(500).min(plan.length / 20);
    let lock = |count: &Mutex<u64>| *count.lock().unwrap_or_else(PoisonError::into_inner);
    let mut due = Vec::new();
    let mut last_moment = Vec::new();
    let told = Mutex::new(0);
    let mut published = Ok(0);
    let written: Vec<io::Result<Written>> = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|id| {
                let (sent, pulse) = (&sent[id], &pulse);
                scope.spawn(move || write(Wire::connect(resp)?, id, sent, pulse))
            })
            .collect();
        let (told, pulse) = (&told, &pulse);
        let publisher = scope.spawn(move || publish(resp, told, pulse));
        // Every writer is under way.
        let started = Instant::now();
        while started.elapsed() < PATIENCE && sent.iter().any(|sent| lock(sent) < AHEAD) {
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(load);
        for _ in 0..LAST_MOMENT {
            if let Ok(mut wire) = Wire::connect(resp) {
                wire.queue(&[b"ECHO", b"in time"]);
                let asked = wire.flush();
                last_moment.push((wire, asked));
            }
        }
        due = sent.iter().map(lock).collect();
        let signal = if kill { target.kill() } else { target.terminate() };
        thread::sleep(PAST_SIGNAL);
        pulse.stop();
        let written = writers.into_iter().map(|writer| writer.join().expect("it does not panic"));
        let written = written.collect();
        published = publisher.join().expect("it does not panic");
        signal.map(|()| written)
    })?;
    for (id, (written, due)) in written.into_iter().zip(due).enumerate() {
        ledger.judge(Check::Termination, answered(id, written, due));
    }
    for (mut wire, asked) in last_moment {
        let reply = asked.and_then(|()| wire.receive());
        ledger.judge(
            Check::Termination,
            match reply {
                Ok(Frame::BulkString(text)) if text == b"in time" => Ok(()),
                Ok(reply) => Err(format!("at the last moment ECHO got {}", describe(&reply))),
                Err(error) => Err(format!("at the last moment ECHO got no reply: {error}")),
            },
        );
    }
    let told = lock(&told);
    ledger.judge(
        Check::Termination,
        match published {
            Ok(received) if received >= told => Ok(()),
            Ok(received) => {
                Err(format!("{told} messages were taken for a subscriber that got {received}"))
            }
            Err(error) => Err(format!("a subscriber: {error}")),
        },
    );
    let status = target.wait()?;
    let complaints = target.complaints();
    let orderly = if !status.success() {
        Err(format!("the server ended with {status}"))
    } else if complaints.contains("had not taken their replies") {
        Err(complaints.trim().to_owned())
    } else {
        Ok(())
    };
    ledger.judge(Check::Termination, orderly);
    Ok(())
}

/// Everything that was due has come, whole.
fn answered(id: usize, written: io::Result<Written>, due: u64) -> Result<(), String> {
    let written = written.map_err(|error| format!("writer {id}: {error}"))?;
    let Written { sent, replies, wrong } = written;
    if let Some(wrong) = wrong {
        return Err(format!("writer {id}: after {replies} replies: {wrong}"));
    }
    if replies < due || replies > sent {
        return Err(format!(
            "writer {id}: {replies} replies to {sent} requests, of which {due} were sent before \
             the signal"
        ));
    }
    Ok(())
}

/// Counts a key up, far ahead of the replies, until the pulse; then reads to the end.
fn write(mut wire: Wire, id: usize, sent: &Mutex<u64>, pulse: &Pulse) -> io::Result<Written> {
    let key = format!("soak:last:{id}");
    let mut socket = wire.writer()?;
    let got = Mutex::new(0u64);
    let mut written = Written::default();
    thread::scope(|scope| {
        let got_by_reader = &got;
        let sender = scope.spawn(move || {
            let mut request = Vec::new();
            encode(&mut request, &[b"INCR", key.as_bytes()]);
            let batch = request.repeat(16);
            while !pulse.is_stopped() {
                let ahead = *sent.lock().unwrap_or_else(PoisonError::into_inner)
                    - *got_by_reader.lock().unwrap_or_else(PoisonError::into_inner);
                if ahead >= AHEAD {
                    thread::yield_now();
                    continue;
                }
                // The server may have closed by now; what was sent before tells whether it might.
                if socket.write_all(&batch).is_err() {
                    break;
                }
                *sent.lock().unwrap_or_else(PoisonError::into_inner) += 16;
            }
        });
        written.wrong = loop {
            match wire.receive_within(PATIENCE) {
                Ok(Received::Frame(Frame::Integer(n))) if n as u64 == written.replies + 1 => {
                    written.replies += 1;
                    *got.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                }
                Ok(Received::Frame(reply)) => {
                    break Some(format!("INCR got {}", describe(&reply)));
                }
                Ok(Received::End) => break None,
                Ok(Received::Silence) => break Some(String::from("neither a reply nor the end")),
                // Requests sent after the server had closed are answered by a reset.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break None,
                Err(error) => break Some(error.to_string()),
            }
        };
        sender.join().expect("it does not panic");
    });
    written.sent = *sent.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(written)
}

/// Publishes until the pulse, to one subscriber that reads to the end: `told` is how many messages the
/// server said it had taken for it, the result how many came.
fn publish(resp: SocketAddr, told: &Mutex<u64>, pulse: &Pulse) -> io::Result<u64> {
    const CHANNEL: &[u8] = b"soak:last";
    let mut subscriber = Wire::connect(resp)?;
    subscriber.ask(&[b"SUBSCRIBE", CHANNEL])?;
    let mut publisher = Wire::connect(resp)?;
    thread::scope(|scope| {
        scope.spawn(move || {
            // Ends with its connection: the server drains publishers as well.
            while !pulse.is_stopped()
                && let Ok(Frame::Integer(receivers)) =
                    publisher.ask(&[b"PUBLISH", CHANNEL, &[b'm'; 200]])
            {
                *told.lock().unwrap_or_else(PoisonError::into_inner) += receivers as u64;
            }
        });
        let mut received = 0;
        loop {
            match subscriber.receive_within(PATIENCE)? {
                Received::Frame(_) => received += 1,
                Received::End => return Ok(received),
                Received::Silence => return Err(io::Error::other("neither a message nor the end")),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(sent: u64, replies: u64) -> io::Result<Written> {
        Ok(Written { sent, replies, wrong: None })
    }

    #[test]
    fn what_was_sent_before_the_signal_is_due() {
        assert_eq!(answered(0, written(100, 90), 90), Ok(()));
        assert_eq!(answered(0, written(100, 100), 90), Ok(()));
        assert!(answered(0, written(100, 89), 90).unwrap_err().contains("89 replies"));
        assert!(answered(0, written(100, 101), 90).is_err());
        assert!(answered(0, Err(io::Error::other("x")), 0).is_err());
        let wrong = Ok(Written { sent: 9, replies: 9, wrong: Some(String::from("cut")) });
        assert!(answered(0, wrong, 9).unwrap_err().contains("cut"));
    }
}
