//! What follows from the runs: medians, ratios, the A/A spread of each cell, and the three figures
//! of the last line.

use serde::Serialize;

use super::model::{Cell, Report};
use crate::peer::{FLAGSTONE, MIMALLOC};
use crate::stats::{Spread, Stability, aa_spread, geomean, median, stability};

/// All that is derived from a report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// One entry per cell.
    pub cells: Vec<CellSummary>,
    /// One entry per contender.
    pub contenders: Vec<ContenderSummary>,
    /// The figures of the last line.
    pub verdict: Verdict,
}

/// One cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellSummary {
    /// Its name.
    pub name: String,
    /// How far two sets of runs of the same allocator lie apart here; one entry per control that
    /// has runs.
    pub aa: Vec<AaSpread>,
    /// Position of the fastest contender, controls aside.
    pub best: Option<usize>,
    /// Position of the fastest one that is not Flagstone.
    pub best_peer: Option<usize>,
    /// Flagstone's time over that of the fastest peer.
    pub flagstone_ratio: Option<f64>,
    /// Whether that ratio lies outside the A/A spread.
    pub stability: Option<Stability>,
    /// One entry per contender; `None` where it has no runs.
    pub figures: Vec<Option<Figures>>,
}

/// The A/A spread of one allocator in one cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AaSpread {
    /// Position of the allocator among the contenders.
    pub contender: usize,
    /// Its name.
    pub peer: String,
    /// The spread as a share, by [`aa_spread`].
    pub spread: f64,
}

/// One contender in one cell.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Wall time in seconds.
    pub seconds: Spread,
    /// Median time over that of the fastest contender.
    pub ratio_to_best: f64,
    /// Whether that ratio lies outside the A/A spread.
    pub stability: Stability,
    /// Median of the largest resident set, bytes.
    pub peak_rss_bytes: f64,
    /// Median of the resident set at the end, bytes.
    pub final_rss_bytes: f64,
    /// Median of the page faults.
    pub minor_faults: f64,
}

/// One contender over all cells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ContenderSummary {
    /// Heading of its column.
    pub label: String,
    /// Geometric mean of its times over that of the best contender's, by the same cells. `None` if
    /// it lacks a cell.
    pub time: Option<f64>,
    /// The same for the largest resident set, over mimalloc's.
    pub peak_rss: Option<f64>,
    /// The same for the resident set at the end.
    pub final_rss: Option<f64>,
    /// Cells where it is the fastest.
    pub fastest: usize,
    /// Its slowest cell against the fastest contender.
    pub worst: Option<f64>,
}

/// The figures of the last line.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verdict {
    /// Flagstone's geometric mean over that of the peer whose geometric mean is best.
    pub time_vs_best_peer: Option<f64>,
    /// That peer.
    pub best_peer: Option<String>,
    /// The largest ratio to a cell's best peer among the cells that are stable.
    pub worst_ratio: Option<f64>,
    /// That cell.
    pub worst_cell: Option<String>,
    /// Flagstone's geometric mean of largest resident sets over mimalloc's.
    pub peak_rss_vs_mimalloc: Option<f64>,
}

impl Summary {
    /// Derives everything from the runs.
    pub fn of(report: &Report) -> Summary {
        let cells: Vec<CellSummary> =
            report.cells.iter().map(|cell| CellSummary::of(report, cell)).collect();
        let contenders = contenders(report, &cells);
        let verdict = verdict(report, &cells);
        Summary { cells, contenders, verdict }
    }
}

impl CellSummary {
    fn of(report: &Report, cell: &Cell) -> CellSummary {
        let medians: Vec<Option<f64>> =
            cell.runs.iter().map(|runs| median(&runs.seconds)).collect();
        let aa: Vec<AaSpread> = report
            .controls()
            .into_iter()
            .filter_map(|(contender, control)| {
                let runs = |index: usize| cell.runs[index].seconds.as_slice();
                let spread = aa_spread(runs(contender), runs(control))?;
                let peer = report.contenders[contender].peer.clone();
                Some(AaSpread { contender, peer, spread })
            })
            .collect();
        let fastest = |keep: &dyn Fn(usize) -> bool| {
            medians
                .iter()
                .enumerate()
                .filter(|&(index, _)| !report.contenders[index].control && keep(index))
                .filter_map(|(index, median)| Some((index, (*median)?)))
                .min_by(|a, b| a.1.total_cmp(&b.1))
        };
        let best = fastest(&|_| true);
        let best_peer = fastest(&|index| report.contenders[index].peer != FLAGSTONE);
        let flagstone = report.contender(FLAGSTONE);
        let flagstone_ratio =
            flagstone.and_then(|flagstone| Some(medians[flagstone]? / best_peer?.1));
        let flagstone_stability =
            flagstone_ratio.zip(flagstone.zip(best_peer)).map(|(ratio, (flagstone, (peer, _)))| {
                stability(ratio, spread_between(&aa, flagstone, peer))
            });
        let figures = cell
            .runs
            .iter()
            .enumerate()
            .map(|(index, runs)| {
                let seconds = Spread::of(&runs.seconds)?;
                let (fastest, least) = best?;
                let ratio_to_best = seconds.median / least;
                Some(Figures {
                    seconds,
                    ratio_to_best,
                    stability: stability(ratio_to_best, spread_between(&aa, index, fastest)),
                    peak_rss_bytes: median(&runs.peak_rss_bytes)?,
                    final_rss_bytes: median(&runs.final_rss_bytes)?,
                    minor_faults: median(&runs.minor_faults)?,
                })
            })
            .collect();
        CellSummary {
            name: cell.name.clone(),
            best: best.map(|(index, _)| index),
            best_peer: best_peer.map(|(index, _)| index),
            flagstone_ratio,
            stability: flagstone_stability,
            figures,
            aa,
        }
    }
}

/// What chance can do to the ratio of two contenders: the larger of their own A/A spreads, as far as
/// they have controls; the largest of all if neither has.
fn spread_between(aa: &[AaSpread], a: usize, b: usize) -> f64 {
    let largest = |keep: &dyn Fn(&AaSpread) -> bool| {
        aa.iter().filter(|aa| keep(aa)).map(|aa| aa.spread).max_by(f64::total_cmp)
    };
    let own = largest(&|aa| aa.contender == a || aa.contender == b);
    own.or_else(|| largest(&|_| true)).unwrap_or(0.0)
}

/// The geometric mean of one figure of a contender over all cells. `None` if it lacks one: a mean
/// over fewer cells would not compare.
fn mean_of(
    cells: &[CellSummary],
    contender: usize,
    figure: impl Fn(&Figures) -> f64,
) -> Option<f64> {
    let values: Option<Vec<f64>> =
        cells.iter().map(|cell| cell.figures[contender].as_ref().map(&figure)).collect();
    geomean(values?)
}

fn time(figures: &Figures) -> f64 {
    figures.seconds.median
}

fn peak(figures: &Figures) -> f64 {
    figures.peak_rss_bytes
}

fn contenders(report: &Report, cells: &[CellSummary]) -> Vec<ContenderSummary> {
    let mimalloc = report.contender(MIMALLOC);
    let best_time = (0..report.contenders.len())
        .filter(|&index| !report.contenders[index].control)
        .filter_map(|index| mean_of(cells, index, time))
        .min_by(f64::total_cmp);
    let over = |index, base: Option<usize>, figure: fn(&Figures) -> f64| {
        Some(mean_of(cells, index, figure)? / mean_of(cells, base?, figure)?)
    };
    report
        .contenders
        .iter()
        .enumerate()
        .map(|(index, contender)| ContenderSummary {
            label: contender.label.clone(),
            time: mean_of(cells, index, time).zip(best_time).map(|(own, best)| own / best),
            peak_rss: over(index, mimalloc, peak),
            final_rss: over(index, mimalloc, |figures| figures.final_rss_bytes),
            fastest: cells.iter().filter(|cell| cell.best == Some(index)).count(),
            worst: cells
                .iter()
                .filter_map(|cell| Some(cell.figures[index]?.ratio_to_best))
                .max_by(f64::total_cmp),
        })
        .collect()
}

fn verdict(report: &Report, cells: &[CellSummary]) -> Verdict {
    let flagstone = report.contender(FLAGSTONE);
    let best_peer = report
        .contenders
        .iter()
        .enumerate()
        .filter(|(_, contender)| !contender.control && contender.peer != FLAGSTONE)
        .filter_map(|(index, contender)| Some((mean_of(cells, index, time)?, &contender.peer)))
        .min_by(|a, b| a.0.total_cmp(&b.0));
    let worst = cells
        .iter()
        .filter(|cell| cell.stability == Some(Stability::Stable))
        .filter_map(|cell| Some((cell.flagstone_ratio?, &cell.name)))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    Verdict {
        time_vs_best_peer: flagstone
            .and_then(|index| mean_of(cells, index, time))
            .zip(best_peer)
            .map(|(own, (best, _))| own / best),
        best_peer: best_peer.map(|(_, name)| name.clone()),
        worst_ratio: worst.map(|(ratio, _)| ratio),
        worst_cell: worst.map(|(_, name)| name.clone()),
        peak_rss_vs_mimalloc: flagstone.zip(report.contender(MIMALLOC)).and_then(|(own, other)| {
            Some(mean_of(cells, own, peak)? / mean_of(cells, other, peak)?)
        }),
    }
}
