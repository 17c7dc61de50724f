//! A `flagstone serve` process under test, and the outside programs that talk to it.
//!
//! Owns the processes it starts: each ends with the value that stands for it, by its process id and
//! also when the test panics. Waiting is always polling up to a deadline, which is generous because
//! it only bounds a failure. The tests see the server as a user does: flags, printed lines, ports.

#![allow(dead_code, unused_imports, reason = "every test program uses its own part of this module")]

mod http;
mod process;
mod server;

pub use http::{HttpReply, http_get};
pub use process::{Running, run, signal_terminate};
pub use server::{Server, refuse_to_start, resp_connection};

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long something that must happen may take on a slow, busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Set by CI: a client that is not installed is then a failure, not a skipped test.
const REQUIRE_CLIENTS: &str = "FLAGSTONE_REQUIRE_CLIENTS";

/// Finds a client program, or says on standard error why the test that needs it is skipped.
///
/// # Panics
/// When the program is missing although `FLAGSTONE_REQUIRE_CLIENTS=1`.
pub fn client(program: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|p| p.is_file());
    if found.is_none() {
        let reason = format!("{program} is not installed (Debian package {package})");
        assert!(std::env::var_os(REQUIRE_CLIENTS).is_none_or(|v| v != "1"), "{reason}");
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        // Past the harness, which keeps what a passing test prints to itself; in one piece.
        let _ = std::io::stderr().write_all(format!("skipped {test}: {reason}\n").as_bytes());
    }
    found
}

/// Asks until there is an answer.
///
/// # Panics
/// When there is none after [`PATIENCE`].
pub fn poll<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A fresh folder under Cargo's for tests, removed when dropped.
pub struct Scratch(pub PathBuf);

impl Scratch {
    /// Makes the folder; `name` says whose it is, and no other test uses it.
    pub fn new(name: &str) -> Self {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    /// Writes a file into the folder and returns its path.
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path.into_os_string().into_string().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The folder `deploy/` of this repository.
pub fn deploy_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}
