//! Lists: pushes and pops at both ends, of one element and of many, and clients that wait for them.
//!
//! A list is a model's; an operation that was answered with an error has changed nothing. Clients that wait
//! get what is pushed, or an error, and then it is still there.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;

use flagstone_server::shared::Shared;

use super::{InProcess, Scenario, Seen, soon, sweep};
use crate::wire::{Wire, encode};

/// Elements of many: their list, their places and their answer are blocks that can be refused.
const MANY: usize = 600;
/// Elements that are there before, in several chunks.
const BEFORE: usize = 24;

/// A list on the server and as it must be.
struct Lists {
    shared: Arc<Shared>,
    addr: std::net::SocketAddr,
    wire: Option<Wire>,
    list: VecDeque<Vec<u8>>,
    /// What the list is if the last operation, whose reply did not come, was done.
    or: Option<VecDeque<Vec<u8>>>,
    /// The same for elements that somebody waits for: how many are there.
    handed: Option<usize>,
    seen: Seen,
}

impl Lists {
    /// Asks for what turns the list into `then`, and compares the reply.
    fn step(&mut self, words: &[&[u8]], reply: &str, then: VecDeque<Vec<u8>>) {
        let Some(wire) = &mut self.wire else { return };
        let sent = wire.stream.write_all(&encode(words));
        match sent.ok().and_then(|()| wire.reply_or_end()) {
            Some(got) if got == reply => self.list = then,
            Some(got) if got.starts_with("-OOM ") => {
                self.seen.errors += 1;
                // What could not be read ends the connection, and has not run.
                if got.starts_with("-OOM no memory for a request") {
                    self.end_of_connection(None);
                }
            }
            Some(got) => panic!(
                "{}: {} instead of {}",
                String::from_utf8_lossy(words[0]),
                &got[..got.len().min(80)],
                &reply[..reply.len().min(80)]
            ),
            None => self.end_of_connection(Some(then)),
        }
    }

    fn end_of_connection(&mut self, or: Option<VecDeque<Vec<u8>>>) {
        (self.wire, self.or) = (None, or);
        self.seen.ends += 1;
    }

    fn push(&mut self, command: &str, elements: &[Vec<u8>]) {
        let mut then = self.list.clone();
        let is_there = !then.is_empty();
        let mut words: Vec<&[u8]> = vec![command.as_bytes(), b"list"];
        words.extend(elements.iter().map(Vec::as_slice));
        if is_there || !command.ends_with('X') {
            for element in elements {
                match command.as_bytes()[0] {
                    b'L' => then.push_front(element.clone()),
                    _ => then.push_back(element.clone()),
                }
            }
        }
        self.step(&words, &format!(":{}", then.len()), then);
    }

    fn pop(&mut self, command: &str, count: usize) {
        let mut then = self.list.clone();
        let mut popped = Vec::new();
        for _ in 0..count.min(then.len()) {
            let element = if command == "LPOP" { then.pop_front() } else { then.pop_back() };
            popped.push(String::from_utf8(element.unwrap()).unwrap());
        }
        let reply = match popped.as_slice() {
            [] => String::from("nil"),
            popped => format!("[{}]", popped.join(", ")),
        };
        self.step(&[command.as_bytes(), b"list", count.to_string().as_bytes()], &reply, then);
    }

    fn range(&mut self) {
        let reply = shown(&self.list);
        let list = self.list.clone();
        self.step(&[b"LRANGE", b"list", b"0", b"-1"], &reply, list);
    }

    /// Somebody waits for two keys, somebody else pushes what is larger than a block that is there.
    fn wait_and_push(&mut self) {
        let mut waiting = Wire::connect(self.addr);
        let element = element(7, 9_000);
        waiting.send(&[b"BLPOP", b"nothing", b"waited", b"0"]);
        let shared = Arc::clone(&self.shared);
        // It waits, or was refused.
        let waits = soon("the client to wait", || {
            if waiting.has_input() {
                Some(false)
            } else {
                (shared.stats.blocked.get() > 0).then_some(true)
            }
        });
        let refused = (!waits).then(|| waiting.reply_or_end());
        let mut pushing = Wire::connect(self.addr);
        let pushed = pushing.reply_or_error(&[b"RPUSH", b"waited", &element]);
        let answer = match (waits, &pushed) {
            (false, _) => refused.flatten(),
            (true, Some(pushed)) if pushed == ":1" => waiting.reply_or_end(),
            (true, _) => None,
        };
        let text = String::from_utf8(element).unwrap();
        let mut there = match &pushed {
            Some(pushed) if pushed == ":1" => 1,
            other => {
                assert!(other.as_ref().is_none_or(|reply| reply.starts_with("-OOM ")), "{other:?}");
                self.seen.errors += 1;
                0
            }
        };
        match answer {
            Some(answer) if answer == format!("[waited, {text}]") => there -= 1,
            Some(answer) => {
                assert!(answer.starts_with("-OOM "), "{}", &answer[..answer.len().min(80)]);
                self.seen.errors += 1;
            }
            // Nothing was pushed, and it waits on; or its connection ended.
            None => self.seen.ends += usize::from(there == 1 || !waits),
        }
        self.handed = Some(there);
    }
}

impl Scenario for Lists {
    const FROM: usize = 8 << 10;

    fn begin(server: &InProcess) -> Self {
        let mut lists = Self {
            shared: Arc::clone(&server.shared),
            addr: server.addr,
            wire: Some(Wire::connect(server.addr)),
            list: VecDeque::new(),
            or: None,
            handed: None,
            seen: Seen::default(),
        };
        for n in 0..BEFORE {
            lists.push("RPUSH", &[element(n, 200 + 60 * n)]);
        }
        lists
    }

    fn work(&mut self) -> Seen {
        let many: Vec<Vec<u8>> = (0..MANY).map(|n| element(n, 8)).collect();
        self.push("LPUSHX", &[element(1, 9_000)]);
        self.push("RPUSH", &[element(2, 9_000), element(3, 3), element(4, 20_000)]);
        self.push("LPUSH", &many);
        self.push("RPUSH", &many);
        self.range();
        self.pop("LPOP", MANY + 1);
        self.pop("RPOP", MANY);
        self.push("RPUSH", &[element(5, 5)]);
        self.pop("RPOP", 2);
        self.push("LPUSH", &[element(6, 5_000)]);
        self.pop("LPOP", 3);
        self.range();
        // A client that waits for many keys, for a moment.
        let keys: Vec<String> = (0..MANY).map(|n| format!("none:{n}")).collect();
        let mut words: Vec<&[u8]> = vec![b"BRPOP"];
        words.extend(keys.iter().map(String::as_bytes));
        words.push(b"0.001");
        let list = self.list.clone();
        self.step(&words, "nil", list);
        self.wait_and_push();
        std::mem::take(&mut self.seen)
    }

    fn end(self) {
        let mut wire = Wire::connect(self.addr);
        let there = wire.run("LRANGE list 0 -1");
        let is_right = |list: &VecDeque<Vec<u8>>| shown(list) == there;
        assert!(is_right(&self.list) || self.or.as_ref().is_some_and(is_right), "another list");
        if let Some(handed) = self.handed {
            soon("the client that waits to go", || {
                (self.shared.stats.blocked.get() == 0).then_some(())
            });
            assert_eq!(wire.run("LLEN waited"), format!(":{handed}"));
        }
        assert_eq!(wire.run("FLUSHALL"), "+OK");
    }
}

fn element(n: usize, len: usize) -> Vec<u8> {
    let letter = b'a' + (n % 26) as u8;
    vec![letter; len]
}

fn shown(list: &VecDeque<Vec<u8>>) -> String {
    let elements: Vec<&str> = list.iter().map(|e| std::str::from_utf8(e).unwrap()).collect();
    format!("[{}]", elements.join(", "))
}

// requirement: G7
#[test]
fn lists_lose_and_double_nothing_whichever_request_fails() {
    for once in [false, true] {
        let swept = sweep::<Lists>(once);
        // One refusal alone is made up for with less, or answered.
        assert!(swept.requests > 30 && swept.seen.errors > 10, "{swept:?}");
    }
}
