//! As much of HTTP/1.1 as a scraper needs: one GET or HEAD, one answer, the connection closes.
//!
//! Owns no state. The head of a request has 8 KiB and a few seconds; its body, if any, is not read.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use flagstone_slab::Heap;
use flagstone_telemetry::prometheus::{CONTENT_TYPE, Exporter};
use flagstone_telemetry::{Options, Snapshot};

/// Bytes of a request's head, at most.
const HEAD_MAX: usize = 8 << 10;
/// How long a client may take over its head, however steadily it writes.
const HEAD_TIME: Duration = Duration::from_secs(3);

/// Reads a request and answers it.
pub(crate) fn answer<S: Read + Write + ?Sized>(
    stream: &mut S,
    exporter: &Exporter,
) -> io::Result<()> {
    let head = read_head(stream)?;
    let line = head.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
    let (status, kind, body) = match (method, path) {
        (b"GET" | b"HEAD", b"/metrics") => {
            let snapshot = Snapshot::take(Heap::global());
            ("200 OK", CONTENT_TYPE, exporter.render(&snapshot, Options::default()))
        }
        (b"GET" | b"HEAD", b"/stats.json") => {
            ("200 OK", "application/json", crate::stats::json_text())
        }
        (b"GET" | b"HEAD", b"/") => {
            ("200 OK", "text/plain; charset=utf-8", "/metrics\n/stats.json\n".to_owned())
        }
        (_, b"/metrics" | b"/stats.json" | b"/") => {
            ("405 Method Not Allowed", "text/plain; charset=utf-8", "GET or HEAD\n".to_owned())
        }
        _ => ("404 Not Found", "text/plain; charset=utf-8", "not found\n".to_owned()),
    };
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}\
         Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    if method != b"HEAD" {
        stream.write_all(body.as_bytes())?;
    }
    stream.flush()
}

/// The request's head, up to the empty line.
fn read_head<S: Read + ?Sized>(stream: &mut S) -> io::Result<Vec<u8>> {
    let begun = Instant::now();
    let mut head = Vec::with_capacity(512);
    let mut part = [0; 512];
    loop {
        let read = stream.read(&mut part)?;
        head.extend_from_slice(&part[..read]);
        if head.windows(4).any(|end| end == b"\r\n\r\n")
            || head.windows(2).any(|end| end == b"\n\n")
        {
            return Ok(head);
        }
        if read == 0 || head.len() > HEAD_MAX || begun.elapsed() > HEAD_TIME {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Wire<'a>(&'a [u8], Vec<u8>);

    impl Read for Wire<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            self.0.read(to)
        }
    }

    impl Write for Wire<'_> {
        fn write(&mut self, from: &[u8]) -> io::Result<usize> {
            self.1.write(from)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn ask(request: &[u8]) -> Option<String> {
        let mut wire = Wire(request, Vec::new());
        answer(&mut wire, &Exporter::local()).ok()?;
        Some(String::from_utf8(wire.1).expect("UTF-8"))
    }

    #[test]
    fn figures_are_served_in_both_forms() {
        let metrics = ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("an answer");
        assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n") && metrics.contains(CONTENT_TYPE));
        assert!(metrics.contains("\nflagstone_mapped_bytes"));
        let json = ask(b"GET /stats.json?x HTTP/1.1\r\n\r\n").expect("an answer");
        let (head, body) = json.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }

    #[test]
    fn other_requests_are_refused_as_http_wants_it() {
        let head = ask(b"HEAD /metrics HTTP/1.1\r\n\r\n").expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"));
        assert!(ask(b"POST /metrics HTTP/1.1\r\n\r\n").expect("an answer").contains("\r\nAllow:"));
        assert!(ask(b"GET /metricsx HTTP/1.1\r\n\r\n").expect("an answer").contains(" 404 "));
        assert!(ask(b"\r\n\r\n").expect("an answer").contains(" 404 "));
        assert_eq!(ask(b"GET /metrics HTTP/1.1\r\n"), None, "cut short");
        assert_eq!(ask(&b"x".repeat(3 * HEAD_MAX)), None, "too long");
    }
}
