//! One HTTP GET: enough to read an endpoint as a scraper would.

use super::PATIENCE;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A reply, whole.
#[derive(Debug)]
pub struct HttpReply {
    /// The status code.
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Fetches `path`, or says why not. Version 1.0, so that the body comes unchunked and ends with the
/// connection.
pub fn http_get(addr: SocketAddr, path: &str) -> std::io::Result<HttpReply> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n")?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    let malformed = || std::io::Error::other(format!("not an HTTP reply: {reply:?}"));
    let (head, body) = reply.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(malformed)?;
    Ok(HttpReply { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
}
