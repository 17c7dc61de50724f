//! Figures of the process: version, start, uptime, threads.
//!
//! On Linux they come from `/proc`. The start is read once and kept, because the wall clock may be
//! set later and a start time that moves looks like a restart; uptime then follows the monotonic
//! clock.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

/// The process at the moment of a snapshot. Figures that the platform does not tell are `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessSnapshot {
    /// Version of Flagstone that is compiled in.
    pub version: &'static str,
    /// `debug` or `release`: whether Flagstone was compiled with debug assertions.
    pub profile: &'static str,
    /// Process number.
    pub pid: u32,
    /// When the process started.
    pub started: Option<SystemTime>,
    /// Time since then.
    pub uptime: Option<Duration>,
    /// Threads of the process.
    pub threads: Option<u64>,
}

impl Default for ProcessSnapshot {
    /// The parts that need no reading: version, profile and process number.
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" },
            pid: std::process::id(),
            started: None,
            uptime: None,
            threads: None,
        }
    }
}

impl ProcessSnapshot {
    /// Reads the process now.
    #[must_use]
    pub fn take() -> Self {
        let birth = birth();
        Self {
            started: birth.map(|b| b.started),
            uptime: birth.map(|b| b.uptime_then + b.then.elapsed()),
            threads: platform::threads(),
            ..Self::default()
        }
    }
}

/// Where the process stood in time when this was first asked.
#[derive(Clone, Copy)]
struct Birth {
    started: SystemTime,
    uptime_then: Duration,
    then: Instant,
}

fn birth() -> Option<Birth> {
    static BIRTH: OnceLock<Birth> = OnceLock::new();
    if let Some(birth) = BIRTH.get() {
        return Some(*birth);
    }
    // A failed reading (no descriptor free, say) is not kept: the next snapshot tries again.
    let uptime_then = platform::uptime()?;
    let started = SystemTime::now().checked_sub(uptime_then)?;
    Some(*BIRTH.get_or_init(|| Birth { started, uptime_then, then: Instant::now() }))
}

#[cfg(target_os = "linux")]
mod platform {
    use std::time::Duration;

    use procfs::process::Process;
    use procfs::{Current, Uptime};

    /// Time since the process started.
    pub(super) fn uptime() -> Option<Duration> {
        let started_ticks = Process::myself().ok()?.stat().ok()?.starttime;
        let started = started_ticks as f64 / procfs::ticks_per_second() as f64;
        let now = Uptime::current().ok()?.uptime;
        Duration::try_from_secs_f64((now - started).max(0.0)).ok()
    }

    /// Threads of the process.
    pub(super) fn threads() -> Option<u64> {
        u64::try_from(Process::myself().ok()?.stat().ok()?.num_threads).ok()
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use std::time::Duration;

    pub(super) fn uptime() -> Option<Duration> {
        None
    }

    pub(super) fn threads() -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_does_not_move_and_the_uptime_grows() {
        let first = ProcessSnapshot::take();
        let second = ProcessSnapshot::take();
        assert_eq!(first.started, second.started);
        assert!(second.uptime >= first.uptime);
        assert_eq!(first.version, env!("CARGO_PKG_VERSION"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_tells_everything() {
        let gate = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| gate.wait());
            let process = ProcessSnapshot::take();
            gate.wait();
            assert!(process.threads.expect("threads") >= 2);
            let started = process.started.expect("start");
            assert!(started <= SystemTime::now());
            // The test process is younger than a day and older than nothing.
            assert!(process.uptime.expect("uptime") < Duration::from_secs(86_400));
        });
    }
}
