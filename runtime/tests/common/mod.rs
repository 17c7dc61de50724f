//! An HTTP client made of bytes, so that tests can be as rude as they need; and an admin server to
//! talk to.
#![allow(dead_code, reason = "each test binary uses a part of this module")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use flagstone::admin::{self, Config};
use tokio::sync::oneshot;

/// Far longer than anything here can take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Any free port of the loopback interface.
pub fn config() -> Config {
    Config::new(([127, 0, 0, 1], 0))
}

/// An admin server on a runtime of its own. Dropping it shuts both down.
pub struct Server {
    pub addr: SocketAddr,
    pub figures: admin::Figures,
    shutdown: Option<oneshot::Sender<()>>,
    served: Option<tokio::task::JoinHandle<()>>,
    runtime: tokio::runtime::Runtime,
}

impl Server {
    pub fn start(config: Config) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let admin = runtime.block_on(admin::bind(config)).expect("a free port");
        let (addr, figures) = (admin.local_addr(), admin.figures());
        let (shutdown, asked) = oneshot::channel();
        let served = runtime.spawn(admin.serve(async {
            let _ = asked.await;
        }));
        Self { addr, figures, shutdown: Some(shutdown), served: Some(served), runtime }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    /// GET on a connection of its own.
    pub fn get(&self, path: &str) -> Response {
        self.connect()
            .request(&format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"))
    }

    /// Asks the server to shut down, without waiting.
    pub fn ask_to_stop(&mut self) {
        let _ = self.shutdown.take().expect("not asked before").send(());
    }

    /// Waits until it has shut down.
    pub fn wait_until_stopped(&mut self) {
        let served = self.served.take().expect("not waited before");
        self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, served)
                .await
                .expect("it stops")
                .expect("it does not panic");
        });
    }
}

/// A connection.
pub struct Client {
    pub stream: TcpStream,
    /// Bytes read beyond the last response.
    rest: Vec<u8>,
}

/// A response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        Self { stream, rest: Vec::new() }
    }

    pub fn send(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).expect("send");
    }

    /// Sends a request and reads its response.
    pub fn request(&mut self, bytes: &str) -> Response {
        self.send(bytes);
        self.response(!bytes.starts_with("HEAD"))
    }

    /// GET that keeps the connection.
    pub fn get(&mut self, path: &str) -> Response {
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"))
    }

    /// Reads one response, whole; its body by `Content-Length`.
    pub fn response(&mut self, has_body: bool) -> Response {
        let end = loop {
            if let Some(at) = self.rest.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            self.fill("a response's head");
        };
        let head = String::from_utf8(self.rest[..end].to_vec()).expect("text");
        self.rest.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|l| l.split(' ').nth(1)).expect("a status line");
        let headers: Vec<_> = lines
            .filter_map(|l| l.split_once(": "))
            .map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned()))
            .collect();
        let mut response =
            Response { status: status.parse().expect("a status"), headers, body: String::new() };
        if has_body {
            let length =
                response.header("content-length").map_or(0, |l| l.parse().expect("length"));
            while self.rest.len() < length {
                self.fill("a response's body");
            }
            response.body = String::from_utf8(self.rest.drain(..length).collect()).expect("text");
        }
        response
    }

    /// Waits for the server to close the connection; gives what came before.
    pub fn until_closed(&mut self) -> String {
        let mut bytes = std::mem::take(&mut self.rest);
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            // Closed with something of ours unread.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(e) => panic!("waiting for the end of the connection: {e}"),
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn fill(&mut self, what: &str) {
        let mut buffer = [0; 4096];
        let n = self.stream.read(&mut buffer).unwrap_or_else(|e| panic!("reading {what}: {e}"));
        assert!(n > 0, "the connection ended before {what}");
        self.rest.extend_from_slice(&buffer[..n]);
    }
}

/// Polls until `is_so`, far longer than it can take.
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
