//! One run of one worker: its arguments, its line, and what can go wrong.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::peer::Peer;
use crate::wire::WorkerReport;
use crate::workload::{Params, Workload};

/// Seconds after which a run ends itself: many times what the slowest allocator needs.
const DEADLINE_SECONDS: u32 = 120;

/// Runs `workload` once in the worker of `peer`.
pub fn run(
    worker: &Path,
    peer: &Peer,
    workload: &Workload,
    params: &Params,
) -> Result<WorkerReport, RunFailed> {
    let output = command(worker, workload, params)
        .output()
        .map_err(|error| RunFailed(format!("{}: {error}", worker.display())))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(RunFailed(format!("{}: {}", output.status, said.trim())));
    }
    let report: WorkerReport = serde_json::from_slice(&output.stdout)
        .map_err(|error| RunFailed(format!("unreadable answer: {error}")))?;
    if report.served.peer != peer.name || report.workload != workload.name {
        return Err(RunFailed(format!(
            "{} was run by {} where {} by {} was asked for",
            report.workload, report.served.peer, workload.name, peer.name
        )));
    }
    Ok(report)
}

/// The command of one run, for [`run`] or for a tool that starts it.
pub fn command(worker: &Path, workload: &Workload, params: &Params) -> Command {
    let mut command = Command::new(worker);
    command.args(args(workload, params)).stdin(Stdio::null());
    command
}

/// The worker's arguments.
pub fn args(workload: &Workload, params: &Params) -> Vec<String> {
    let mut args = vec![String::from("--deadline"), DEADLINE_SECONDS.to_string()];
    for (name, value) in params.iter() {
        args.push(String::from("--set"));
        args.push(format!("{name}={value}"));
    }
    args.push(workload.name.to_owned());
    args
}

/// A run that gave no figures.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunFailed(pub String);

impl std::fmt::Display for RunFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RunFailed {}
