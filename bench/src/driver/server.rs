//! A RESP server under test: started on loopback, asked, loaded with redis-benchmark, and ended.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::measure::Resident;

/// How long a server may take until it answers its first PING.
const START: Duration = Duration::from_secs(20);
/// Ports tried before a server counts as one that does not start.
const ATTEMPTS: u32 = 3;
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A running server. Dropping it ends the process.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddrV4,
}

impl Server {
    /// Starts what `command` makes for a free port, and waits until it answers.
    pub fn start(mut command: impl FnMut(SocketAddrV4) -> Command) -> io::Result<Server> {
        let mut attempt = 1;
        loop {
            match Server::attempt(&mut command) {
                // Another process may have taken the port meanwhile: once more with another one.
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    fn attempt(command: &mut impl FnMut(SocketAddrV4) -> Command) -> io::Result<Server> {
        let address = free_address()?;
        let child = command(address)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut server = Server { child, address };
        let deadline = Instant::now() + START;
        loop {
            if let Some(status) = server.child.try_wait()? {
                return Err(io::Error::other(format!("the server ended at once: {status}")));
            }
            match server.ask(&["PING"]) {
                Ok(answer) if answer == "PONG" => return Ok(server),
                Ok(answer) => return Err(io::Error::other(format!("PING got `{answer}`"))),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// The value of a field of `INFO memory`.
    pub fn memory_field(&self, name: &str) -> io::Result<Option<String>> {
        let info = self.ask(&["INFO", "memory"])?;
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(value.map(|value| value.trim().to_owned()))
    }

    /// Peak and present resident set of the process.
    pub fn resident(&self) -> Option<Resident> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        Resident::parse(&status)
    }

    /// Page faults of the process without input or output.
    pub fn minor_faults(&self) -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // The name in parentheses may hold anything; what follows it is fields.
        let (_, fields) = stat.rsplit_once(") ")?;
        fields.split(' ').nth(7)?.parse().ok()
    }

    /// One command, one answer: a simple string or a bulk string.
    fn ask(&self, command: &[&str]) -> io::Result<String> {
        let stream = TcpStream::connect_timeout(&self.address.into(), ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut request = format!("*{}\r\n", command.len());
        for word in command {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        (&stream).write_all(request.as_bytes())?;
        read_answer(&mut BufReader::new(stream))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to do about either error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback address with a port that was free a moment ago.
pub fn free_address() -> io::Result<SocketAddrV4> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

fn read_answer(from: &mut impl BufRead) -> io::Result<String> {
    let mut head = String::new();
    from.read_line(&mut head)?;
    let head = head.trim_end();
    let broken = || io::Error::other(format!("unexpected answer `{head}`"));
    match head.split_at_checked(1) {
        Some(("+", text)) => Ok(text.to_owned()),
        Some(("$", length)) => {
            let length: usize = length.parse().map_err(|_| broken())?;
            let mut bytes = vec![0; length];
            from.read_exact(&mut bytes)?;
            String::from_utf8(bytes).map_err(|_| broken())
        }
        _ => Err(broken()),
    }
}

/// One line of redis-benchmark's CSV.
#[derive(Clone, Debug, PartialEq)]
pub struct Throughput {
    /// The test's name as given to `-t`.
    pub test: String,
    /// Requests per second.
    pub requests_per_second: f64,
}

/// Runs redis-benchmark against `address`: each of `tests` with `requests` requests.
pub fn redis_benchmark(
    address: SocketAddrV4,
    tests: &[&str],
    requests: u64,
) -> Result<Vec<Throughput>, String> {
    let output = Command::new("redis-benchmark")
        .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
        .args(["-t", &tests.join(","), "-P", "16", "-c", "50", "-r", "100000"])
        .args(["-n", &requests.to_string(), "--csv"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("redis-benchmark: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || said.contains("Error") {
        return Err(format!("redis-benchmark: {} {said} {errors}", output.status));
    }
    let results = parse_csv(&said);
    for test in tests {
        if !results.iter().any(|result| result.test == *test) {
            return Err(format!("redis-benchmark did not report {test}: {said} {errors}"));
        }
    }
    Ok(results)
}

/// The tests of a CSV. What redis-benchmark runs only to prepare another test is left out.
fn parse_csv(text: &str) -> Vec<Throughput> {
    text.lines()
        .filter(|line| !line.contains("needed to benchmark"))
        .filter_map(|line| {
            let mut fields = line.strip_prefix('"')?.split("\",\"");
            let test = fields.next()?.split(' ').next()?.to_lowercase();
            let requests_per_second = fields.next()?.parse().ok()?;
            Some(Throughput { test, requests_per_second })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::build::is_installed;

    #[test]
    fn csv_is_read_without_its_head_and_preparations() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\"\n\
                    \"SET\",\"1000000.00\",\"0.5\"\n\
                    \"LPUSH (needed to benchmark LRANGE)\",\"9.0\",\"1\"\n\
                    \"LRANGE_100 (first 100 elements)\",\"50000.50\",\"1\"\n";
        let results = parse_csv(text);
        let names: Vec<&str> = results.iter().map(|result| result.test.as_str()).collect();
        assert_eq!(names, ["set", "lrange_100"]);
        assert!((results[1].requests_per_second - 50_000.5).abs() < 1e-9);
    }

    #[test]
    fn answers_are_read() {
        let read = |text: &str| read_answer(&mut text.as_bytes());
        assert_eq!(read("+PONG\r\n").unwrap(), "PONG");
        assert_eq!(read("$5\r\na\r\nbc\r\n").unwrap(), "a\r\nbc");
        assert!(read("-ERR no\r\n").is_err());
        assert!(read("").is_err());
        assert!(read("$9\r\nshort\r\n").is_err());
    }

    // requirement: Z3 (the measuring path itself works against a server that is known good)
    #[test]
    fn a_real_server_is_started_asked_loaded_and_ended() {
        if !is_installed("redis-server") || !is_installed("redis-benchmark") {
            println!("skipped: redis-server and redis-benchmark are not installed");
            return;
        }
        let server = Server::start(|address| {
            let mut command = Command::new("redis-server");
            command.args(["--bind", &address.ip().to_string(), "--save", ""]);
            command.args(["--port", &address.port().to_string()]);
            command
        })
        .expect("redis-server starts");
        assert!(server.memory_field("mem_allocator").unwrap().is_some());
        assert_eq!(server.memory_field("no_such_field").unwrap(), None);
        let results =
            redis_benchmark(server.address(), &["set", "lrange_100", "mset"], 500).unwrap();
        assert_eq!(results.len(), 3);
        assert!(results.iter().all(|result| result.requests_per_second > 0.0));
        assert!(server.resident().unwrap().peak > 0);
        assert!(server.minor_faults().unwrap() > 0);
        let address = server.address();
        drop(server);
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn a_program_that_ends_at_once_is_no_server() {
        let error = Server::start(|_| Command::new("false")).unwrap_err();
        assert!(error.to_string().contains("ended at once"), "{error}");
    }
}
