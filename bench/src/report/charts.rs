//! Which charts a report has: time and peak memory per cell, and both over all cells.

use super::model::Report;
use super::summary::{ContenderSummary, Figures, Summary};
use super::svg::{Bars, Dots};

/// File names and texts of every chart.
pub fn all(report: &Report, summary: &Summary) -> Vec<(&'static str, String)> {
    let time = dots(report, summary, "Time by cell", "time over the fastest allocator's", |f| {
        f.seconds.median
    });
    let memory = dots(
        report,
        summary,
        "Peak resident memory by cell",
        "peak over the leanest allocator's",
        |f| f.peak_rss_bytes,
    );
    let time_bars = bars(report, summary, "Time, geometric mean over the best", |c| c.time);
    let memory_bars =
        bars(report, summary, "Peak resident memory, geometric mean over mimalloc's", |c| {
            c.peak_rss
        });
    vec![
        ("time.svg", time.svg()),
        ("peak-rss.svg", memory.svg()),
        ("time-overall.svg", time_bars.svg()),
        ("peak-rss-overall.svg", memory_bars.svg()),
    ]
}

fn shown(report: &Report) -> Vec<usize> {
    (0..report.contenders.len()).filter(|&index| !report.contenders[index].control).collect()
}

fn dots(
    report: &Report,
    summary: &Summary,
    title: &str,
    axis: &str,
    figure: fn(&Figures) -> f64,
) -> Dots {
    let shown = shown(report);
    let rows = summary.cells.iter().map(|cell| {
        let values: Vec<Option<f64>> =
            shown.iter().map(|&index| cell.figures[index].as_ref().map(figure)).collect();
        let least = values.iter().flatten().copied().fold(f64::INFINITY, f64::min);
        (cell.name.clone(), values.iter().map(|value| value.map(|value| value / least)).collect())
    });
    Dots {
        title: format!("{title} (suite {})", report.suite),
        axis: axis.to_owned(),
        series: shown.iter().map(|&index| report.contenders[index].label.clone()).collect(),
        rows: rows.collect(),
    }
}

fn bars(
    report: &Report,
    summary: &Summary,
    title: &str,
    figure: fn(&ContenderSummary) -> Option<f64>,
) -> Bars {
    let rows = shown(report).into_iter().filter_map(|index| {
        let contender = &summary.contenders[index];
        Some((contender.label.clone(), figure(contender)?))
    });
    Bars { title: format!("{title} (suite {})", report.suite), rows: rows.collect() }
}
