//! The command line: `flagstone serve`, `flagstone stats`, `flagstone purge` and `flagstone verify`.
//!
//! Whatever cannot be done ends with one line on standard error and exit status 2; nothing has been
//! started then.

mod ask;
mod purge;
mod serve;
mod stats;
mod verify;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit status for flags, files and addresses that are of no use.
const REFUSED: u8 = 2;

/// Flagstone's reference server.
#[derive(Debug, Parser)]
#[command(name = "flagstone", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve RESP clients, and metrics beside them.
    Serve(serve::Flags),
    /// Print the figures of a running server.
    Stats(stats::Flags),
    /// Give a running server's free memory back to the system.
    Purge(purge::Flags),
    /// Prove that this program, a command or a file uses Flagstone as its allocator.
    Verify(verify::Flags),
}

/// Runs the command line and returns the exit status.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            // Help or version: asked for, so not an error.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return refuse(&one_line(&error)),
    };
    let result = match cli.command {
        Command::Serve(flags) => serve::run(flags),
        Command::Stats(flags) => stats::run(&flags),
        Command::Purge(flags) => purge::run(&flags),
        Command::Verify(flags) => {
            return verify::run(&flags).unwrap_or_else(|error| refuse(&error.to_string()));
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error.to_string()),
    }
}

/// What [`main`] would say against a command line before it starts anything; `None` if nothing.
pub fn refusal(args: impl IntoIterator<Item = OsString>) -> Option<String> {
    let error = Cli::try_parse_from(args).err()?;
    error.use_stderr().then(|| one_line(&error))
}

fn refuse(why: &str) -> ExitCode {
    complain(why);
    ExitCode::from(REFUSED)
}

/// One line on standard error. If nobody listens there, there is nobody to tell.
fn complain(what: &str) {
    let _ = writeln!(std::io::stderr(), "flagstone: {}", what.replace('\n', " "));
}

/// The first line of what clap has to say; the usage that follows is for `--help`.
fn one_line(error: &clap::Error) -> String {
    use clap::error::ErrorKind;
    if matches!(
        error.kind(),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        return "a command is needed: serve, stats, purge or verify (see --help)".to_owned();
    }
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(args: &[&str]) -> String {
        let args = std::iter::once("flagstone").chain(args.iter().copied());
        one_line(&Cli::try_parse_from(args).unwrap_err())
    }

    #[test]
    fn refusals_are_one_line_and_name_the_culprit() {
        assert!(refusal(&[]).contains("serve, stats, purge or verify"));
        assert!(refusal(&["boo"]).contains("boo"));
        assert!(refusal(&["serve", "--boo"]).contains("--boo"));
        assert!(refusal(&["serve", "--resp", "here"]).contains("here"));
        assert!(refusal(&["serve", "--maxmemory", "much"]).contains("much"));
        assert!(refusal(&["serve", "--maxmemory", "-1"]).contains("-1"));
        assert!(refusal(&["serve", "--workers"]).contains("--workers"));
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
