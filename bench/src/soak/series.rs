//! redis-benchmark beside the clients of ours, one series of its tests after the other.
//!
//! It asks as fast as it is answered. Where one server is soaked, that goes on for the whole of the churn
//! and keeps the machine busy. Of several at once each has one series in a round, when it is its turn, so
//! that all are loaded by the same and the latencies are not those of a machine without idle time.

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::checks::Check;
use super::scene::Scene;

/// The tests: what they push they also pop.
const TESTS: &str = "set,get,incr,lpush,rpush,lpop,rpop,mset";

/// The series of one churn.
#[derive(Debug)]
pub struct Series<'a> {
    scene: &'a Scene<'a>,
    began: Instant,
    /// When the next one begins, from the beginning of the churn; none after the last.
    next: Option<Duration>,
    again: bool,
    running: Option<Child>,
}

impl<'a> Series<'a> {
    /// Series from `turn` on: one, or one after the other.
    pub fn new(scene: &'a Scene<'a>, turn: Duration, again: bool) -> Series<'a> {
        Series { scene, began: Instant::now(), next: Some(turn), again, running: None }
    }

    /// Begins what is due, looks at what runs.
    pub fn tend(&mut self) {
        if let Some(running) = &mut self.running {
            let ended = running.try_wait();
            match ended {
                Ok(None) => return,
                Ok(Some(status)) => self.judge(Ok(status)),
                Err(error) => self.judge(Err(error)),
            }
            self.running = None;
        }
        if self.next.is_some_and(|next| self.began.elapsed() >= next) {
            self.next = self.again.then_some(Duration::ZERO);
            match self.start() {
                Ok(child) => self.running = Some(child),
                Err(error) => self.judge(Err(error)),
            }
        }
    }

    /// Waits for what runs.
    pub fn finish(mut self) {
        if let Some(mut running) = self.running.take() {
            self.judge(running.wait());
        }
    }

    fn judge(&self, ended: io::Result<std::process::ExitStatus>) {
        match ended {
            Ok(status) if status.success() => self.scene.count("redis-benchmark series", 1),
            Ok(status) => self.broke(&status.to_string()),
            Err(error) => self.broke(&error.to_string()),
        }
    }

    fn broke(&self, what: &str) {
        self.scene.ledger.broke(Check::Replies, format!("redis-benchmark: {what}"));
    }

    fn start(&self) -> io::Result<Child> {
        let address = self.scene.target.resp;
        Command::new("redis-benchmark")
            .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
            .args(["-c", "20", "-P", "4", "-r", "5000", "-d", "200", "-t", TESTS, "-q"])
            .args(["-n", &self.scene.plan.series().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    }
}
