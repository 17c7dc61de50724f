//! The read side of a connection: one buffer, requests taken off its front.
//!
//! The buffer grows with bytes that have arrived, never with lengths that were announced, and an
//! idle connection holds none: between requests the memory goes back to the heap. Arguments are
//! ranges of the buffer, valid until the next request is taken; whoever keeps one copies it.
//!
//! Everything here grows by what a client sends, so it asks for memory that may be refused: then the
//! request is, and with it the connection, which cannot be read on from the middle of one.

use std::collections::TryReserveError;
use std::ops::Range;

use super::inline;
use super::scan::{self, ProtocolError, Scanned, Scanner, WireLimits};

/// Room offered to the first read of a batch.
const FIRST_READ: usize = 4 * 1024;
/// Most room offered to one read.
const LARGEST_READ: usize = 64 * 1024;

/// A connection's unread requests.
#[derive(Debug)]
pub struct Input {
    limits: WireLimits,
    buffer: Vec<u8>,
    /// Bytes at the front that are done with.
    done: usize,
    /// Bytes of the request last handed out; done with at the next call.
    handed_out: usize,
    scanner: Scanner,
    /// Where the arguments lie: in the buffer, or in the words.
    arguments: Vec<Range<usize>>,
    /// Words of an inline request.
    words: Vec<u8>,
    /// Room for the next read; follows what reads bring.
    read_size: usize,
    /// What the scanner said to be missing, and whether that is all.
    missing: usize,
    missing_is_all: bool,
}

impl Input {
    /// An empty buffer.
    pub fn new(limits: WireLimits) -> Self {
        Self {
            limits,
            buffer: Vec::new(),
            done: 0,
            handed_out: 0,
            scanner: Scanner::default(),
            arguments: Vec::new(),
            words: Vec::new(),
            read_size: FIRST_READ,
            missing: 1,
            missing_is_all: false,
        }
    }

    /// Takes the next whole request, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// The bytes are no request, or there is no memory to take it apart. Nothing more can be read from
    /// this connection.
    pub fn next_request(&mut self) -> Result<Option<Args<'_>>, ProtocolError> {
        loop {
            self.done += std::mem::take(&mut self.handed_out);
            let unread = &self.buffer[self.done..];
            match self.scanner.resume(unread, &self.limits)? {
                Scanned::Partial { missing, last } => {
                    (self.missing, self.missing_is_all) = (missing, last);
                    return Ok(None);
                }
                Scanned::Empty { len } => self.handed_out = len,
                Scanned::Inline { line, len } => {
                    self.handed_out = len;
                    self.words.clear();
                    self.arguments.clear();
                    inline::split(&unread[..line], &mut self.words, &mut self.arguments)?;
                    return Ok(Some(Args { bytes: &self.words, ranges: &self.arguments }));
                }
                Scanned::Array { len } => {
                    self.handed_out = len;
                    let request = &self.buffer[self.done..self.done + len];
                    self.arguments.clear();
                    scan::elements(request, &mut self.arguments)?;
                    return Ok(Some(Args { bytes: request, ranges: &self.arguments }));
                }
            }
        }
    }

    /// The buffer with room for the next read behind its bytes.
    ///
    /// Beyond one ordinary read the room is at most as much again as has arrived, so that a client
    /// pays for growth in bytes sent, and at most what the request still misses where that is known.
    ///
    /// # Errors
    /// There is no memory for it. The buffer is as it was.
    pub fn room(&mut self) -> Result<&mut Vec<u8>, TryReserveError> {
        self.drop_done();
        let held = self.buffer.len();
        let spare = self.buffer.capacity() - held;
        let enough = if held < LARGEST_READ || !self.missing_is_all {
            self.read_size
        } else {
            self.missing.min(self.read_size)
        };
        if spare < enough {
            let growth = if self.missing_is_all { held.min(self.missing) } else { held };
            let wanted = self.buffer.try_reserve_exact(growth.max(enough));
            // Less will do where there is not as much: what is there already, or a little.
            if wanted.is_err() && spare == 0 {
                self.buffer.try_reserve_exact(FIRST_READ)?;
            }
        }
        Ok(&mut self.buffer)
    }

    /// Tells what the last read brought, so that the next has fitting room.
    pub fn arrived(&mut self, bytes: usize) {
        if bytes >= self.read_size {
            self.read_size = (self.read_size * 2).min(LARGEST_READ);
        } else if bytes < self.read_size / 4 {
            self.read_size = (self.read_size / 2).max(FIRST_READ);
        }
    }

    /// Bytes received and not yet handed out.
    pub fn unread(&self) -> usize {
        self.buffer.len() - self.done - self.handed_out
    }

    /// Bytes that the buffers hold of the heap.
    pub fn held(&self) -> usize {
        self.buffer.capacity()
            + self.words.capacity()
            + self.arguments.capacity() * size_of::<Range<usize>>()
    }

    /// Gives back memory that is not needed while nothing arrives. Called before waiting.
    pub fn rest(&mut self) {
        self.drop_done();
        self.arguments = Vec::new();
        self.words = Vec::new();
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
    }

    /// Appends bytes as if they had been read. For tests and for callers without a socket.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Moves unread bytes to the front, and out of a buffer that a big request made too large.
    fn drop_done(&mut self) {
        self.done += std::mem::take(&mut self.handed_out);
        if self.done == 0 {
            return;
        }
        let unread = self.buffer.len() - self.done;
        let mut smaller = Vec::new();
        if self.buffer.capacity() > 4 * LARGEST_READ
            && unread < self.buffer.capacity() / 4
            && smaller.try_reserve_exact(unread).is_ok()
        {
            smaller.extend_from_slice(&self.buffer[self.done..]);
            self.buffer = smaller;
        } else {
            self.buffer.drain(..self.done);
        }
        self.done = 0;
    }
}

/// The arguments of one request, the command's name first.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    bytes: &'a [u8],
    ranges: &'a [Range<usize>],
}

impl<'a> Args<'a> {
    /// How many arguments there are, the command's name included.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Argument `i`, if there are that many.
    pub fn get(&self, i: usize) -> Option<&'a [u8]> {
        self.ranges.get(i).map(|range| &self.bytes[range.clone()])
    }

    /// Argument `i`. Handlers call it for arguments that the command's arity guarantees.
    ///
    /// # Panics
    /// If there are not that many.
    pub fn at(&self, i: usize) -> &'a [u8] {
        &self.bytes[self.ranges[i].clone()]
    }

    /// The arguments from `from` on; none if there are not that many.
    pub fn from(&self, from: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let bytes = self.bytes;
        self.ranges.get(from..).unwrap_or_default().iter().map(move |range| &bytes[range.clone()])
    }

    /// Bytes of the request as it came.
    pub fn wire_len(&self) -> usize {
        self.bytes.len()
    }
}

/// A request out of thin air, for unit tests of commands.
#[cfg(test)]
pub(crate) fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use redis_protocol::resp2::decode::decode_range;
    use redis_protocol::resp2::types::RangeFrame;

    fn input() -> Input {
        Input::new(WireLimits::default())
    }

    fn drain(input: &mut Input) -> Vec<Vec<Vec<u8>>> {
        let mut requests = Vec::new();
        while let Some(args) = input.next_request().unwrap() {
            requests.push(args.from(0).map(<[u8]>::to_vec).collect());
        }
        requests
    }

    #[test]
    fn pipelined_arrays_and_inline_lines() {
        let mut input = input();
        input.feed(&encode(&[b"SET", b"k", b"v"]));
        input.feed(b"PING\r\n\r\n*0\r\nECHO 'a b'\n");
        input.feed(&encode(&[b"GET", b"k"]));
        let requests = drain(&mut input);
        assert_eq!(requests.len(), 4);
        assert_eq!(requests[0], [b"SET", b"k".as_slice(), b"v"]);
        assert_eq!(requests[2], [b"ECHO".as_slice(), b"a b"]);
        assert_eq!(input.unread(), 0);
    }

    #[test]
    fn an_idle_input_holds_nothing() {
        let mut input = input();
        input.feed(&encode(&[b"SET", b"k", &vec![b'x'; 1 << 20]]));
        assert!(input.next_request().unwrap().is_some());
        assert!(input.next_request().unwrap().is_none());
        input.rest();
        assert_eq!(input.held(), 0);
    }

    #[test]
    fn a_big_request_does_not_leave_a_big_buffer() {
        let mut input = input();
        input.feed(&encode(&[b"SET", b"k", &vec![b'x'; 1 << 20]]));
        input.feed(b"*1\r\n$4\r\nPI");
        assert!(input.next_request().unwrap().is_some());
        assert!(input.next_request().unwrap().is_none());
        input.room().unwrap();
        assert!(input.held() < 128 * 1024, "{}", input.held());
        input.feed(b"NG\r\n");
        assert_eq!(drain(&mut input), [[b"PING"]]);
    }

    #[test]
    fn announced_lengths_do_not_size_the_buffer() {
        let mut input = input();
        input.feed(b"*2\r\n$536870912\r\n");
        assert!(input.next_request().unwrap().is_none());
        input.room().unwrap();
        assert!(input.held() <= LARGEST_READ, "{}", input.held());
        let mut input = Input::new(WireLimits::default());
        input.feed(b"*1048576\r\n$1\r\n");
        assert!(input.next_request().unwrap().is_none());
        assert!(input.held() <= LARGEST_READ);
    }

    proptest! {
        /// However the bytes are cut, the same requests come out.
        #[test]
        fn cuts_do_not_matter(
            requests in prop::collection::vec(
                prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..5), 0..8),
            cuts in prop::collection::vec(1usize..30, 1..60),
        ) {
            let bytes: Vec<u8> = requests
                .iter()
                .flat_map(|words| encode(&words.iter().map(Vec::as_slice).collect::<Vec<_>>()))
                .collect();
            let mut input = input();
            let mut seen = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                input.room().unwrap().extend_from_slice(now);
                rest = later;
                seen.extend(drain(&mut input));
            }
            prop_assert_eq!(seen, requests);
        }

        /// What an array is taken apart into is what the library says.
        #[test]
        fn elements_are_those_of_the_decoder(
            words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..9),
        ) {
            let bytes = encode(&words.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let mut ranges = Vec::new();
            scan::elements(&bytes, &mut ranges).unwrap();
            let Ok(Some((RangeFrame::Array(frames), len))) = decode_range(&bytes) else {
                panic!("no array: {bytes:?}")
            };
            let decoded: Vec<_> = frames.iter().map(|frame| match frame {
                RangeFrame::BulkString((start, end)) => *start..*end,
                other => panic!("no string: {other:?}"),
            }).collect();
            prop_assert_eq!((ranges, bytes.len()), (decoded, len));
        }

        /// Garbage never panics.
        #[test]
        fn garbage_is_an_error_or_a_wait(bytes in prop::collection::vec(
            prop::sample::select(b"*$0123-\r\n \"'\\xab".to_vec()), 0..200)) {
            let mut input = input();
            input.feed(&bytes);
            while let Ok(Some(args)) = input.next_request() {
                prop_assert!(!args.is_empty());
            }
        }
    }
}
