//! `--suite pair`: instructions per allocate/free pair, counted by callgrind.
//!
//! Instruction counts do not depend on what else the machine does, so two versions compare to the
//! instruction. Each worker runs the bare pair (workload `pair-count`) at two counts; the difference
//! over the additional pairs leaves out the process's start and end and the allocator's warming up.
//! The same for the empty loop, which is taken off. Kernel work is not counted. snmalloc, which
//! cannot run under valgrind, is counted by single steps ([`step`]), which come to the same.

use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::Mutex;
use std::{fs, thread};

use serde::Serialize;

use super::{CannotRun, Ended, Suite, Wishes, progress_bar, skip};
use crate::driver::build::{Builder, Worker, is_installed};
use crate::driver::host::Host;
use crate::driver::{run, step};
use crate::peer::{FLAGSTONE, MIMALLOC, PEERS, Peer};
use crate::report::model::{Failure, SkippedPeer};
use crate::workload::Params;
use crate::workload::pair_count::{BATCH, EMPTY, SINGLE, WORKLOAD};

/// Block sizes in bytes.
const SIZES: [u64; 8] = [16, 64, 256, 1024, 8192, 32 << 10, 128 << 10, 1 << 20];
/// Pairs in the shorter and the longer run under callgrind: in the shorter already, every
/// allocator is in its steady state.
const CALLGRIND_PAIRS: [u64; 2] = [20_480, 61_440];
/// The same where each instruction is stepped; here the worker warms up before the marks.
const STEPPED_PAIRS: [u64; 2] = [256, 768];

/// One measured figure: instructions per pair of one allocator at one size.
#[derive(Clone, Debug, Serialize)]
struct Count {
    peer: &'static str,
    kind: Kind,
    size: u64,
    /// Instructions per pair, the loop's own taken off.
    instructions: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Single,
    Batch,
}

#[derive(Serialize)]
struct PairReport {
    suite: &'static str,
    host: Host,
    counts: Vec<Count>,
    skipped: Vec<SkippedPeer>,
    failures: Vec<Failure>,
}

/// Builds, counts, reports.
pub fn run(builder: &Builder, wishes: &Wishes) -> Result<Ended, CannotRun> {
    if !is_installed("valgrind") {
        return Err(CannotRun(String::from("valgrind is not installed; it counts instructions")));
    }
    let mut skipped = Vec::new();
    let mut workers = Vec::new();
    for peer in PEERS.iter().filter(|peer| wanted(peer, wishes)) {
        println!("building {}", peer.name);
        match builder.worker(peer) {
            Ok(worker) => workers.push((peer, worker)),
            Err(reason) => skip(&mut skipped, peer.name, reason.to_string()),
        }
    }
    if workers.is_empty() {
        return Err(CannotRun(String::from("no allocator could be built")));
    }
    let (counts, failures) = count_all(&workers, wishes);
    let report = PairReport {
        suite: Suite::Pair.name(),
        host: Host::look(builder.workspace()),
        counts,
        skipped,
        failures,
    };
    let folder = wishes.folder(Suite::Pair, builder);
    let page = page(&report);
    print!("{page}");
    let json = serde_json::to_string_pretty(&report).expect("plain data has a JSON form");
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(folder.join("report.json"), json))
        .and_then(|()| fs::write(folder.join("report.md"), page))
        .map_err(|error| CannotRun(format!("{}: {error}", folder.display())))?;
    println!("wrote {}", folder.display());
    Ok(Ended { last_line: last_line(&report.counts), failures: report.failures.len() })
}

fn wanted(peer: &Peer, wishes: &Wishes) -> bool {
    if wishes.peers.is_empty() { peer.usual } else { wishes.peers.iter().any(|p| p == peer.name) }
}

/// Counts by as many processes at once as there are processors: counting does not time.
fn count_all(workers: &[(&'static Peer, Worker)], wishes: &Wishes) -> (Vec<Count>, Vec<Failure>) {
    let tasks: VecDeque<(usize, Kind, u64)> = [Kind::Single, Kind::Batch]
        .into_iter()
        .flat_map(|kind| SIZES.map(|size| (kind, size)))
        .filter(|(_, size)| wishes.wants(&size.to_string()))
        .flat_map(|(kind, size)| (0..workers.len()).map(move |at| (at, kind, size)))
        .collect();
    let bar = progress_bar(tasks.len());
    let results = Mutex::new((Vec::new(), Vec::new()));
    let tasks = Mutex::new(tasks);
    let next = || tasks.lock().expect("no thread panics with the lock").pop_front();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((at, kind, size)) = next() {
                    let (peer, worker) = &workers[at];
                    let counted = per_pair(peer, worker, kind, size);
                    bar.inc(1);
                    let mut results = results.lock().expect("no thread panics with the lock");
                    match counted {
                        Ok(instructions) => {
                            results.0.push(Count { peer: peer.name, kind, size, instructions });
                        }
                        Err(reason) => {
                            bar.println(format!("{} at {size} bytes: {reason}", peer.name));
                            results.1.push(Failure {
                                cell: format!("{kind:?} {size}"),
                                contender: peer.name.to_owned(),
                                reason,
                            });
                        }
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    results.into_inner().expect("no thread panics with the lock")
}

fn per_pair(peer: &Peer, worker: &Worker, kind: Kind, size: u64) -> Result<f64, String> {
    let [short, long] = if peer.valgrind { CALLGRIND_PAIRS } else { STEPPED_PAIRS };
    let count = |kind, pairs| {
        let set = [("size", size), ("pairs", pairs), ("kind", kind)];
        if peer.valgrind { callgrind(worker, set) } else { stepped(worker, set) }
    };
    let between = |kind| -> Result<f64, String> {
        let (low, high) = (count(kind, short)?, count(kind, long)?);
        Ok((high as f64 - low as f64) / (long - short) as f64)
    };
    match kind {
        Kind::Single => Ok(between(SINGLE)? - between(EMPTY)?),
        // The loops of a batch have no empty twin: they stay in, for every allocator alike.
        Kind::Batch => between(BATCH),
    }
}

type Set = [(&'static str, u64); 3];

fn params(set: Set, marked: u64) -> Params {
    Params::with(&WORKLOAD, set.into_iter().chain([("marked", marked)]))
        .expect("the workload declares these")
}

/// Instructions of a whole process under callgrind.
fn callgrind(worker: &Worker, set: Set) -> Result<u64, String> {
    let output = std::process::Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(&worker.path)
        .args(run::args(&WORKLOAD, &params(set, 0)))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let last = said.lines().last().unwrap_or_default();
        return Err(format!("{}: {last}", output.status));
    }
    collected(&said).ok_or_else(|| String::from("callgrind did not say what it collected"))
}

/// Instructions of the marked part, by single steps.
fn stepped(worker: &Worker, set: Set) -> Result<u64, String> {
    step::instructions(run::command(&worker.path, &WORKLOAD, &params(set, 1)))
        .map_err(|error| format!("single steps: {error}"))
}

/// The number in callgrind's line `==123== Collected : 456`.
fn collected(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

fn page(report: &PairReport) -> String {
    let mut peers: Vec<&str> = Vec::new();
    for peer in PEERS {
        if report.counts.iter().any(|count| count.peer == peer.name) {
            peers.push(peer.name);
        }
    }
    let by_steps: Vec<&str> = PEERS
        .iter()
        .filter(|peer| !peer.valgrind && peers.contains(&peer.name))
        .map(|peer| peer.name)
        .collect();
    let mut page = format!(
        "# Instructions per allocate/free pair\n\nBy callgrind{}, commit `{}`.\n\n",
        if by_steps.is_empty() {
            String::new()
        } else {
            format!(" ({} by single steps: not for valgrind)", by_steps.join(", "))
        },
        report.host.commit
    );
    for (kind, title) in [
        (Kind::Single, "One block at a time, the empty loop taken off"),
        (Kind::Batch, "Batches of 64 blocks, freed oldest first, with their loops"),
    ] {
        page += &format!("## {title}\n\n| bytes | {} |\n", peers.join(" | "));
        page += &format!("|--:|{}\n", "--:|".repeat(peers.len()));
        for size in SIZES {
            if !report.counts.iter().any(|count| count.kind == kind && count.size == size) {
                continue;
            }
            let cells: Vec<String> = peers
                .iter()
                .map(|peer| {
                    find_count(&report.counts, peer, kind, size)
                        .map_or_else(|| String::from("–"), |count| format!("{count:.1}"))
                })
                .collect();
            page += &format!("| {size} | {} |\n", cells.join(" | "));
        }
        page.push('\n');
    }
    page
}

/// `instructions per pair vs mimalloc: geomean X · worst Y (single 64)`.
fn last_line(counts: &[Count]) -> String {
    let ratios: Vec<(f64, String)> = counts
        .iter()
        .filter(|count| count.peer == FLAGSTONE)
        .filter_map(|count| {
            let other = find_count(counts, MIMALLOC, count.kind, count.size)?;
            let name = format!("{:?} {}", count.kind, count.size).to_lowercase();
            Some((count.instructions / other, name))
        })
        .collect();
    let mean = crate::stats::geomean(ratios.iter().map(|(ratio, _)| *ratio));
    let worst = ratios.iter().max_by(|a, b| a.0.total_cmp(&b.0));
    match (mean, worst) {
        (Some(mean), Some((ratio, name))) => format!(
            "instructions per pair vs mimalloc: geomean {mean:.3} · worst {ratio:.3} ({name})"
        ),
        _ => String::from("instructions per pair vs mimalloc: n/a"),
    }
}

fn find_count(counts: &[Count], peer: &str, kind: Kind, size: u64) -> Option<f64> {
    let found = counts.iter().find(|c| c.peer == peer && c.kind == kind && c.size == size);
    found.map(|count| count.instructions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(peer: &'static str, size: u64, instructions: f64) -> Count {
        Count { peer, kind: Kind::Single, size, instructions }
    }

    #[test]
    fn callgrinds_line_is_read() {
        let said = "==7== Events    : Ir\n==7== Collected : 123456\n==7== \n";
        assert_eq!(collected(said), Some(123_456));
        assert_eq!(collected("==7== Events : Ir"), None);
    }

    #[test]
    fn the_last_line_names_the_worst_size() {
        let counts = [
            count(FLAGSTONE, 16, 20.0),
            count(FLAGSTONE, 64, 40.0),
            count(MIMALLOC, 16, 40.0),
            count(MIMALLOC, 64, 20.0),
        ];
        assert_eq!(
            last_line(&counts),
            "instructions per pair vs mimalloc: geomean 1.000 · worst 2.000 (single 64)"
        );
        assert_eq!(last_line(&counts[..2]), "instructions per pair vs mimalloc: n/a");
    }
}
