//! `flagstone verify`: proof that a process, a command or a file uses Flagstone (requirement P2).
//!
//! Owns the three questions. This process and a command are asked where a fresh allocation lies, at
//! run time; a file is asked by its symbols. The answer is one line on standard output; exit status
//! 0 is yes, 1 is no, 3 is "cannot be told", 2 a question that could not be asked.

mod binary;

use std::error::Error;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

/// What can be said on the command line.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// Read a file's symbols instead of running anything
    #[arg(long, value_name = "FILE", conflicts_with_all = ["command", "library"])]
    binary: Option<PathBuf>,
    /// Preload this library into the command [default: libflagstone.so beside this program, if the
    /// environment has no LD_PRELOAD]
    #[arg(long, value_name = "FILE", requires = "command")]
    library: Option<PathBuf>,
    /// A command to run; without one, this process is asked
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    Unknown,
}

impl Answer {
    fn status(self) -> u8 {
        match self {
            Self::Yes => 0,
            Self::No => 1,
            Self::Unknown => 3,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

/// Asks and answers.
pub(super) fn run(flags: &Flags) -> Result<ExitCode, Box<dyn Error>> {
    let (answer, why) = if let Some(file) = &flags.binary {
        binary::ask(file)?
    } else if let Some((program, arguments)) = flags.command.split_first() {
        ask_command(program, arguments, flags.library.as_deref())?
    } else {
        let found = flagstone::verify();
        let answer = if found.verified { Answer::Yes } else { Answer::No };
        (answer, format!("Flagstone {}, {}", found.version, found.mode.as_str()))
    };
    writeln!(std::io::stdout(), "{}: {why}", answer.word())?;
    Ok(ExitCode::from(answer.status()))
}

/// Runs a command with the library preloaded and reads the proof that the library, if it is there,
/// has appended to a file.
fn ask_command(
    program: &OsString,
    arguments: &[OsString],
    library: Option<&Path>,
) -> Result<(Answer, String), Box<dyn Error>> {
    let library = match library {
        Some(library) => Some(library.to_owned()),
        None if env::var_os("LD_PRELOAD").is_some() => None,
        None => Some(env::current_exe()?.with_file_name("libflagstone.so")),
    };
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(library) = library {
        // The loader itself only complains and goes on.
        let library = fs::canonicalize(&library)
            .map_err(|error| format!("{}: {error}", library.display()))?;
        command.env("LD_PRELOAD", library);
    }
    let proof = Proof::new()?;
    command.env("FLAGSTONE_VERIFY", &proof.0);
    let name = program.to_string_lossy();
    let mut child = command.spawn().map_err(|error| format!("{name}: {error}"))?;
    let pid = child.id().to_string();
    let status = child.wait()?;
    let text = fs::read_to_string(&proof.0)?;
    let (answer, mut why) = judge(&text, &pid);
    if !status.success() {
        why.push_str(&format!("; it ended with {status}"));
    }
    Ok((answer, why))
}

/// What the lines `PID yes|no VERSION` say about a process. It may have several, one for each
/// program that it was by `exec`; the last counts.
fn judge(text: &str, pid: &str) -> (Answer, String) {
    let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mut of_the_process = lines.filter(|words| words.first() == Some(&pid));
    match of_the_process.next_back().as_deref() {
        Some([_, "yes", version]) => {
            (Answer::Yes, format!("its malloc is Flagstone {version}, from the C library"))
        }
        Some([_, "no", version]) => {
            (Answer::No, format!("Flagstone {version} is loaded, but malloc is another's"))
        }
        _ => (
            Answer::No,
            "the library was not loaded; a statically linked or set-user-id program ignores it"
                .to_owned(),
        ),
    }
}

/// A file for the proof, readable and writable by this user only, removed in the end.
struct Proof(PathBuf);

impl Proof {
    fn new() -> std::io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let (folder, pid) = (env::temp_dir(), std::process::id());
        let mut tries = 0;
        loop {
            let path = folder.join(format!("flagstone-verify-{pid}-{tries}"));
            // A file or link that somebody else has put there is left alone.
            match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(_) => return Ok(Self(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && tries < 100 => {
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Proof {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_of_the_process_count_and_the_last_of_them() {
        assert_eq!(judge("7 yes 0.1.0\n", "7").0, Answer::Yes);
        assert_eq!(judge("7 no 0.1.0\n", "7").0, Answer::No);
        assert_eq!(judge("7 yes 0.1.0\n8 no 0.1.0\n", "7").0, Answer::Yes);
        assert_eq!(judge("7 yes 0.1.0\n7 no 0.1.0\n", "7").0, Answer::No);
        assert_eq!(judge("", "7").0, Answer::No);
        assert_eq!(judge("77 yes 0.1.0\n", "7").0, Answer::No);
        assert_eq!(judge("7 yes", "7").0, Answer::No, "a cut line proves nothing");
    }
}
