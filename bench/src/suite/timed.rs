//! The suites that run workers and compare times and memory: `smoke`, `core`, `stats-cost`, `return`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cells::{Cell, RETURN, TIMED};
use super::{CannotRun, Ended, Suite, Wishes, progress_bar, skip};
use crate::driver::build::{Builder, Worker};
use crate::driver::host::Host;
use crate::driver::order::order;
use crate::driver::run::run as run_worker;
use crate::peer::{self, FLAGSTONE, FLAGSTONE_NOSTAT, MIMALLOC, PEERS, Peer};
use crate::report::model::{self, Contender, Failure, Report, Runs};
use crate::report::summary::Summary;
use crate::report::{self, last_line};
use crate::wire::WorkerReport;

/// What distinguishes one timed suite from another.
struct Plan {
    cells: Vec<&'static Cell>,
    /// The work of every cell is divided by this.
    share: u64,
    rounds: usize,
    peers: Vec<&'static Peer>,
    /// Allocators that run twice, for the A/A spread.
    controls: &'static [&'static str],
}

/// A column: whose binary, under which heading.
struct Entrant {
    peer: &'static Peer,
    binary: PathBuf,
    contender: Contender,
}

/// Builds, runs, reports.
pub fn run(suite: Suite, builder: &Builder, wishes: &Wishes) -> Result<Ended, CannotRun> {
    let plan = plan(suite, wishes)?;
    let mut skipped = Vec::new();
    let mut entrants = Vec::new();
    for peer in plan.peers {
        println!("building {}", peer.name);
        match builder.worker(peer) {
            Ok(worker) => {
                let control = plan.controls.contains(&peer.name);
                entrants.extend(columns(peer, &worker, control));
            }
            Err(reason) => skip(&mut skipped, peer.name, reason.to_string()),
        }
    }
    if entrants.is_empty() {
        return Err(CannotRun(String::from("no allocator could be built")));
    }
    let mut report = Report {
        suite: suite.name().to_owned(),
        host: Host::look(builder.workspace()),
        rounds: 0,
        contenders: entrants.iter().map(|entrant| entrant.contender.clone()).collect(),
        skipped,
        cells: plan.cells.iter().map(|cell| empty_cell(cell, plan.share, entrants.len())).collect(),
        failures: Vec::new(),
    };
    let folder = wishes.folder(suite, builder);
    measure(&mut report, &plan.cells, plan.share, &entrants, plan.rounds, wishes, &folder);

    let summary = Summary::of(&report);
    let written = report::write(&report, &folder)
        .map_err(|error| CannotRun(format!("the report cannot be written: {error}")))?;
    print!("{}", report::markdown::overview(&report, &summary));
    for path in written {
        println!("wrote {}", path.display());
    }
    let last_line = match suite {
        Suite::StatsCost => last_line::statistics_cost(&report, &summary),
        Suite::Return => last_line::returned(&report, &summary),
        _ => last_line::comparison(&summary),
    };
    Ok(Ended { last_line, failures: report.failures.len() })
}

fn plan(suite: Suite, wishes: &Wishes) -> Result<Plan, CannotRun> {
    let table = if suite == Suite::Return { RETURN } else { TIMED };
    let cells: Vec<&Cell> = table.iter().filter(|cell| wishes.wants(cell.name)).collect();
    if cells.is_empty() {
        let names: Vec<&str> = table.iter().map(|cell| cell.name).collect();
        return Err(CannotRun(format!("no such cell; there are {}", names.join(", "))));
    }
    let usual = |peer: &&Peer| match suite {
        Suite::StatsCost => [FLAGSTONE, FLAGSTONE_NOSTAT].contains(&peer.name),
        _ => peer.usual,
    };
    let peers = if wishes.peers.is_empty() {
        PEERS.iter().filter(usual).collect()
    } else {
        wishes.peers.iter().map(|name| known(name)).collect::<Result<_, _>>()?
    };
    let (share, rounds) = match suite {
        Suite::Smoke => (8, 1),
        Suite::Return => (1, 3),
        _ => (1, 7),
    };
    let controls: &[&str] = match suite {
        Suite::StatsCost => &[FLAGSTONE],
        Suite::Return => &[],
        _ => &[FLAGSTONE, MIMALLOC],
    };
    Ok(Plan { cells, share, rounds: wishes.rounds.unwrap_or(rounds).max(1), peers, controls })
}

fn known(name: &str) -> Result<&'static Peer, CannotRun> {
    peer::find(name).ok_or_else(|| {
        let names: Vec<&str> = PEERS.iter().map(|peer| peer.name).collect();
        CannotRun(format!("no allocator `{name}`; there are {}", names.join(", ")))
    })
}

/// The column of an allocator, and that of its control.
fn columns(peer: &'static Peer, worker: &Worker, control: bool) -> Vec<Entrant> {
    let column = |label: String, control| Entrant {
        peer,
        binary: worker.path.clone(),
        contender: Contender {
            label,
            peer: peer.name.to_owned(),
            control,
            version: worker.served.version.clone(),
            proof: worker.served.proof.clone(),
        },
    };
    let mut columns = vec![column(peer.name.to_owned(), false)];
    if control {
        columns.push(column(Contender::control_label(peer.name), true));
    }
    columns
}

fn empty_cell(cell: &Cell, share: u64, contenders: usize) -> model::Cell {
    model::Cell {
        name: cell.name.to_owned(),
        about: cell.workload().about.to_owned(),
        params: cell.params(share).iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        operations: 0,
        checksum: 0,
        runs: vec![Runs::default(); contenders],
    }
}

fn measure(
    report: &mut Report,
    cells: &[&Cell],
    share: u64,
    entrants: &[Entrant],
    rounds: usize,
    wishes: &Wishes,
    folder: &Path,
) {
    let bar = progress_bar(rounds * cells.len() * entrants.len());
    // What every run of a cell must come to, whoever serves: operations and checksum.
    let mut expected: Vec<Option<(u64, u64)>> = vec![None; cells.len()];
    let mut slowest_round = Duration::ZERO;
    for round in 0..rounds {
        let began = wishes.started.elapsed();
        if round > 0 && began + slowest_round > wishes.budget {
            bar.println(format!("stopped after {round} of {rounds} rounds: the time is up"));
            break;
        }
        for (at, cell) in cells.iter().enumerate() {
            let params = cell.params(share);
            for index in order(entrants.len(), at, round) {
                let entrant = &entrants[index];
                bar.set_message(format!("{} {}", cell.name, entrant.contender.label));
                if !has_failed(report, cell.name, &entrant.contender.label) {
                    let run = run_worker(&entrant.binary, entrant.peer, cell.workload(), &params);
                    let run = run.map_err(|failed| failed.to_string());
                    match run.and_then(|run| same_work(run, &mut expected[at])) {
                        Ok(run) => {
                            report.cells[at].operations = run.operations;
                            report.cells[at].checksum = run.checksum;
                            record(&mut report.cells[at].runs[index], &run);
                        }
                        Err(reason) => {
                            let contender = entrant.contender.label.clone();
                            bar.println(format!("{} under {contender}: {reason}", cell.name));
                            report.cells[at].runs[index] = Runs::default();
                            let cell = cell.name.to_owned();
                            report.failures.push(Failure { cell, contender, reason });
                        }
                    }
                }
                bar.inc(1);
            }
        }
        report.rounds = round + 1;
        // Should the rest be interrupted, this much is there. The last writing reports errors.
        let _ = report::write(report, folder);
        slowest_round = slowest_round.max(wishes.started.elapsed() - began);
    }
    bar.finish_and_clear();
}

/// A contender that failed in a cell is left out of it from then on.
fn has_failed(report: &Report, cell: &str, contender: &str) -> bool {
    report.failures.iter().any(|f| f.cell == cell && f.contender == contender)
}

/// Whether the run did the same work as the others before it.
fn same_work(run: WorkerReport, expected: &mut Option<(u64, u64)>) -> Result<WorkerReport, String> {
    let (operations, checksum) = *expected.get_or_insert((run.operations, run.checksum));
    if (run.operations, run.checksum) == (operations, checksum) {
        Ok(run)
    } else {
        Err(format!(
            "{} operations with checksum {:#x}, where the others did {operations} with {checksum:#x}",
            run.operations, run.checksum
        ))
    }
}

fn record(runs: &mut Runs, run: &WorkerReport) {
    runs.seconds.push(run.seconds);
    runs.cpu_seconds.push(run.cpu_seconds);
    runs.peak_rss_bytes.push(run.peak_rss_bytes as f64);
    runs.final_rss_bytes.push(run.final_rss_bytes as f64);
    runs.minor_faults.push(run.minor_faults as f64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Served;

    fn wishes(peers: &[&str], cells: &[&str]) -> Wishes {
        Wishes {
            peers: peers.iter().map(ToString::to_string).collect(),
            cells: cells.iter().map(ToString::to_string).collect(),
            rounds: None,
            out: None,
            budget: Duration::from_secs(60),
            started: std::time::Instant::now(),
            soak: crate::suite::SoakWishes::default(),
        }
    }

    #[test]
    fn unknown_names_are_refused_with_the_known_ones() {
        let error = plan(Suite::Core, &wishes(&["dlmalloc"], &[])).err().unwrap();
        assert!(error.0.contains("no allocator `dlmalloc`") && error.0.contains("rpmalloc"));
        let error = plan(Suite::Core, &wishes(&[], &["nothing-like-it"])).err().unwrap();
        assert!(error.0.contains("no such cell") && error.0.contains("larson"));
    }

    #[test]
    fn only_the_cost_suite_measures_the_build_without_counters() {
        let names = |suite| -> Vec<&str> {
            plan(suite, &wishes(&[], &[])).unwrap().peers.iter().map(|peer| peer.name).collect()
        };
        assert!(!names(Suite::Core).contains(&FLAGSTONE_NOSTAT));
        assert_eq!(names(Suite::StatsCost), [FLAGSTONE, FLAGSTONE_NOSTAT]);
    }

    #[test]
    fn a_run_that_did_other_work_is_a_failure() {
        let run = |checksum| WorkerReport {
            served: Served { peer: "p".into(), version: "1".into(), proof: "none".into() },
            workload: "w".into(),
            seconds: 1.0,
            cpu_seconds: 1.0,
            operations: 10,
            checksum,
            peak_rss_bytes: 1,
            final_rss_bytes: 1,
            minor_faults: 0,
        };
        let mut expected = None;
        assert!(same_work(run(5), &mut expected).is_ok());
        assert!(same_work(run(5), &mut expected).is_ok());
        assert!(same_work(run(6), &mut expected).is_err());
    }
}
