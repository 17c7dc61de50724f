//! Replies in the words of RESP: one method per type, each in the connection's protocol version.
//!
//! RESP2 has no maps, sets, doubles, booleans or pushes; they are written as the arrays, strings and
//! integers that RESP2 clients expect in their place.

use bytes::Bytes;

use super::Protocol;
use super::output::Output;

/// Writes one reply after the other into a connection's output.
#[derive(Debug)]
pub struct Reply<'a> {
    out: &'a mut Output,
    protocol: Protocol,
}

impl<'a> Reply<'a> {
    /// A writer in `protocol`.
    pub fn new(out: &'a mut Output, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.out.put(b"+OK\r\n");
    }

    /// A short text without line ends.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error: a code in capitals, then a text. Line ends in it become blanks.
    pub fn error(&mut self, text: &str) {
        if text.bytes().any(|byte| byte == b'\r' || byte == b'\n') {
            self.line(b'-', text.replace(['\r', '\n'], " ").as_bytes());
        } else {
            self.line(b'-', text.as_bytes());
        }
    }

    /// An integer.
    pub fn integer(&mut self, n: i64) {
        self.header(b':', n);
    }

    /// A count.
    pub fn count(&mut self, n: usize) {
        self.integer(i64::try_from(n).unwrap_or(i64::MAX));
    }

    /// A string of any bytes.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.header(b'$', bytes.len() as i64);
        self.out.put(bytes);
        self.out.put(b"\r\n");
    }

    /// A string of any bytes that is not copied if it is large.
    pub fn bulk_shared(&mut self, bytes: Bytes) {
        self.header(b'$', bytes.len() as i64);
        self.out.put_shared(bytes);
        self.out.put(b"\r\n");
    }

    /// A string in pieces, of which the large ones are not copied.
    pub fn bulk_pieces(&mut self, pieces: &[Bytes]) {
        self.header(b'$', pieces.iter().map(|piece| piece.len() as i64).sum());
        pieces.iter().for_each(|piece| self.out.put_shared(piece.clone()));
        self.out.put(b"\r\n");
    }

    /// An integer as a string, the way a value that is a number is answered.
    pub fn bulk_integer(&mut self, n: i64) {
        self.bulk(itoa::Buffer::new().format(n).as_bytes());
    }

    /// A long text for people.
    pub fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.header(b'=', text.len() as i64 + 4);
                self.out.put(b"txt:");
                self.out.put(text.as_bytes());
                self.out.put(b"\r\n");
            }
        }
    }

    /// A float.
    pub fn double(&mut self, value: f64) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(format!("{value}").as_bytes()),
            Protocol::Resp3 => self.line(b',', format!("{value}").as_bytes()),
        }
    }

    /// No value.
    pub fn null(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.out.put(b"$-1\r\n"),
            Protocol::Resp3 => self.out.put(b"_\r\n"),
        }
    }

    /// No array.
    pub fn null_array(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.out.put(b"*-1\r\n"),
            Protocol::Resp3 => self.out.put(b"_\r\n"),
        }
    }

    /// Head of an array of `len` replies that follow.
    pub fn array(&mut self, len: usize) {
        self.header(b'*', len as i64);
    }

    /// Head of a map of `pairs` that follow: key, value, key, value.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', 2 * pairs as i64),
            Protocol::Resp3 => self.header(b'%', pairs as i64),
        }
    }

    /// Head of a set of `len` replies that follow.
    pub fn set(&mut self, len: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', len as i64),
            Protocol::Resp3 => self.header(b'~', len as i64),
        }
    }

    /// Head of an out-of-band message of `len` replies that follow.
    pub fn push(&mut self, len: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', len as i64),
            Protocol::Resp3 => self.header(b'>', len as i64),
        }
    }

    /// Array of strings.
    pub fn bulks<I>(&mut self, items: I)
    where
        I: IntoIterator,
        I::IntoIter: ExactSizeIterator,
        I::Item: AsRef<[u8]>,
    {
        let items = items.into_iter();
        self.array(items.len());
        for item in items {
            self.bulk(item.as_ref());
        }
    }

    fn header(&mut self, kind: u8, n: i64) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(n).as_bytes();
        // One put instead of three: the longest i64 has 20 characters.
        let mut line = [0; 24];
        line[0] = kind;
        line[1..=digits.len()].copy_from_slice(digits);
        line[digits.len() + 1] = b'\r';
        line[digits.len() + 2] = b'\n';
        self.out.put(&line[..digits.len() + 3]);
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.out.put(&[kind]);
        self.out.put(text);
        self.out.put(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis_protocol::resp2::types::OwnedFrame as Frame2;
    use redis_protocol::resp3::types::{FrameKind, OwnedFrame as Frame3, Resp3Frame};
    use std::io::IoSlice;

    fn written(protocol: Protocol, write: impl Fn(&mut Reply<'_>)) -> Vec<u8> {
        let mut out = Output::new(usize::MAX);
        write(&mut Reply::new(&mut out, protocol));
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = out.slices(&mut slices);
        slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    fn resp2(write: impl Fn(&mut Reply<'_>)) -> Frame2 {
        let bytes = written(Protocol::Resp2, write);
        let (frame, len) = redis_protocol::resp2::decode::decode(&bytes).unwrap().unwrap();
        assert_eq!(len, bytes.len());
        frame
    }

    fn resp3(write: impl Fn(&mut Reply<'_>)) -> Frame3 {
        let bytes = written(Protocol::Resp3, write);
        let (frame, len) =
            redis_protocol::resp3::decode::complete::decode(&bytes).unwrap().unwrap();
        assert_eq!(len, bytes.len());
        frame
    }

    #[test]
    fn both_versions_decode_with_the_kept_crate() {
        assert_eq!(resp2(|r| r.bulk(b"a\r\nb")), Frame2::BulkString(b"a\r\nb".to_vec()));
        assert_eq!(resp2(|r| r.integer(i64::MIN)), Frame2::Integer(i64::MIN));
        assert_eq!(resp2(|r| r.null()), Frame2::Null);
        assert_eq!(resp2(|r| r.null_array()), Frame2::Null);
        assert_eq!(resp2(|r| r.error("ERR a\r\nb")), Frame2::Error("ERR a  b".into()));
        let pairs = |r: &mut Reply<'_>| {
            r.map(1);
            r.bulk(b"k");
            r.integer(1);
        };
        let flat = Frame2::Array(vec![Frame2::BulkString(b"k".into()), Frame2::Integer(1)]);
        assert_eq!(resp2(pairs), flat);
        assert_eq!(resp3(pairs).kind(), FrameKind::Map);
        assert_eq!(resp3(|r| r.null()).kind(), FrameKind::Null);
        assert_eq!(resp3(|r| r.null_array()).kind(), FrameKind::Null);
        assert_eq!(resp3(|r| r.double(0.5)).kind(), FrameKind::Double);
        assert_eq!(resp3(|r| r.verbatim("hello")).as_str(), Some("hello"));
        assert_eq!(resp3(|r| r.set(0)).kind(), FrameKind::Set);
        let message = |r: &mut Reply<'_>| {
            r.push(2);
            r.bulk(b"message");
            r.bulk(b"x");
        };
        assert_eq!(resp3(message).kind(), FrameKind::Push);
        assert!(matches!(resp2(message), Frame2::Array(items) if items.len() == 2));
    }
}
