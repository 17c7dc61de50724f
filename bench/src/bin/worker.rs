//! Runs one workload under the allocator that this binary was built with, and prints one line of
//! JSON about it.
//!
//! ```text
//! worker [--deadline SECONDS] [--set NAME=VALUE]... WORKLOAD
//! worker --check | --list
//! ```
//!
//! Nothing is reported unless the allocator of its name is proven to serve; if it is not, or on bad
//! arguments, the worker prints one line and ends with status 2. Corruption found by a workload panics
//! (status 101). A run past its deadline is ended by SIGALRM.

use std::process::ExitCode;

use flagstone_bench::measure::Resident;
use flagstone_bench::wire::WorkerReport;
use flagstone_bench::workload::{self, Params, Workload};
use flagstone_bench::{peer, workload::ALL};

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("worker: {reason}");
            ExitCode::from(2)
        }
    }
}

fn run(args: impl Iterator<Item = String>) -> Result<String, String> {
    let command = Command::parse(args)?;
    if let Command::List = command {
        return Ok(list());
    }
    let Command::Run { workload, params, deadline } = command else {
        return peer::prove().map(|served| json(&served)).map_err(|error| error.to_string());
    };
    if deadline > 0 {
        // SAFETY: sets the process's only alarm, whose default action ends the process.
        unsafe { libc::alarm(deadline) };
    }
    let outcome = (workload.run)(&params);
    let resident = Resident::of_self();
    let served = peer::prove().map_err(|error| error.to_string())?;
    Ok(json(&WorkerReport {
        served,
        workload: workload.name.to_owned(),
        seconds: outcome.measured.seconds,
        cpu_seconds: outcome.measured.cpu_seconds,
        operations: outcome.operations,
        checksum: outcome.checksum,
        peak_rss_bytes: resident.peak,
        final_rss_bytes: outcome.settled_rss.unwrap_or(resident.current),
        minor_faults: outcome.measured.minor_faults,
    }))
}

enum Command {
    Check,
    List,
    Run { workload: &'static Workload, params: Params, deadline: u32 },
}

impl Command {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Command, String> {
        let mut set = Vec::new();
        let mut deadline = 0;
        let mut name = None;
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
            match arg.as_str() {
                "--check" => return Ok(Command::Check),
                "--list" => return Ok(Command::List),
                "--deadline" => {
                    let value = value()?;
                    deadline = value.parse().map_err(|_| format!("bad deadline `{value}`"))?;
                }
                "--set" => set.push(assignment(&value()?)?),
                _ if name.is_none() && !arg.starts_with('-') => name = Some(arg),
                _ => return Err(format!("unexpected argument `{arg}`")),
            }
        }
        let name = name.ok_or("which workload? --list names them")?;
        let workload =
            workload::find(&name).ok_or_else(|| format!("no workload `{name}`; see --list"))?;
        let set = set.iter().map(|(name, value)| (name.as_str(), *value));
        let params = Params::with(workload, set).map_err(|error| error.to_string())?;
        Ok(Command::Run { workload, params, deadline })
    }
}

fn assignment(text: &str) -> Result<(String, u64), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is no NAME=VALUE"))?;
    let value = value.parse().map_err(|_| format!("`{value}` is not a number, for {name}"))?;
    Ok((name.to_owned(), value))
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain numbers and strings have a JSON form")
}

fn list() -> String {
    let mut lines = Vec::new();
    for workload in ALL {
        lines.push(format!("{}: {}", workload.name, workload.about));
        for param in workload.params {
            lines.push(format!("    {} = {} ({})", param.name, param.default, param.about));
        }
    }
    lines.join("\n")
}
