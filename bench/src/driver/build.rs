//! Builds the worker of one allocator, with cargo, and puts it where the next build does not
//! replace it.
//!
//! The workers are built in the target folder that the driver came from, one after the other: cargo
//! keeps what differs by features apart, and shares the rest. Only a peer with flags of its own gets
//! a folder of its own, since flags change every dependency.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fmt, fs, io};

use serde::Deserialize;

use crate::peer::Peer;
use crate::wire::Served;

/// Lines of a failed build's output that are kept as its reason.
const REASON_LINES: usize = 12;

/// Where the sources are and where binaries go.
#[derive(Clone, Debug)]
pub struct Builder {
    workspace: PathBuf,
    target: PathBuf,
}

impl Builder {
    /// For the workspace that the driver was built in.
    pub fn new() -> Builder {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the bench crate lies in the workspace")
            .to_owned();
        let target = env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| workspace.join("target"), |dir| workspace.join(dir));
        Builder { workspace, target }
    }

    /// Root of the sources.
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// The target folder.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Builds the worker of `peer` and proves that it serves. The binary's path is its own.
    pub fn worker(&self, peer: &Peer) -> Result<Worker, Skipped> {
        if let Some(program) = peer.needs
            && !is_installed(program)
        {
            return Err(Skipped(format!("{program} is not installed, which its build runs")));
        }
        let mut args: Vec<OsString> = ["-p", "flagstone-bench", "--bin", "worker"]
            .into_iter()
            .chain(["--no-default-features", "--features", peer.feature])
            .chain(peer.cargo_args.iter().copied())
            .map(OsString::from)
            .collect();
        if peer.rustflags.is_some() {
            args.push("--target-dir".into());
            args.push(self.target.join(format!("bench-{}", peer.name)).into());
        }
        let built = self.cargo_build(&args, peer.rustflags, "worker")?;
        let path = self.keep(&built, &format!("worker-{}", peer.name))?;
        let mut served = check(&path)?;
        if served.peer != peer.name {
            return Err(Skipped(format!("the worker says that {} serves", served.peer)));
        }
        if let Some(version) = peer.package.and_then(|package| self.locked_version(package)) {
            served.version += &format!(" (crate {version})");
        }
        Ok(Worker { path, served })
    }

    /// Builds the binary that measures typed slabs.
    pub fn slabs(&self) -> Result<PathBuf, Skipped> {
        let args: Vec<OsString> = ["-p", "flagstone-bench", "--bin", "slabs"]
            .into_iter()
            .chain(["--no-default-features", "--features", "peer-slabs"])
            .map(OsString::from)
            .collect();
        let built = self.cargo_build(&args, None, "slabs")?;
        self.keep(&built, "slabs")
    }

    /// Builds the reference server with one allocator.
    pub fn server(&self, feature: &str) -> Result<PathBuf, Skipped> {
        let args: Vec<OsString> =
            ["-p", "flagstone-server", "--no-default-features", "--features", feature]
                .into_iter()
                .map(OsString::from)
                .collect();
        let built = self.cargo_build(&args, None, "flagstone")?;
        self.keep(&built, &format!("server-{feature}"))
    }

    fn cargo_build(
        &self,
        args: &[OsString],
        rustflags: Option<&str>,
        binary: &str,
    ) -> Result<PathBuf, Skipped> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args(["build", "--release", "--message-format=json-render-diagnostics"])
            .args(args)
            .current_dir(&self.workspace)
            .stdin(Stdio::null());
        if let Some(flags) = rustflags {
            let inherited = env::var("RUSTFLAGS").unwrap_or_default();
            command.env("RUSTFLAGS", format!("{inherited} {flags}").trim());
        }
        let output = command.output().map_err(|error| Skipped(format!("cargo: {error}")))?;
        if !output.status.success() {
            return Err(Skipped(tail(&String::from_utf8_lossy(&output.stderr))));
        }
        let messages = String::from_utf8_lossy(&output.stdout);
        executable(&messages, binary)
            .ok_or_else(|| Skipped(format!("cargo built no binary `{binary}`")))
    }

    /// The version of a package in the lock file.
    fn locked_version(&self, package: &str) -> Option<String> {
        let lock = fs::read_to_string(self.workspace.join("Cargo.lock")).ok()?;
        locked_version(&lock, package)
    }

    /// Copies a binary to a name that no later build writes to.
    fn keep(&self, built: &Path, name: &str) -> Result<PathBuf, Skipped> {
        let folder = self.target.join("bench-bin");
        let path = folder.join(name);
        let copy = || -> io::Result<()> {
            fs::create_dir_all(&folder)?;
            // Not written over in place: an old one may still be running.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::copy(built, &path).map(|_| ())
        };
        copy().map_err(|error| Skipped(format!("{}: {error}", path.display())))?;
        Ok(path)
    }
}

impl Default for Builder {
    fn default() -> Self {
        Builder::new()
    }
}

/// A worker that is built and proven.
#[derive(Clone, Debug)]
pub struct Worker {
    /// The binary.
    pub path: PathBuf,
    /// What it says of itself.
    pub served: Served,
}

/// Why an allocator is not measured.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped(pub String);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

/// Whether `program --version` can be run.
pub fn is_installed(program: &str) -> bool {
    let status = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

fn check(worker: &Path) -> Result<Served, Skipped> {
    let output = Command::new(worker)
        .arg("--check")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Skipped(format!("{}: {error}", worker.display())))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Skipped(format!("the proof failed ({}): {}", output.status, tail(&said))));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Skipped(format!("the proof's answer is unreadable: {error}")))
}

/// The last lines of a build's output: they hold the error.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(REASON_LINES)..].join("\n")
}

/// The `version` line after the `name` line of a package in a lock file's text.
fn locked_version(lock: &str, package: &str) -> Option<String> {
    let name = format!("name = \"{package}\"");
    let version = lock.lines().skip_while(|line| *line != name).nth(1)?;
    Some(version.strip_prefix("version = \"")?.strip_suffix('"')?.to_owned())
}

/// The path of the binary `name` in cargo's messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
        target: Option<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
    }
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.target.as_ref().is_some_and(|target| target.name == name))
        .find_map(|message| message.executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_found_among_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"serde"},"executable":null}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","target":{"name":"worker"},"executable":"/t/worker"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executable(messages, "worker"), Some(PathBuf::from("/t/worker")));
        assert_eq!(executable(messages, "serde"), None);
    }

    #[test]
    fn versions_come_from_the_lock_file() {
        let lock = "[[package]]\nname = \"a\"\nversion = \"0.1.2\"\n\n\
                    [[package]]\nname = \"ab\"\nversion = \"3.0.0+x\"\n";
        assert_eq!(locked_version(lock, "a").as_deref(), Some("0.1.2"));
        assert_eq!(locked_version(lock, "ab").as_deref(), Some("3.0.0+x"));
        assert_eq!(locked_version(lock, "b"), None);
    }

    #[test]
    fn the_reason_is_the_end_of_the_output() {
        let text: String = (0..40).map(|n| format!("line {n}\n\n")).collect();
        let tail = tail(&text);
        assert_eq!(tail.lines().count(), REASON_LINES);
        assert!(tail.ends_with("line 39"));
    }

    #[test]
    fn a_program_that_does_not_exist_is_not_installed() {
        assert!(!is_installed("flagstone-no-such-program"));
    }
}
