//! The derivation of a report from runs made up here, and its forms.

use super::last_line;
use super::model::{Cell, Contender, Failure, Report, Runs, SkippedPeer};
use super::summary::Summary;
use crate::driver::host::Host;
use crate::stats::Stability;

/// A report of contenders (label, peer, control), and cells with the times of each.
pub(crate) fn report(contenders: &[(&str, bool)], cells: &[(&str, &[&[f64]])]) -> Report {
    Report {
        suite: String::from("test"),
        host: Host {
            cpu: String::from("a processor"),
            cpus: 2,
            memory_bytes: 1 << 30,
            kernel: String::from("6"),
            huge_pages: String::from("never"),
            commit: String::from("0000"),
            unix_time: 0,
        },
        rounds: 3,
        contenders: contenders
            .iter()
            .map(|&(peer, control)| Contender {
                label: if control { Contender::control_label(peer) } else { peer.to_owned() },
                peer: peer.to_owned(),
                control,
                version: String::from("1"),
                proof: String::from("by test"),
            })
            .collect(),
        skipped: vec![SkippedPeer { peer: "snmalloc".into(), reason: "no cmake".into() }],
        cells: cells
            .iter()
            .map(|(name, times)| Cell {
                name: (*name).to_owned(),
                about: String::from("made up"),
                params: vec![(String::from("size"), 16)],
                operations: 1000,
                checksum: 100 << 20,
                runs: times
                    .iter()
                    .map(|times| Runs {
                        seconds: times.to_vec(),
                        cpu_seconds: times.to_vec(),
                        peak_rss_bytes: times.iter().map(|t| t * 1e7).collect(),
                        final_rss_bytes: times.iter().map(|t| t * 1e6).collect(),
                        minor_faults: times.iter().map(|_| 20_000.0).collect(),
                    })
                    .collect(),
            })
            .collect(),
        failures: Vec::new(),
    }
}

const FOUR: &[(&str, bool)] =
    &[("flagstone", false), ("flagstone", true), ("mimalloc", false), ("system", false)];

// requirement: Z3 (a difference inside the A/A spread is neither a win nor a loss)
#[test]
fn the_verdict_is_over_the_best_peer_and_leaves_unstable_cells_out_of_the_worst() {
    let report = report(
        FOUR,
        &[
            // Stable, 1.2 x the best peer.
            ("slow", &[&[1.2; 3], &[1.2; 3], &[1.0; 3], &[4.0; 3]]),
            // 1.5 x, but the A/A control differs by as much.
            ("noisy", &[&[1.5; 3], &[1.0; 3], &[1.0; 3], &[4.0; 3]]),
            // A win: half of the best peer's time, which here is the system's.
            ("fast", &[&[1.0; 3], &[1.0; 3], &[4.0; 3], &[2.0; 3]]),
        ],
    );
    let summary = Summary::of(&report);
    let verdict = &summary.verdict;
    assert_eq!(verdict.best_peer.as_deref(), Some("mimalloc"));
    let expected = (1.2f64 * 1.5 * 1.0).powf(1.0 / 3.0) / 4f64.powf(1.0 / 3.0);
    assert!((verdict.time_vs_best_peer.unwrap() - expected).abs() < 1e-9);
    assert_eq!(verdict.worst_cell.as_deref(), Some("slow"));
    assert!((verdict.worst_ratio.unwrap() - 1.2).abs() < 1e-9);
    assert!((verdict.peak_rss_vs_mimalloc.unwrap() - expected).abs() < 1e-9);
    assert_eq!(summary.cells[1].stability, Some(Stability::Unstable));
    assert_eq!(summary.cells[2].flagstone_ratio, Some(0.5));
    let line = last_line::comparison(&summary);
    assert_eq!(
        line,
        "time geomean vs best peer: 0.766 · worst cell: 1.200 (slow) · \
         peak RSS geomean vs mimalloc: 0.766"
    );
}

#[test]
fn a_control_is_never_the_best_and_has_no_column() {
    let report = report(FOUR, &[("x", &[&[2.0; 3], &[0.5; 3], &[1.0; 3], &[3.0; 3]])]);
    let summary = Summary::of(&report);
    assert_eq!(summary.cells[0].best, Some(2));
    assert_eq!(summary.contenders[0].fastest, 0);
    let page = super::markdown::page(&report, &summary);
    assert!(
        page.contains("| cell | A/A spread (flagstone) | flagstone | mimalloc | system |"),
        "{page}"
    );
    assert!(page.contains("| flagstone (A/A) | 1 |"), "{page}");
}

#[test]
fn the_noise_of_an_allocator_counts_where_it_takes_part() {
    let with_both: &[(&str, bool)] = &[
        ("flagstone", false),
        ("flagstone", true),
        ("mimalloc", false),
        ("mimalloc", true),
        ("system", false),
    ];
    // mimalloc's control differs by half; the system's allocator is the fastest, then mimalloc.
    let cells: &[(&str, &[&[f64]])] = &[
        ("a", &[&[1.2; 3], &[1.2; 3], &[3.0; 3], &[2.0; 3], &[1.0; 3]]),
        ("b", &[&[1.2; 3], &[1.2; 3], &[1.0; 3], &[1.5; 3], &[3.0; 3]]),
    ];
    let summary = Summary::of(&report(with_both, cells));
    assert_eq!(summary.cells[0].stability, Some(Stability::Stable));
    assert_eq!(summary.cells[1].stability, Some(Stability::Unstable));
}

#[test]
fn without_flagstone_or_with_a_hole_there_is_no_figure() {
    let alone = report(&[("mimalloc", false)], &[("x", &[&[1.0; 3]])]);
    assert_eq!(
        last_line::comparison(&Summary::of(&alone)),
        "time geomean vs best peer: n/a · worst cell: n/a · peak RSS geomean vs mimalloc: n/a"
    );
    let hole = report(
        FOUR,
        &[
            ("x", &[&[1.0; 3], &[1.0; 3], &[1.0; 3], &[1.0; 3]]),
            ("y", &[&[1.0; 3], &[1.0; 3], &[], &[2.0; 3]]),
        ],
    );
    let summary = Summary::of(&hole);
    assert_eq!(summary.contenders[2].time, None);
    assert_eq!(summary.verdict.best_peer.as_deref(), Some("system"));
    assert_eq!(summary.verdict.peak_rss_vs_mimalloc, None);
}

#[test]
fn the_statistics_cost_is_a_ratio_of_geometric_means() {
    let report = report(
        &[("flagstone", false), ("flagstone", true), ("flagstone-nostat", false)],
        &[("x", &[&[1.02; 3], &[1.02; 3], &[1.0; 3]])],
    );
    let line = last_line::statistics_cost(&report, &Summary::of(&report));
    assert_eq!(line, "statistics cost: +2.00 % time · +2.00 % peak RSS (A/A: +0.00 % time)");
}

#[test]
fn what_stays_after_a_peak_is_shown_beside_its_bound() {
    let report = report(FOUR, &[("x", &[&[8.0; 3], &[], &[16.0; 3], &[]])]);
    let line = last_line::returned(&report, &Summary::of(&report));
    assert_eq!(line, "resident after a peak (x), MiB, bound 123.0: flagstone 7.6 · mimalloc 15.3");
}

#[test]
fn every_form_is_written() {
    let mut report = report(FOUR, &[("x", &[&[1.0; 3], &[1.0; 3], &[1.5; 3], &[]])]);
    report.failures.push(Failure {
        cell: "x".into(),
        contender: "system".into(),
        reason: "signal: 6".into(),
    });
    let folder = std::env::temp_dir().join(format!("flagstone-bench-{}", std::process::id()));
    let written = super::write(&report, &folder).unwrap();
    assert_eq!(written.len(), 6);
    let page = std::fs::read_to_string(folder.join("report.md")).unwrap();
    for part in ["**1.00**", "1.50", "–", "`snmalloc` was not measured: no cmake", "signal: 6"] {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("report.json")).unwrap()).unwrap();
    assert_eq!(json["cells"][0]["runs"][2]["seconds"][0], 1.5);
    assert_eq!(json["summary"]["cells"][0]["best"], 0);
    std::fs::remove_dir_all(&folder).unwrap();
}
