//! Processor time: a process's own, and how busy the machine is. Latencies of a machine without idle time
//! say how long its queue was, not how fast a server is.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// Time that a process has spent on processors, user and system, its ended threads included; from the
/// text of `/proc/<pid>/stat`.
pub fn time_of(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    // The name in parentheses may hold anything; fields are counted behind it, the state being the third.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = ticks(14)? + ticks(15)?;
    Some(Duration::from_secs_f64(ticks as f64 / ticks_per_second as f64))
}

/// Ticks of all processors since the machine started: busy ones and all. Time that the machine's host
/// gave to others counts as busy: nobody here had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    busy: u64,
    all: u64,
}

impl Ticks {
    /// Now; none where the system does not tell.
    pub fn now() -> Option<Ticks> {
        Ticks::parse(&fs::read_to_string(Path::new("/proc/stat")).ok()?)
    }

    /// Of the text of `/proc/stat`: user, nice, system, idle, waiting for disks, interrupts, soft
    /// interrupts, stolen. What follows is part of the first two.
    fn parse(text: &str) -> Option<Ticks> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = line
            .split_ascii_whitespace()
            .take(8)
            .map(|ticks| ticks.parse().ok())
            .collect::<Option<_>>()?;
        let [_, _, _, idle, disks, ..] = ticks[..] else { return None };
        let all: u64 = ticks.iter().sum();
        Some(Ticks { busy: all - idle - disks, all })
    }

    /// Which share of the time since `before` the processors were busy, from 0 to 1.
    pub fn busy_since(self, before: Ticks) -> Option<f64> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)?;
        Some(self.busy.checked_sub(before.busy)? as f64 / all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_process_is_read_behind_its_name() {
        let stat = "17 (a) b c) S 1 2 3 4 5 6 7 8 9 10 250 50 7 7 20 0 3 0 99";
        assert_eq!(time_of(stat, 100), Some(Duration::from_secs(3)));
        assert_eq!(time_of("17 (a) S 1 2", 100), None);
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        assert!(time_of(&own, 100).is_some());
    }

    #[test]
    fn busy_is_what_is_not_idle() {
        let at = |text: &str| Ticks::parse(text).unwrap();
        let before = at("cpu  10 0 10 100 0 0 0 0 5 5\ncpu0 1 1 1 1\n");
        let after = at("cpu  20 0 20 120 10 0 0 0 9 9\n");
        assert_eq!(after.busy_since(before), Some(0.4));
        assert_eq!(before.busy_since(before), None);
        assert_eq!(Ticks::parse("cpu0 1 2 3 4 5\n"), None);
        assert!(Ticks::now().is_some());
    }
}
