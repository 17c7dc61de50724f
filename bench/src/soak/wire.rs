//! A client of ours: one connection that speaks RESP2, blocking, and can misbehave.
//!
//! Nothing that comes back is skipped: a reply is decoded whole, and a connection that ends inside one
//! is an error of another kind than one that ends between two.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use redis_protocol::resp2::decode::decode;
pub use redis_protocol::resp2::types::OwnedFrame as Frame;
use socket2::SockRef;

/// How long anything that must happen may take. It only bounds a failure, so it is longer than any
/// time for which a busy machine lets a process wait.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Room for one read.
const CHUNK: usize = 64 * 1024;

/// One connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
    /// What is sent with the next flush.
    queued: Vec<u8>,
}

/// What a wait for a reply ended with.
#[derive(Debug, PartialEq)]
pub enum Received {
    /// A reply.
    Frame(Frame),
    /// The server has closed the connection, after a whole reply.
    End,
    /// Nothing came in time.
    Silence,
}

impl Wire {
    /// Connects.
    pub fn connect(address: SocketAddr) -> io::Result<Wire> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Wire { stream, unread: Vec::new(), queued: Vec::new() })
    }

    /// Adds a command to what the next flush sends.
    pub fn queue(&mut self, words: &[&[u8]]) {
        encode(&mut self.queued, words);
    }

    /// Sends what is queued.
    pub fn flush(&mut self) -> io::Result<()> {
        let result = self.stream.write_all(&self.queued);
        self.queued.clear();
        self.queued.shrink_to(CHUNK);
        result
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// One command, one reply.
    pub fn ask(&mut self, words: &[&[u8]]) -> io::Result<Frame> {
        self.queue(words);
        self.flush()?;
        self.receive()
    }

    /// [`ask`](Self::ask) with a command of words.
    pub fn ask_words(&mut self, command: &str) -> io::Result<Frame> {
        let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        self.ask(&words)
    }

    /// The next reply.
    ///
    /// # Errors
    /// The connection broke or ended, or nothing came within [`PATIENCE`].
    pub fn receive(&mut self) -> io::Result<Frame> {
        match self.receive_within(PATIENCE)? {
            Received::Frame(frame) => Ok(frame),
            Received::End => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "closed")),
            Received::Silence => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no reply within {} s", PATIENCE.as_secs()),
            )),
        }
    }

    /// The next reply, if it comes within `time`.
    ///
    /// # Errors
    /// The connection broke, or ended inside a reply ([`io::ErrorKind::UnexpectedEof`]).
    pub fn receive_within(&mut self, time: Duration) -> io::Result<Received> {
        let deadline = Instant::now() + time;
        loop {
            let decoded = decode(&self.unread)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            if let Some((frame, length)) = decoded {
                self.unread.drain(..length);
                return Ok(Received::Frame(frame));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Received::Silence);
            }
            self.stream.set_read_timeout(Some(left))?;
            let filled = self.unread.len();
            self.unread.resize(filled + CHUNK, 0);
            let read = self.stream.read(&mut self.unread[filled..]);
            self.unread.truncate(filled + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) if filled == 0 => return Ok(Received::End),
                Ok(0) => {
                    let what = format!("the connection ended {filled} bytes into a reply");
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
                }
                Ok(_) => {}
                Err(error) if is_timeout(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A number from `INFO`.
    pub fn info(&mut self, field: &str) -> io::Result<u64> {
        let reply = self.ask(&[b"INFO"])?;
        let Frame::BulkString(text) = reply else {
            return Err(io::Error::other(format!("INFO got {reply:?}")));
        };
        let text = String::from_utf8_lossy(&text);
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value
            .and_then(|value| value.trim().parse().ok())
            .ok_or_else(|| io::Error::other(format!("INFO has no number {field}")))
    }

    /// A second handle of the socket, for a thread that only writes.
    pub fn writer(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// Sends nothing more; replies can still come.
    pub fn half_close(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Goes away as the system does it for a process that was killed with unread input: a reset.
    pub fn abort(self) {
        // If it cannot be set, the connection ends in the ordinary way, which also is an end.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}

/// Appends a command as an array of bulk strings.
pub fn encode(into: &mut Vec<u8>, words: &[&[u8]]) {
    into.extend(format!("*{}\r\n", words.len()).bytes());
    for word in words {
        into.extend(format!("${}\r\n", word.len()).bytes());
        into.extend_from_slice(word);
        into.extend(b"\r\n");
    }
}

/// The reply `+OK`.
pub fn ok() -> Frame {
    Frame::SimpleString(b"OK".to_vec())
}

/// Whether a write was refused at the memory cap.
pub fn is_oom(frame: &Frame) -> bool {
    matches!(frame, Frame::Error(text) if text.starts_with("OOM "))
}

/// A reply in few words, for a violation.
pub fn describe(frame: &Frame) -> String {
    match frame {
        Frame::BulkString(bytes) if bytes.len() > 40 => {
            format!("a string of {} bytes", bytes.len())
        }
        Frame::BulkString(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        Frame::SimpleString(bytes) => format!("+{}", String::from_utf8_lossy(bytes)),
        Frame::Array(items) => format!("an array of {}", items.len()),
        Frame::Error(text) => format!("-{text}"),
        Frame::Integer(n) => format!(":{n}"),
        Frame::Null => String::from("null"),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A server that sends `bytes` and closes.
    fn served(bytes: &'static [u8]) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || listener.accept().unwrap().0.write_all(bytes).unwrap());
        Wire::connect(address).unwrap()
    }

    #[test]
    fn replies_are_decoded_and_the_end_is_told_from_a_cut() {
        let mut wire = served(b"+OK\r\n:5\r\n$2\r\nab\r\n*1\r\n$-1\r\n");
        assert_eq!(wire.receive().unwrap(), ok());
        assert_eq!(wire.receive().unwrap(), Frame::Integer(5));
        assert_eq!(wire.receive().unwrap(), Frame::BulkString(b"ab".to_vec()));
        assert_eq!(wire.receive().unwrap(), Frame::Array(vec![Frame::Null]));
        assert_eq!(wire.receive_within(PATIENCE).unwrap(), Received::End);
        let mut cut = served(b"+OK\r\n$10\r\nabc");
        assert_eq!(cut.receive().unwrap(), ok());
        assert_eq!(cut.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn silence_is_neither() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut wire = Wire::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(wire.receive_within(Duration::from_millis(20)).unwrap(), Received::Silence);
    }

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        let mut bytes = Vec::new();
        encode(&mut bytes, &[b"GET", b""]);
        assert_eq!(bytes, b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n");
        assert!(is_oom(&Frame::Error(String::from("OOM command not allowed"))));
        assert!(!is_oom(&Frame::Error(String::from("ERR OOM"))));
    }
}
