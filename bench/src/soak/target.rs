//! The server process that is soaked: started from its binary with a configuration file, watched from
//! outside through `/proc`, limited, and ended by signals.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use super::processor;
use super::wire::PATIENCE;
use crate::measure::Resident;

/// The server's settings. Connections of the soak are never closed for being slow machines' victims: a
/// shutdown waits for longer than anything here takes.
const SETTINGS: &str = r#"
resp = "127.0.0.1:0"
admin = "127.0.0.1:0"
workers = 2
shutdown_timeout_seconds = 170

[limits]
output_pubsub = { hard = "4mb" }
"#;

/// Bytes that wait for a subscriber before it is closed, as in the settings.
pub const SUBSCRIBER_LIMIT: usize = 4 << 20;

/// A running server. Dropping it ends the process.
#[derive(Debug)]
pub struct Target {
    child: Child,
    /// Where it speaks RESP.
    pub resp: SocketAddr,
    /// Where it serves `/metrics`.
    pub admin: SocketAddr,
    complaints: PathBuf,
}

impl Target {
    /// Starts `binary serve`; what it prints goes to files in `folder`.
    pub fn start(binary: &Path, folder: &Path) -> io::Result<Target> {
        fs::create_dir_all(folder)?;
        let settings = folder.join("serve.toml");
        fs::write(&settings, SETTINGS)?;
        let (said, complaints) = (folder.join("stdout.txt"), folder.join("stderr.txt"));
        let mut child = Command::new(binary)
            .arg("serve")
            .arg("--config")
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(File::create(&said)?)
            .stderr(File::create(&complaints)?)
            .spawn()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(&said)?;
            if let Some((resp, admin)) = addresses(&text) {
                return Ok(Target { child, resp, admin, complaints });
            }
            if let Some(status) = child.try_wait()? {
                let why = fs::read_to_string(&complaints).unwrap_or_default();
                return Err(io::Error::other(format!("the server ended: {status} {why}")));
            }
            if Instant::now() > deadline {
                // Nothing but the missing addresses is known of it.
                let _ = child.kill();
                let _ = child.wait();
                return Err(io::Error::other("the server does not say where it listens"));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its process.
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// What it wrote to standard error.
    pub fn complaints(&self) -> String {
        fs::read_to_string(&self.complaints).unwrap_or_default()
    }

    /// Present and peak resident set.
    pub fn resident(&self) -> Option<Resident> {
        Resident::parse(&fs::read_to_string(self.proc("status")).ok()?)
    }

    /// Processor time that it has spent.
    pub fn processor_time(&self) -> Option<Duration> {
        let stat = fs::read_to_string(self.proc("stat")).ok()?;
        processor::time_of(&stat, rustix::param::clock_ticks_per_second())
    }

    /// Descriptors that it has open.
    pub fn descriptors(&self) -> io::Result<usize> {
        Ok(fs::read_dir(self.proc("fd"))?.count())
    }

    /// Lets it open descriptors below `limit` only; those above stay open. The limit is lifted again
    /// when the value is dropped.
    pub fn limit_descriptors(&self, limit: u64) -> io::Result<Limited> {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let pid = self.pid();
        let limited = Rlimit { current: Some(limit), maximum };
        let before = prlimit(Some(pid), Resource::Nofile, limited)?;
        Ok(Limited { pid, before })
    }

    /// Asks it to end, as a service manager does.
    pub fn terminate(&self) -> io::Result<()> {
        Ok(kill_process(self.pid(), Signal::TERM)?)
    }

    /// Ends it at once.
    pub fn kill(&self) -> io::Result<()> {
        Ok(kill_process(self.pid(), Signal::KILL)?)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("the server does not end"));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Fetches a page of the admin server.
    pub fn fetch(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.admin, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // Of version 1.0: the body comes in one piece and ends with the connection.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.admin)?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        let broken = || io::Error::other(format!("{path}: not an HTTP reply: {reply:.100}"));
        let (head, body) = reply.split_once("\r\n\r\n").ok_or_else(broken)?;
        match head.split(' ').nth(1) {
            Some("200") => Ok(body.to_owned()),
            _ => Err(broken()),
        }
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.child.id()))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to do about either error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A lowered limit of descriptors.
#[derive(Debug)]
#[must_use]
pub struct Limited {
    pid: Pid,
    before: Rlimit,
}

impl Drop for Limited {
    fn drop(&mut self) {
        // Only a process that has ended refuses, and needs none.
        let _ = prlimit(Some(self.pid), Resource::Nofile, self.before);
    }
}

/// The two addresses that the server prints.
fn addresses(said: &str) -> Option<(SocketAddr, SocketAddr)> {
    let after = |name: &str| said.lines().find_map(|line| Some(line.strip_prefix(name)?.trim()));
    let admin = after("metrics")?.strip_prefix("http://")?.strip_suffix("/metrics")?;
    Some((after("RESP")?.parse().ok()?, admin.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::addresses;

    #[test]
    fn addresses_are_read_once_both_are_there() {
        let resp = "flagstone 0.1.0 | 2 workers\nRESP       127.0.0.1:7379\n";
        assert_eq!(addresses(resp), None);
        let both = format!("{resp}metrics    http://127.0.0.1:9600/metrics\n");
        let (resp, admin) = addresses(&both).unwrap();
        assert_eq!((resp.port(), admin.port()), (7379, 9600));
    }
}
