//! The machine and the sources of a report, as far as the kernel and git tell.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// Where and from what a report was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Host {
    /// Model name of the first processor.
    pub cpu: String,
    /// Processors that this process may use.
    pub cpus: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Kernel release.
    pub kernel: String,
    /// The kernel's setting for transparent huge pages.
    pub huge_pages: String,
    /// Commit of the sources, with `-dirty` if they were changed since.
    pub commit: String,
    /// Seconds since 1970 when the report was begun.
    pub unix_time: u64,
}

impl Host {
    /// Asks; what cannot be found out is `unknown` or zero.
    pub fn look(workspace: &Path) -> Host {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Host {
            cpu: field(&cpuinfo, "model name").unwrap_or_else(unknown),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: field(&meminfo, "MemTotal")
                .and_then(|text| text.strip_suffix(" kB")?.trim().parse::<u64>().ok())
                .map_or(0, |kib| kib * 1024),
            kernel: read_line("/proc/sys/kernel/osrelease"),
            huge_pages: chosen(&read_line("/sys/kernel/mm/transparent_hugepage/enabled")),
            commit: commit(workspace),
            unix_time: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        }
    }
}

fn unknown() -> String {
    String::from("unknown")
}

fn read_line(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| unknown(), |text| text.trim().to_owned())
}

/// The value after the colon in the first line that starts with `name`.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The word in brackets of a kernel setting such as `always [madvise] never`.
fn chosen(setting: &str) -> String {
    let word = setting.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    word.map_or_else(unknown, |(word, _)| word.to_owned())
}

fn commit(workspace: &Path) -> String {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
        .current_dir(workspace)
        .output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => unknown(),
    }
}

#[cfg(test)]
mod tests {
    use super::{chosen, field};

    #[test]
    fn kernel_texts_are_read() {
        assert_eq!(chosen("always [madvise] never"), "madvise");
        assert_eq!(chosen("never"), "unknown");
        let text = "processor\t: 0\nmodel name\t: A 9000: fast\n";
        assert_eq!(field(text, "model name").as_deref(), Some("A 9000: fast"));
        assert_eq!(field(text, "bogomips"), None);
    }
}
