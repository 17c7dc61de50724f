//! The last line of a suite: its figures in a form that scripts may rely on.

use super::model::Report;
use super::summary::Summary;
use crate::peer::{FLAGSTONE, FLAGSTONE_NOSTAT};
use crate::stats::geomean;

/// `time geomean vs best peer: X · worst cell: Y (name) · peak RSS geomean vs mimalloc: Z`.
///
/// A figure that there is none of reads `n/a`: of X and Z without Flagstone or its counterpart, or
/// with a cell that failed; of Y when no cell is stable.
pub fn comparison(summary: &Summary) -> String {
    let verdict = &summary.verdict;
    let worst = match (verdict.worst_ratio, &verdict.worst_cell) {
        (Some(ratio), Some(cell)) => format!("{ratio:.3} ({cell})"),
        _ => String::from("n/a"),
    };
    format!(
        "time geomean vs best peer: {} · worst cell: {worst} · peak RSS geomean vs mimalloc: {}",
        ratio(verdict.time_vs_best_peer),
        ratio(verdict.peak_rss_vs_mimalloc),
    )
}

/// What the statistics cost: `statistics cost: P % time · Q % peak RSS (A/A spread S %)`.
pub fn statistics_cost(report: &Report, summary: &Summary) -> String {
    let with = report.contender(FLAGSTONE);
    let without = report.contender(FLAGSTONE_NOSTAT);
    let control = report.controls().first().copied();
    let cost = |pair: Option<(usize, usize)>, of: fn(&super::summary::Figures) -> f64| {
        let (a, b) = pair?;
        let ratios: Option<Vec<f64>> = summary
            .cells
            .iter()
            .map(|cell| Some(of(cell.figures[a].as_ref()?) / of(cell.figures[b].as_ref()?)))
            .collect();
        Some((geomean(ratios?)? - 1.0) * 100.0)
    };
    let percent = |value: Option<f64>| match value {
        Some(value) => format!("{value:+.2} %"),
        None => String::from("n/a"),
    };
    format!(
        "statistics cost: {} time · {} peak RSS (A/A: {} time)",
        percent(cost(with.zip(without), |figures| figures.seconds.median)),
        percent(cost(with.zip(without), |figures| figures.peak_rss_bytes)),
        percent(cost(control, |figures| figures.seconds.median)),
    )
}

/// What stays after a peak: `resident after a peak: NAME A MiB (cell), ... `, the first cell of each.
///
/// The bound is that of the memory promise: 1.15 times the bytes alive and 8 MiB.
pub fn returned(report: &Report, summary: &Summary) -> String {
    let Some((cell, figures)) = report.cells.first().zip(summary.cells.first()) else {
        return String::from("resident after a peak: n/a");
    };
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let parts: Vec<String> = report
        .contenders
        .iter()
        .zip(&figures.figures)
        .filter_map(|(contender, figures)| {
            let figures = figures.as_ref()?;
            Some(format!("{} {:.1}", contender.label, mib(figures.final_rss_bytes)))
        })
        .collect();
    let alive = cell.checksum as f64;
    format!(
        "resident after a peak ({}), MiB, bound {:.1}: {}",
        cell.name,
        mib(alive * 1.15) + 8.0,
        parts.join(" · ")
    )
}

fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| String::from("n/a"), |value| format!("{value:.3}"))
}
