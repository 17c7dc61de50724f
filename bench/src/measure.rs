//! What a worker measures of itself: wall time, processor time, page faults, resident set.
//!
//! Reads from the kernel go through a buffer on the stack, so that measuring does not allocate.

use std::time::{Duration, Instant};

/// A measured part under way. Workloads prepare, start one, do the counted work, and stop it.
#[derive(Debug)]
pub struct Section {
    usage: Usage,
    started: Instant,
}

/// What a [`Section`] saw between its start and its stop.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Wall time in seconds.
    pub seconds: f64,
    /// Processor time of all threads, user and system, in seconds.
    pub cpu_seconds: f64,
    /// Page faults served without input or output.
    pub minor_faults: u64,
}

impl Section {
    /// Starts measuring.
    pub fn start() -> Section {
        Section { usage: Usage::now(), started: Instant::now() }
    }

    /// Ends the measured part.
    pub fn stop(self) -> Measured {
        let seconds = self.started.elapsed().as_secs_f64();
        let usage = Usage::now();
        Measured {
            seconds,
            cpu_seconds: usage.cpu.saturating_sub(self.usage.cpu).as_secs_f64(),
            minor_faults: usage.minor_faults.saturating_sub(self.usage.minor_faults),
        }
    }
}

/// The resident set of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// Largest resident set since the process began (`VmHWM`), in bytes.
    pub peak: u64,
    /// Resident set now (`VmRSS`), in bytes.
    pub current: u64,
}

impl Resident {
    /// Of this process; zeros where the platform does not tell.
    pub fn of_self() -> Resident {
        read_status(c"/proc/self/status").unwrap_or_default()
    }

    /// Reads both figures out of the text of a `/proc/<pid>/status` file.
    pub fn parse(status: &str) -> Option<Resident> {
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            let kib: u64 = line[name.len()..].trim().strip_suffix(" kB")?.trim().parse().ok()?;
            Some(kib * 1024)
        };
        Some(Resident { peak: field("VmHWM:")?, current: field("VmRSS:")? })
    }
}

#[derive(Clone, Copy, Debug)]
struct Usage {
    cpu: Duration,
    minor_faults: u64,
}

impl Usage {
    fn now() -> Usage {
        // SAFETY: `rusage` is plain numbers, for which zero is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a value that lives through the call.
        let rc = unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
        assert_eq!(rc, 0, "getrusage of the own process cannot fail");
        let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
        Usage {
            cpu: time(usage.ru_utime) + time(usage.ru_stime),
            minor_faults: usage.ru_minflt as u64,
        }
    }
}

fn read_status(path: &std::ffi::CStr) -> Option<Resident> {
    let mut buffer = [0u8; 8192];
    // SAFETY: the path is a C string; the call returns a descriptor or -1.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        return None;
    }
    // SAFETY: the buffer is as long as said and outlives the call.
    let read = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
    // SAFETY: the descriptor was opened above and is closed once.
    unsafe { libc::close(fd) };
    let text = buffer.get(..usize::try_from(read).ok()?)?;
    Resident::parse(std::str::from_utf8(text).ok()?)
}

#[cfg(test)]
mod tests {
    use super::{Resident, Section};

    #[test]
    fn status_text_is_parsed() {
        let text =
            "Name:\tx\nVmPeak:\t 9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t1\n";
        assert_eq!(Resident::parse(text), Some(Resident { peak: 2 << 20, current: 1 << 20 }));
        assert_eq!(Resident::parse("VmHWM:\t12 pages\n"), None);
        assert_eq!(Resident::parse(""), None);
    }

    #[test]
    fn this_process_is_resident_and_peaks_with_a_large_block() {
        let before = Resident::of_self();
        assert!(before.current > 0 && before.peak >= before.current / 2);
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        drop(block);
        assert!(Resident::of_self().peak >= 64 << 20);
    }

    #[test]
    fn a_section_sees_time_and_faults() {
        let section = Section::start();
        let block = std::hint::black_box(vec![1u8; 32 << 20]);
        let measured = section.stop();
        drop(block);
        assert!(measured.seconds > 0.0);
        assert!(measured.minor_faults > 0);
    }
}
