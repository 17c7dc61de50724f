//! A small RESP client for tests: words out, printed replies in.

#![allow(dead_code, reason = "every test program uses its own part of this module")]

pub mod print;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::client_support::resp_connection;

/// One connection.
pub struct Wire {
    /// The socket, for tests that do what no client should.
    pub stream: TcpStream,
    unread: Vec<u8>,
    /// Whether replies are RESP3; follows `HELLO 3`.
    pub resp3: bool,
}

impl Wire {
    pub fn connect(addr: SocketAddr) -> Self {
        Self { stream: resp_connection(addr), unread: Vec::new(), resp3: false }
    }

    /// Sends a request of these words as an array.
    pub fn send(&mut self, words: &[&[u8]]) {
        self.stream.write_all(&encode(words)).unwrap();
    }

    /// Sends the words of a line and returns the reply.
    pub fn run(&mut self, line: &str) -> String {
        self.post(line);
        self.reply()
    }

    /// Sends the words of a line.
    pub fn post(&mut self, line: &str) {
        let words: Vec<&[u8]> = line.split_ascii_whitespace().map(str::as_bytes).collect();
        if line.eq_ignore_ascii_case("hello 3") {
            self.resp3 = true;
        }
        self.send(&words);
    }

    /// Sends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next reply.
    ///
    /// # Panics
    /// If the server hangs up or takes too long.
    pub fn reply(&mut self) -> String {
        self.reply_or_end().expect("a reply before the server hangs up")
    }

    /// The next reply, or `None` if the server hangs up, gently or not.
    ///
    /// # Panics
    /// If the server takes too long, or hangs up in the middle of a reply.
    pub fn reply_or_end(&mut self) -> Option<String> {
        loop {
            if let Some((reply, len)) = print::reply(&self.unread, self.resp3) {
                self.unread.drain(..len);
                return Some(reply);
            }
            let mut chunk = [0; 64 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    assert!(self.unread.is_empty(), "cut off: {:?}", self.unread);
                    return None;
                }
                Ok(n) => self.unread.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("no reply: {e}"),
            }
        }
    }

    /// Sends words to a server that may refuse them before they are all there; then what it has
    /// answered, if that was to be had.
    pub fn reply_or_error(&mut self, words: &[&[u8]]) -> Option<String> {
        // What was answered arrives though sending fails.
        let _ = self.stream.write_all(&encode(words));
        self.reply_or_end()
    }

    /// Whether nothing arrives for a moment.
    pub fn is_silent(&mut self) -> bool {
        let before = self.stream.read_timeout().unwrap();
        self.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let silent = self.unread.is_empty() && self.stream.peek(&mut [0]).is_err();
        self.stream.set_read_timeout(before).unwrap();
        silent
    }

    /// Whether something, or the connection's end, is there to be read.
    pub fn has_input(&mut self) -> bool {
        let before = self.stream.read_timeout().unwrap();
        self.stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let there = !self.unread.is_empty() || self.stream.peek(&mut [0]).is_ok();
        self.stream.set_read_timeout(before).unwrap();
        there
    }

    /// The integer that a line is answered with.
    pub fn int(&mut self, line: &str) -> i64 {
        let reply = self.run(line);
        reply.strip_prefix(':').and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{reply}"))
    }

    /// A field of `INFO`.
    pub fn info(&mut self, field: &str) -> String {
        let text = self.run("INFO everything");
        let prefix = format!("{field}:");
        let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
        line.unwrap_or_else(|| panic!("no {field} in {text}")).trim().to_owned()
    }

    /// A field of `INFO` that is a number.
    pub fn info_number(&mut self, field: &str) -> u64 {
        let text = self.info(field);
        text.parse().unwrap_or_else(|e| panic!("{field}:{text}: {e}"))
    }
}

/// A request as an array.
pub fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
