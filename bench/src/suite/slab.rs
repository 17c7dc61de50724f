//! `--suite slab`: the typed slab beside sharded-slab, and its domain beside crossbeam-epoch, seize,
//! haphazard and sdd.
//!
//! One process measures everything, its sides in turn (see [`slabs`](crate::slabs)); the
//! driver builds it, runs it, judges and reports. A ratio counts if it lies outside the spread of the
//! A/A control of its cell (requirement Z3).

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};

use serde::Serialize;

use super::{CannotRun, Ended, Suite, Wishes};
use crate::driver::build::Builder;
use crate::driver::host::Host;
use crate::slabs::{CONTROL, CROSSBEAM, Cell, FLAGSTONE, Measured, SHARDED_SLAB};
use crate::stats::{Stability, aa_spread, median, stability};

/// Rounds, if not wished otherwise: about a minute.
const ROUNDS: usize = 21;

/// A side against ours in one cell.
#[derive(Clone, Debug, Serialize)]
struct Verdict {
    cell: String,
    threads: usize,
    side: String,
    nanos: f64,
    /// Its time over ours: above 1, we are faster.
    ratio: f64,
    aa_spread: f64,
    stability: Stability,
}

#[derive(Serialize)]
struct SlabReport<'a> {
    suite: &'static str,
    host: Host,
    rounds: usize,
    verdicts: &'a [Verdict],
    measured: &'a Measured,
}

/// Builds, measures, reports.
pub fn run(builder: &Builder, wishes: &Wishes) -> Result<Ended, CannotRun> {
    if !wishes.peers.is_empty() {
        return Err(CannotRun(String::from("the slab suite has its own peers: leave --peers out")));
    }
    println!("building slabs");
    let binary = builder.slabs().map_err(|skipped| CannotRun(skipped.to_string()))?;
    let rounds = wishes.rounds.unwrap_or(ROUNDS).max(1);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads: Vec<String> = [1, 2, 4, 8, 16]
        .into_iter()
        .filter(|&threads| threads <= processors.max(2))
        .map(|threads| threads.to_string())
        .collect();
    let output = Command::new(&binary)
        .args([rounds.to_string(), threads.join(","), wishes.cells.join(",")])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| CannotRun(format!("{}: {error}", binary.display())))?;
    if !output.status.success() {
        return Err(CannotRun(format!("{}: {}", binary.display(), output.status)));
    }
    let measured: Measured = serde_json::from_slice(&output.stdout)
        .map_err(|error| CannotRun(format!("unreadable answer: {error}")))?;
    let verdicts: Vec<Verdict> = measured.cells.iter().flat_map(judge).collect();
    let report = SlabReport {
        suite: Suite::Slab.name(),
        host: Host::look(builder.workspace()),
        rounds,
        verdicts: &verdicts,
        measured: &measured,
    };
    let page = page(&report);
    print!("{page}");
    let folder = wishes.folder(Suite::Slab, builder);
    let json = serde_json::to_string_pretty(&report).expect("plain data has a JSON form");
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(folder.join("report.json"), json))
        .and_then(|()| fs::write(folder.join("report.md"), page))
        .map_err(|error| CannotRun(format!("{}: {error}", folder.display())))?;
    println!("wrote {}", folder.display());
    Ok(Ended { last_line: last_line(&verdicts), failures: 0 })
}

/// Every side of a cell against ours.
fn judge(cell: &Cell) -> Vec<Verdict> {
    let Some(ours) = cell.side(FLAGSTONE) else { return Vec::new() };
    let spread = cell.side(CONTROL).and_then(|again| aa_spread(ours, again)).unwrap_or(0.0);
    // Both of our instances are ours: the median of all their rounds.
    let both: Vec<f64> =
        ours.iter().chain(cell.side(CONTROL).unwrap_or_default()).copied().collect();
    let verdict = |side: &crate::slabs::Times| {
        let own = median(&both)?;
        let nanos = if side.side == FLAGSTONE { own } else { median(&side.nanos)? };
        let ratio = nanos / own;
        Some(Verdict {
            cell: cell.name.clone(),
            threads: cell.threads,
            side: side.side.clone(),
            nanos,
            ratio,
            aa_spread: spread,
            stability: stability(ratio, spread),
        })
    };
    cell.sides.iter().filter(|side| side.side != CONTROL).filter_map(verdict).collect()
}

fn page(report: &SlabReport<'_>) -> String {
    let host = &report.host;
    let mut page = format!(
        "# Typed slab\n\n{} rounds, sides in turn, on {} ({} CPUs), commit `{}`.\n\n",
        report.rounds, host.cpu, host.cpus, host.commit
    );
    page += "Nanoseconds for one operation of one thread, medians. A ratio is the other side's time \
             over ours; in brackets where it lies inside the A/A spread.\n\n";
    page += "| cell | threads | ours | A/A spread | others |\n|---|--:|--:|--:|---|\n";
    for ours in report.verdicts.iter().filter(|verdict| verdict.side == FLAGSTONE) {
        let others: Vec<String> = report
            .verdicts
            .iter()
            .filter(|other| other.cell == ours.cell && other.threads == ours.threads)
            .filter(|other| other.side != FLAGSTONE)
            .map(|other| {
                let ratio = format!("{:.2}x", other.ratio);
                let ratio = match other.stability {
                    Stability::Stable => ratio,
                    Stability::Unstable => format!("({ratio})"),
                };
                format!("{} {:.2} {ratio}", other.side, other.nanos)
            })
            .collect();
        let _ = writeln!(
            page,
            "| {} | {} | {:.2} | {:.1} % | {} |",
            ours.cell,
            ours.threads,
            ours.nanos,
            ours.aa_spread * 100.0,
            others.join(" · ")
        );
    }
    if !report.measured.memory.is_empty() {
        page += "\n| value | slab | values | bytes each | bytes left when all are removed |\n";
        page += "|---|---|--:|--:|--:|\n";
        for memory in &report.measured.memory {
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {:.1} | {} |",
                memory.value,
                memory.side,
                memory.values,
                memory.bytes_per_value,
                memory.bytes_after
            );
        }
    }
    if !report.measured.backlogs.is_empty() {
        page += "\nObjects waiting at most while 200,000 are retired:\n\n";
        page += "| per guard | ours | crossbeam-epoch |\n|--:|--:|--:|\n";
        for backlog in &report.measured.backlogs {
            let _ = writeln!(
                page,
                "| {} | {} | {} |",
                backlog.per_guard, backlog.ours, backlog.crossbeam
            );
        }
    }
    page.push('\n');
    page
}

/// `slab vs sharded-slab: get 8.3x · get own guard 1.6x · insert+remove 3.1x · remote remove 3.2x ·
/// retire vs defer 3.3x`: one thread, but for the remote removal, which has two. A cell that was not
/// measured reads `n/a`.
fn last_line(verdicts: &[Verdict]) -> String {
    let ratio = |cell: &str, side: &str| {
        // The first is the one with the fewest threads.
        let found = verdicts.iter().find(|v| v.cell == cell && v.side == side);
        found.map_or_else(|| String::from("n/a"), |verdict| format!("{:.1}x", verdict.ratio))
    };
    format!(
        "slab vs sharded-slab: get {} · get own guard {} · insert+remove {} · remote remove {} · \
         retire vs defer {}",
        ratio("get", SHARDED_SLAB),
        ratio("get own guard", SHARDED_SLAB),
        ratio("insert+remove", SHARDED_SLAB),
        ratio("remote remove", SHARDED_SLAB),
        ratio("retire or defer", CROSSBEAM),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slabs::Times;

    fn cell(name: &str, threads: usize, sides: &[(&str, f64)]) -> Cell {
        let sides = sides
            .iter()
            .map(|(side, nanos)| Times { side: (*side).to_owned(), nanos: vec![*nanos; 3] });
        Cell { name: name.to_owned(), threads, sides: sides.collect() }
    }

    #[test]
    fn the_last_line_has_one_threads_figures_and_says_what_is_missing() {
        let cells = [
            cell("get", 1, &[(FLAGSTONE, 2.0), (CONTROL, 2.0), (SHARDED_SLAB, 20.0)]),
            cell("get", 2, &[(FLAGSTONE, 4.0), (CONTROL, 4.0), (SHARDED_SLAB, 20.0)]),
            cell("retire or defer", 1, &[(FLAGSTONE, 5.0), (CONTROL, 5.0), (CROSSBEAM, 17.0)]),
        ];
        let verdicts: Vec<Verdict> = cells.iter().flat_map(judge).collect();
        assert_eq!(
            last_line(&verdicts),
            "slab vs sharded-slab: get 10.0x · get own guard n/a · insert+remove n/a · \
             remote remove n/a · retire vs defer 3.4x"
        );
    }

    #[test]
    fn a_difference_inside_the_control_is_no_verdict() {
        let mut noisy = cell("get", 1, &[(FLAGSTONE, 2.0), (CONTROL, 3.0), (SHARDED_SLAB, 2.6)]);
        noisy.sides[0].nanos = vec![2.0, 3.0, 2.5];
        let verdicts = judge(&noisy);
        let theirs = verdicts.iter().find(|v| v.side == SHARDED_SLAB).expect("judged");
        assert_eq!(theirs.stability, Stability::Unstable);
        assert!(verdicts.iter().all(|verdict| verdict.side != CONTROL));
    }
}
