//! The server under test: started on free ports, found by the lines that it prints.

use super::{PATIENCE, Running, poll};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitStatus};

/// A running `flagstone serve`.
pub struct Server {
    /// The process.
    pub process: Running,
    /// Where it speaks RESP.
    pub resp: SocketAddr,
    /// Where it serves `/metrics`.
    pub admin: SocketAddr,
}

impl Server {
    /// Starts the server with these flags on free ports of the loopback interface.
    pub fn start(flags: &[&str]) -> Self {
        let mut process = Running::start(
            serve(flags).args(["--resp", "127.0.0.1:0"]).args(["--admin", "127.0.0.1:0"]),
        );
        let (resp, admin) = poll("the server's lines about its addresses", || {
            if let Some(status) = process.ended() {
                panic!("the server ended at once: {status}");
            }
            let lines = process.stdout();
            Some((announced(&lines, "resp")?, announced(&lines, "metrics")?))
        });
        Self { process, resp, admin }
    }

    /// Asks the server to end and waits until it has.
    pub fn terminate(mut self) -> ExitStatus {
        super::signal_terminate(self.process.id());
        self.process.wait()
    }

    /// `redis-cli` or `redis-benchmark`, pointed at this server.
    pub fn client(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new(program);
        command.args(["-h", &self.resp.ip().to_string(), "-p", &self.resp.port().to_string()]);
        command
    }
}

/// Runs `flagstone serve` with flags that it must refuse: exit status 2 and one line, which is
/// returned.
pub fn refuse_to_start(flags: &[&str]) -> String {
    let mut process = Running::start(&mut serve(flags));
    let status = process.wait();
    assert_eq!(status.code(), Some(2), "{flags:?}\n{}", process.transcript());
    assert_eq!(process.stdout(), Vec::<String>::new(), "{flags:?}");
    let [line] = <[String; 1]>::try_from(process.stderr())
        .unwrap_or_else(|lines| panic!("{flags:?}: want one line, got {lines:#?}"));
    line
}

/// A raw connection to the server.
pub fn resp_connection(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn serve(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flagstone"));
    command.arg("serve").args(flags);
    command
}

/// The address on a line that speaks of `subject`.
fn announced(lines: &[String], subject: &str) -> Option<SocketAddr> {
    lines.iter().filter(|line| line.to_ascii_lowercase().contains(subject)).find_map(|line| {
        line.split(|c: char| !(c.is_ascii_digit() || ".:".contains(c)))
            .find_map(|word| word.trim_matches(':').parse().ok())
    })
}
