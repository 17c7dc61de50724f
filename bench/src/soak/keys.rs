//! Churn of keys and connections, by clients that know what every reply must be.
//!
//! A `KeyClient` owns the keys of its number and keeps a model of them: values are a seed and a
//! length, so the model is small whatever the values are, and every value that comes back is compared
//! byte by byte. A write refused at the memory cap changes nothing, in the server and in the model.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use super::checks::Check;
use super::pulse::Pace;
use super::scene::Scene;
use super::wire::{Frame, Wire, describe, is_oom, ok};
use crate::rng::Rng;

/// Keys of one client.
const KEYS: usize = 1500;
/// Elements of a client's list, at most.
const ELEMENTS: usize = 100;
/// Pieces that a value is made of, at most: APPEND adds one.
const PIECES: usize = 3;
/// Large values before the churn.
const LARGE_AT_START: usize = 64;
/// Requests of a pipeline.
const PIPELINE: usize = 32;
/// Key clients.
pub const CLIENTS: u64 = 4;

/// Seeds and lengths of a value's pieces; no pieces, no key.
type Model = Vec<(u64, usize)>;

/// Runs a key client until the end.
pub fn run(scene: &Scene<'_>, id: u64) {
    let mut rng = Rng::part(0x50a4, id);
    let mut round = 0;
    scene.keep(Check::Replies, || {
        round += 1;
        // What the keys of an earlier connection hold is not known for sure: each has its own.
        let mut client = KeyClient::connect(scene, format!("soak:{id}:{round}"), rng.next())?;
        client.fill()?;
        let mut pace = Pace::new(f64::from(scene.plan.load(150)));
        while !pace.rest(&scene.pulse) {
            client.due = Some(pace.due());
            client.turn()?;
        }
        Ok(())
    });
}

struct KeyClient<'a> {
    scene: &'a Scene<'a>,
    wire: Wire,
    rng: Rng,
    prefix: String,
    model: Vec<Model>,
    list: VecDeque<u64>,
    counter: i64,
    next: u64,
    /// When the turn's first request was due, until that is sent.
    due: Option<Instant>,
}

impl<'a> KeyClient<'a> {
    fn connect(scene: &'a Scene<'a>, prefix: String, seed: u64) -> io::Result<KeyClient<'a>> {
        Ok(KeyClient {
            scene,
            wire: Wire::connect(scene.target.resp)?,
            rng: Rng::new(seed),
            prefix,
            model: vec![Model::new(); KEYS],
            list: VecDeque::new(),
            counter: 0,
            next: 0,
            due: None,
        })
    }

    /// Stores every key, so that the data has its size from the start; and large values of all sizes,
    /// so that what an allocator keeps of every size is kept from the start as well.
    fn fill(&mut self) -> io::Result<()> {
        for _ in 0..LARGE_AT_START {
            let key = self.rng.below(KEYS);
            self.large(key)?;
        }
        for first in (0..KEYS).step_by(PIPELINE) {
            let keys = first..KEYS.min(first + PIPELINE);
            let pieces: Vec<(u64, usize)> = keys.clone().map(|_| self.piece()).collect();
            for (key, piece) in keys.clone().zip(&pieces) {
                self.wire.queue(&[b"SET", self.key(key).as_bytes(), &content(&[*piece])]);
            }
            self.wire.flush()?;
            for (key, piece) in keys.zip(pieces) {
                let reply = self.wire.receive()?;
                if self.accepted(&reply, &ok(), "SET") {
                    self.model[key] = vec![piece];
                }
            }
        }
        Ok(())
    }

    /// One request, or one pipeline of them.
    fn turn(&mut self) -> io::Result<()> {
        let key = self.rng.below(KEYS);
        match self.rng.below(100) {
            0..38 => self.get(key),
            38..65 => self.set(key),
            65..70 => self.append(key),
            70..76 => self.delete(key),
            76..86 => self.list_turn(),
            86..91 => self.count_up(),
            91..96 => self.fleeting(),
            96..98 => self.many(),
            _ => self.large(key),
        }
    }

    fn get(&mut self, key: usize) -> io::Result<()> {
        let expected = self.expected(key);
        let name = self.key(key);
        self.exact(&[b"GET", name.as_bytes()], &expected)
    }

    fn set(&mut self, key: usize) -> io::Result<()> {
        let piece = self.piece();
        let name = self.key(key);
        if self.write(&[b"SET", name.as_bytes(), &content(&[piece])], &ok())? {
            self.model[key] = vec![piece];
        }
        Ok(())
    }

    fn append(&mut self, key: usize) -> io::Result<()> {
        if self.model[key].len() >= PIECES {
            return self.set(key);
        }
        let piece = self.piece();
        let length = self.model[key].iter().map(|(_, length)| length).sum::<usize>() + piece.1;
        let name = self.key(key);
        let expected = Frame::Integer(length as i64);
        if self.write(&[b"APPEND", name.as_bytes(), &content(&[piece])], &expected)? {
            self.model[key].push(piece);
        }
        Ok(())
    }

    /// Deletes a key and stores it again, so that the number of keys stays.
    fn delete(&mut self, key: usize) -> io::Result<()> {
        let existed = i64::from(!self.model[key].is_empty());
        let name = self.key(key);
        self.exact(&[b"DEL", name.as_bytes()], &Frame::Integer(existed))?;
        self.model[key].clear();
        self.get(key)?;
        self.set(key)
    }

    fn list_turn(&mut self) -> io::Result<()> {
        let name = format!("{}:list", self.prefix);
        if self.list.len() < ELEMENTS && self.rng.below(2) == 0 {
            let element = self.next.to_string();
            let expected = Frame::Integer(self.list.len() as i64 + 1);
            if self.write(&[b"RPUSH", name.as_bytes(), element.as_bytes()], &expected)? {
                self.list.push_back(self.next);
                self.next += 1;
            }
            return Ok(());
        }
        let expected = match self.list.pop_front() {
            Some(element) => Frame::BulkString(element.to_string().into_bytes()),
            None => Frame::Null,
        };
        self.exact(&[b"LPOP", name.as_bytes()], &expected)
    }

    fn count_up(&mut self) -> io::Result<()> {
        let name = format!("{}:counter", self.prefix);
        let expected = Frame::Integer(self.counter + 1);
        if self.write(&[b"INCR", name.as_bytes()], &expected)? {
            self.counter += 1;
        }
        Ok(())
    }

    /// A key that lives for less than two seconds: it holds its value until it is gone.
    fn fleeting(&mut self) -> io::Result<()> {
        let name = format!("{}:fleeting:{}", self.prefix, self.rng.below(50));
        let piece = self.piece();
        let life = self.rng.range(1, 2000).to_string();
        let value = content(&[piece]);
        if !self.write(&[b"SET", name.as_bytes(), &value, b"PX", life.as_bytes()], &ok())? {
            return Ok(());
        }
        match self.wire.ask(&[b"GET", name.as_bytes()])? {
            Frame::Null => self.scene.ledger.held(Check::Replies),
            reply => self.compare(&reply, &Frame::BulkString(value), "GET of a fleeting key"),
        }
        Ok(())
    }

    /// A pipeline.
    fn many(&mut self) -> io::Result<()> {
        let keys: Vec<usize> = (0..PIPELINE).map(|_| self.rng.below(KEYS)).collect();
        for &key in &keys {
            self.wire.queue(&[b"GET", self.key(key).as_bytes()]);
        }
        self.wire.flush()?;
        for key in keys {
            let reply = self.wire.receive()?;
            self.compare(&reply, &self.expected(key), "GET in a pipeline");
        }
        self.scene.count("requests", PIPELINE as u64);
        Ok(())
    }

    /// A large value for a moment: it is replaced by a small one, so that few exist at a time.
    fn large(&mut self, key: usize) -> io::Result<()> {
        let piece = (self.rng.next(), self.rng.range(64 << 10, 1 << 20));
        let name = self.key(key);
        if self.write(&[b"SET", name.as_bytes(), &content(&[piece])], &ok())? {
            self.model[key] = vec![piece];
        }
        self.get(key)?;
        self.set(key)
    }

    fn key(&self, key: usize) -> String {
        format!("{}:{key}", self.prefix)
    }

    fn piece(&mut self) -> (u64, usize) {
        (self.rng.next(), self.rng.skewed(8, 4096))
    }

    fn expected(&self, key: usize) -> Frame {
        match self.model[key].as_slice() {
            [] => Frame::Null,
            pieces => Frame::BulkString(content(pieces)),
        }
    }

    /// A request with one possible reply.
    fn exact(&mut self, words: &[&[u8]], expected: &Frame) -> io::Result<()> {
        let reply = self.timed(words)?;
        self.compare(&reply, expected, &String::from_utf8_lossy(words[0]));
        Ok(())
    }

    /// A write: true if the server took it, false if it was refused at the memory cap.
    fn write(&mut self, words: &[&[u8]], expected: &Frame) -> io::Result<bool> {
        let reply = self.timed(words)?;
        Ok(self.accepted(&reply, expected, &String::from_utf8_lossy(words[0])))
    }

    fn timed(&mut self, words: &[&[u8]]) -> io::Result<Frame> {
        let sent = Instant::now();
        let reply = self.wire.ask(words)?;
        self.scene.took(sent.elapsed(), self.due.take().map(|due| due.elapsed()));
        self.scene.count("requests", 1);
        Ok(reply)
    }

    fn accepted(&self, reply: &Frame, expected: &Frame, command: &str) -> bool {
        if is_oom(reply) {
            self.scene.count("refused at the memory cap", 1);
            return false;
        }
        self.compare(reply, expected, command);
        true
    }

    fn compare(&self, reply: &Frame, expected: &Frame, command: &str) {
        if reply == expected {
            self.scene.ledger.held(Check::Replies);
            return;
        }
        let (got, wanted) = (describe(reply), describe(expected));
        self.scene.ledger.broke(
            Check::Replies,
            format!("{command} of {}: got {got}, expected {wanted}", self.prefix),
        );
    }
}

/// The bytes of a value.
pub fn content(pieces: &[(u64, usize)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(pieces.iter().map(|(_, length)| length + 8).sum());
    for &(seed, length) in pieces {
        let end = bytes.len() + length;
        let mut rng = Rng::new(seed);
        while bytes.len() < end {
            bytes.extend(rng.next().to_le_bytes());
        }
        bytes.truncate(end);
    }
    bytes
}

/// Opens connections and ends them, in every way that is in order.
pub fn connections(scene: &Scene<'_>) {
    let mut rng = Rng::new(0xc0_22ec);
    scene.keep(Check::Replies, || {
        let mut pace = Pace::new(f64::from(scene.plan.load(10)));
        while !pace.rest(&scene.pulse) {
            let mut wires = Vec::new();
            for _ in 0..rng.range(1, 16) {
                wires.push(Wire::connect(scene.target.resp)?);
            }
            scene.count("connections", wires.len() as u64);
            for mut wire in wires {
                let reply = wire.ask_words("PING")?;
                let pong = Frame::SimpleString(b"PONG".to_vec());
                scene.ledger.judge(
                    Check::Replies,
                    if reply == pong { Ok(()) } else { Err(format!("PING: {}", describe(&reply))) },
                );
                match rng.below(3) {
                    0 => drop(wire.ask_words("QUIT")?),
                    1 => wire.half_close()?,
                    _ => {}
                }
            }
        }
        Ok(())
    });
}

/// Stores keys that nobody deletes: the leak of [`super::plan::Injected::Leak`].
pub fn leak(scene: &Scene<'_>) {
    let mut n = 0;
    scene.keep(Check::Replies, || {
        let mut wire = Wire::connect(scene.target.resp)?;
        let value = content(&[(1, 64 << 10)]);
        let mut pace = Pace::new(64.0);
        while !pace.rest(&scene.pulse) {
            wire.ask(&[b"SET", format!("leak:{n}").as_bytes(), &value])?;
            n += 1;
        }
        Ok(())
    });
}

/// Overwrites keys of the first client: the error of [`super::plan::Injected::Value`].
pub fn overwrite(scene: &Scene<'_>) {
    let mut rng = Rng::new(7);
    scene.keep(Check::Messages, || {
        let mut wire = Wire::connect(scene.target.resp)?;
        while !scene.pulse.rest(Duration::from_millis(10)) {
            let key = format!("soak:0:1:{}", rng.below(KEYS));
            wire.ask(&[b"SET", key.as_bytes(), b"not what was stored"])?;
        }
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::content;

    #[test]
    fn content_is_the_pieces_one_after_the_other() {
        let (a, b) = (content(&[(1, 13)]), content(&[(2, 5)]));
        assert_eq!((a.len(), b.len()), (13, 5));
        assert_eq!(content(&[(1, 13), (2, 5)]), [a, b].concat());
    }
}
