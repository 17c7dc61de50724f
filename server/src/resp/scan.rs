//! The scan: finds where a request ends and checks the wire limits, before anything is allocated.
//!
//! A request is either an array of bulk strings (`*2\r\n$4\r\nLLEN\r\n$1\r\nk\r\n`) or one inline
//! line. The scanner keeps its place between calls and jumps over bodies by their length, so a body
//! that arrives in a thousand pieces costs a thousand resumptions and no second look at its bytes.
//!
//! It is stricter than needed: integers have one spelling, bodies end in CRLF, arrays hold bulk
//! strings only. Whatever passes, `redis-protocol` decodes; it does so into vectors that cannot be
//! refused, so the second, short look at a whole array is [`elements`]', and tests compare the two.

use std::fmt;
use std::ops::Range;

use crate::number::parse_i64;

/// Longest header line, `*` or `$` and the line end included. A valid one has at most 23 bytes.
const HEADER: usize = 64;

/// At least one more byte, and nobody knows how many after it.
const MORE: Scanned = Scanned::Partial { missing: 1, last: false };

/// What a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireLimits {
    /// Elements of one request.
    pub elements: usize,
    /// Bytes of one bulk string.
    pub bulk: usize,
    /// Bytes of one inline request.
    pub inline: usize,
    /// Bytes of one request with all its headers.
    pub request: usize,
}

impl Default for WireLimits {
    /// 1 M elements, 512 MiB a bulk string, 64 KiB inline, 1 GiB a request.
    fn default() -> Self {
        Self { elements: 1 << 20, bulk: 512 << 20, inline: 64 << 10, request: 1 << 30 }
    }
}

/// What a scan found at the front of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Scanned {
    /// The request is not whole. At least this many bytes are missing.
    Partial {
        /// Bytes to read before the next scan can get further.
        missing: usize,
        /// Whether the request is whole with them.
        last: bool,
    },
    /// A whole array of bulk strings.
    Array {
        /// Bytes of the request.
        len: usize,
    },
    /// A whole inline line.
    Inline {
        /// Bytes of the line without its end.
        line: usize,
        /// Bytes of the request.
        len: usize,
    },
    /// Nothing to run: an empty array or an empty line.
    Empty {
        /// Bytes to skip.
        len: usize,
    },
}

/// Why a connection's bytes are no requests. The connection is closed after the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The element count is no number, or over the limit.
    ElementCount,
    /// The element count does not end.
    ElementCountLength,
    /// A bulk length is no number, negative, or over the limit.
    BulkLength,
    /// A bulk length does not end.
    BulkLengthLength,
    /// An element of the array is no bulk string.
    ExpectedBulk(u8),
    /// A bulk string is not followed by CRLF.
    BulkEnd,
    /// An inline request does not end.
    InlineLength,
    /// An inline request has a quote that does not close.
    InlineQuotes,
    /// All parts are within their limits, but not their sum.
    RequestLength,
    /// There is no memory for the request.
    OutOfMemory,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::OutOfMemory {
            return f.write_str("OOM no memory for a request of this size");
        }
        f.write_str("ERR Protocol error: ")?;
        match *self {
            Self::OutOfMemory => Ok(()),
            Self::ElementCount => f.write_str("invalid multibulk length"),
            Self::ElementCountLength => f.write_str("too big mbulk count string"),
            Self::BulkLength => f.write_str("invalid bulk length"),
            Self::BulkLengthLength => f.write_str("too big bulk count string"),
            Self::ExpectedBulk(byte) => {
                write!(f, "expected '$', got '{}'", printable(byte))
            }
            Self::BulkEnd => f.write_str("bulk string not followed by CRLF"),
            Self::InlineLength => f.write_str("too big inline request"),
            Self::InlineQuotes => f.write_str("unbalanced quotes in request"),
            Self::RequestLength => f.write_str("too big request"),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// A byte fit for an error line: no control characters, no line ends.
fn printable(byte: u8) -> char {
    if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '?' }
}

/// Where the scan of one request stands. Offsets count from the request's first byte.
#[derive(Debug, Default)]
pub struct Scanner {
    stage: Stage,
    /// Everything before this offset is done with.
    at: usize,
    /// Elements not yet seen.
    left: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// At the first byte of a request.
    #[default]
    Start,
    /// Inside an inline line; `at` is where the search for its end goes on.
    Inline,
    /// At a `$` header, or at the end when no element is left.
    Element,
    /// At a body of this many bytes.
    Body(usize),
}

impl Scanner {
    /// Goes on with the request at the front of `buffer`, which holds what it held at the last call
    /// and possibly more. After anything but [`Scanned::Partial`] the scanner is ready for the next
    /// request.
    ///
    /// # Errors
    /// A limit that is passed or a byte that cannot be there. The scanner is of no use afterwards.
    pub fn resume(&mut self, buffer: &[u8], limits: &WireLimits) -> Result<Scanned, ProtocolError> {
        let scanned = self.step(buffer, limits)?;
        if !matches!(scanned, Scanned::Partial { .. }) {
            *self = Self::default();
        }
        Ok(scanned)
    }

    fn step(&mut self, buffer: &[u8], limits: &WireLimits) -> Result<Scanned, ProtocolError> {
        loop {
            match self.stage {
                Stage::Start => match buffer.first() {
                    None => return Ok(MORE),
                    Some(b'*') => {
                        let Some((count, next)) =
                            header(buffer, 0, ProtocolError::ElementCountLength)?
                        else {
                            return Ok(MORE);
                        };
                        let count = count.ok_or(ProtocolError::ElementCount)?;
                        if count <= 0 {
                            return Ok(Scanned::Empty { len: next });
                        }
                        self.left = usize::try_from(count)
                            .ok()
                            .filter(|&count| count <= limits.elements)
                            .ok_or(ProtocolError::ElementCount)?;
                        self.at = next;
                        self.stage = Stage::Element;
                    }
                    Some(_) => self.stage = Stage::Inline,
                },
                Stage::Inline => return self.inline(buffer, limits),
                Stage::Element if self.left == 0 => return Ok(Scanned::Array { len: self.at }),
                Stage::Element => {
                    match buffer.get(self.at) {
                        None => return Ok(MORE),
                        Some(b'$') => {}
                        Some(&byte) => return Err(ProtocolError::ExpectedBulk(byte)),
                    }
                    let Some((len, next)) =
                        header(buffer, self.at, ProtocolError::BulkLengthLength)?
                    else {
                        return Ok(MORE);
                    };
                    let len = len
                        .and_then(|len| usize::try_from(len).ok())
                        .filter(|&len| len <= limits.bulk)
                        .ok_or(ProtocolError::BulkLength)?;
                    if next + len + 2 > limits.request {
                        return Err(ProtocolError::RequestLength);
                    }
                    self.at = next;
                    self.stage = Stage::Body(len);
                }
                Stage::Body(len) => {
                    let end = self.at + len + 2;
                    if buffer.len() < end {
                        let missing = end - buffer.len();
                        return Ok(Scanned::Partial { missing, last: self.left == 1 });
                    }
                    if &buffer[end - 2..end] != b"\r\n" {
                        return Err(ProtocolError::BulkEnd);
                    }
                    self.at = end;
                    self.left -= 1;
                    self.stage = Stage::Element;
                }
            }
        }
    }

    fn inline(&mut self, buffer: &[u8], limits: &WireLimits) -> Result<Scanned, ProtocolError> {
        let Some(found) = buffer[self.at..].iter().position(|&byte| byte == b'\n') else {
            if buffer.len() > limits.inline {
                return Err(ProtocolError::InlineLength);
            }
            self.at = buffer.len();
            return Ok(MORE);
        };
        let end = self.at + found;
        if end > limits.inline {
            return Err(ProtocolError::InlineLength);
        }
        let line = end - usize::from(end > 0 && buffer[end - 1] == b'\r');
        let len = end + 1;
        if buffer[..line].iter().all(u8::is_ascii_whitespace) {
            return Ok(Scanned::Empty { len });
        }
        Ok(Scanned::Inline { line, len })
    }
}

/// Appends where the strings of an array lie that a scan has found whole.
///
/// # Errors
/// [`ProtocolError::OutOfMemory`].
pub fn elements(request: &[u8], ranges: &mut Vec<Range<usize>>) -> Result<(), ProtocolError> {
    // Each has a header of three bytes at least, and two at its end: what is reserved is sent first.
    let (count, mut at) = whole_header(request, 0);
    ranges.try_reserve_exact(count).map_err(|_| ProtocolError::OutOfMemory)?;
    for _ in 0..count {
        let (len, next) = whole_header(request, at);
        ranges.push(next..next + len);
        at = next + len + 2;
    }
    Ok(())
}

/// The number of the header line at `at`, which a scan has passed, and the offset after it.
fn whole_header(request: &[u8], at: usize) -> (usize, usize) {
    match header(request, at, ProtocolError::BulkLength) {
        Ok(Some((Some(number), next))) => (usize::try_from(number).unwrap_or(0), next),
        _ => (0, request.len()),
    }
}

/// Reads the header line at `at`. `None` while its end has not arrived; else its number, if it is
/// one, and the offset after the line.
fn header(
    buffer: &[u8],
    at: usize,
    endless: ProtocolError,
) -> Result<Option<(Option<i64>, usize)>, ProtocolError> {
    let line = &buffer[at..buffer.len().min(at + HEADER)];
    let Some(end) = line.iter().position(|&byte| byte == b'\r') else {
        return if line.len() == HEADER { Err(endless) } else { Ok(None) };
    };
    match line.get(end + 1) {
        Some(b'\n') => Ok(Some((parse_i64(&line[1..end]), at + end + 2))),
        Some(_) => Ok(Some((None, at + end + 2))),
        None if line.len() == HEADER => Err(endless),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(bytes: &[u8]) -> Result<Scanned, ProtocolError> {
        Scanner::default().resume(bytes, &WireLimits::default())
    }

    #[test]
    fn whole_requests() {
        assert_eq!(scan(b"*1\r\n$4\r\nPING\r\n"), Ok(Scanned::Array { len: 14 }));
        assert_eq!(scan(b"*1\r\n$0\r\n\r\n*1"), Ok(Scanned::Array { len: 10 }));
        assert_eq!(scan(b"PING\r\nrest"), Ok(Scanned::Inline { line: 4, len: 6 }));
        assert_eq!(scan(b"PING\n"), Ok(Scanned::Inline { line: 4, len: 5 }));
        assert_eq!(scan(b"\r\n"), Ok(Scanned::Empty { len: 2 }));
        assert_eq!(scan(b"*0\r\nx"), Ok(Scanned::Empty { len: 4 }));
        assert_eq!(scan(b"*-1\r\n"), Ok(Scanned::Empty { len: 5 }));
    }

    #[test]
    fn a_request_in_pieces_is_found_once() {
        let request = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nva\r\nx\r\n";
        let mut scanner = Scanner::default();
        for end in 0..request.len() {
            let scanned = scanner.resume(&request[..end], &WireLimits::default()).unwrap();
            assert!(matches!(scanned, Scanned::Partial { .. }), "at {end}: {scanned:?}");
        }
        let scanned = scanner.resume(request, &WireLimits::default()).unwrap();
        assert_eq!(scanned, Scanned::Array { len: request.len() });
    }

    #[test]
    fn the_missing_bytes_of_a_body_are_known() {
        assert_eq!(scan(b"*1\r\n$100\r\nabc"), Ok(Scanned::Partial { missing: 99, last: true }));
        let missing = 536_870_914;
        assert_eq!(scan(b"*2\r\n$536870912\r\n"), Ok(Scanned::Partial { missing, last: false }));
    }

    #[test]
    fn hostile_headers() {
        use ProtocolError as E;
        assert_eq!(scan(b"*1000000000\r\n"), Err(E::ElementCount));
        assert_eq!(scan(b"*1048577\r\n"), Err(E::ElementCount));
        assert_eq!(scan(b"*99999999999999999999\r\n"), Err(E::ElementCount));
        assert_eq!(scan(b"*abc\r\n"), Err(E::ElementCount));
        assert_eq!(scan(b"*1\rX"), Err(E::ElementCount));
        assert_eq!(scan(b"*1\r\n$-5\r\n"), Err(E::BulkLength));
        assert_eq!(scan(b"*1\r\n$-1\r\n"), Err(E::BulkLength));
        assert_eq!(scan(b"*1\r\n$536870913\r\n"), Err(E::BulkLength));
        assert_eq!(scan(b"*1\r\n$03\r\nfoo\r\n"), Err(E::BulkLength));
        assert_eq!(scan(b"*1\r\n$3\r\nfooXX"), Err(E::BulkEnd));
        assert_eq!(scan(b"*1\r\n*1\r\n*1\r\n"), Err(E::ExpectedBulk(b'*')));
        assert_eq!(scan(b"*1\r\n:5\r\n"), Err(E::ExpectedBulk(b':')));
        let endless = [b"*".as_slice(), &[b'1'; 100]].concat();
        assert_eq!(scan(&endless), Err(E::ElementCountLength));
        let endless = [b"*1\r\n$".as_slice(), &[b'1'; 100]].concat();
        assert_eq!(scan(&endless), Err(E::BulkLengthLength));
        assert_eq!(scan(&vec![b'x'; 65 * 1024]), Err(E::InlineLength));
        let limits = WireLimits { request: 100, ..WireLimits::default() };
        let mut scanner = Scanner::default();
        assert_eq!(scanner.resume(b"*1\r\n$100\r\n", &limits), Err(E::RequestLength));
    }

    #[test]
    fn errors_are_printable() {
        assert_eq!(
            ProtocolError::ExpectedBulk(b'\r').to_string(),
            "ERR Protocol error: expected '$', got '?'"
        );
    }
}
