//! The report as a Markdown page: who ran, the summary, and a table each for time, peak and final
//! memory, faults and noise.

use std::fmt::Write as _;

use super::model::Report;
use super::summary::{CellSummary, Figures, Summary};
use crate::stats::Stability;

/// The whole page.
pub fn page(report: &Report, summary: &Summary) -> String {
    let mut page = String::new();
    head(&mut page, report);
    contenders(&mut page, report, summary);
    times(&mut page, report, summary);
    memory(&mut page, report, summary, "Peak resident memory (MiB)", |f| f.peak_rss_bytes);
    memory(&mut page, report, summary, "Resident memory at the end (MiB)", |f| f.final_rss_bytes);
    absolute(&mut page, report, summary);
    failures(&mut page, report);
    page
}

/// Adds a line; writing to a string does not fail.
macro_rules! line {
    ($page:expr, $($arg:tt)*) => { writeln!($page, $($arg)*).expect("a string takes every line") };
}

/// The part over all cells alone, for the terminal.
pub fn overview(report: &Report, summary: &Summary) -> String {
    let mut page = String::new();
    contenders(&mut page, report, summary);
    page
}

fn head(page: &mut String, report: &Report) {
    let host = &report.host;
    line!(page, "# Suite `{}`\n", report.suite);
    line!(
        page,
        "Rounds: {}, interleaved, on {} ({} CPUs, {:.0} GiB, Linux {}, huge pages: {}), commit `{}`.\n",
        report.rounds,
        host.cpu,
        host.cpus,
        host.memory_bytes as f64 / f64::from(1 << 30),
        host.kernel,
        host.huge_pages,
        host.commit,
    );
}

fn contenders(page: &mut String, report: &Report, summary: &Summary) {
    line!(page, "## Over all cells\n");
    line!(
        page,
        "Geometric means. Time over the fastest allocator's, memory over mimalloc's; less is better.\n"
    );
    line!(page, "| allocator | version | time | worst cell | fastest in | peak RSS | final RSS |");
    line!(page, "|---|---|--:|--:|--:|--:|--:|");
    for (contender, summary) in report.contenders.iter().zip(&summary.contenders) {
        let fastest = if contender.control { String::new() } else { summary.fastest.to_string() };
        line!(
            page,
            "| {} | {} | {} | {} | {fastest} | {} | {} |",
            contender.label,
            contender.version,
            number(summary.time),
            number(summary.worst),
            number(summary.peak_rss),
            number(summary.final_rss),
        );
    }
    line!(page, "");
    for skipped in &report.skipped {
        let reason = skipped.reason.lines().last().unwrap_or_default();
        line!(page, "`{}` was not measured: {reason}\n", skipped.peer);
    }
}

fn times(page: &mut String, report: &Report, summary: &Summary) {
    line!(page, "## Time, over the fastest allocator of the cell\n");
    line!(
        page,
        "Ratios of medians. **Bold**: the fastest. `~`: unstable, the difference to the fastest lies \
         inside the A/A spread and is neither a win nor a loss.\n"
    );
    let aa: Vec<&str> = report
        .controls()
        .into_iter()
        .map(|(contender, _)| report.contenders[contender].label.as_str())
        .collect();
    header(page, report, &[&format!("A/A spread ({})", aa.join(", "))]);
    for cell in &summary.cells {
        let aa: Vec<String> =
            cell.aa.iter().map(|aa| format!("{:.1} %", aa.spread * 100.0)).collect();
        let mut row = format!("| {} | {} |", cell.name, aa.join(", "));
        for index in columns(report) {
            let text = match &cell.figures[index] {
                None => String::from("–"),
                Some(_) if cell.best == Some(index) => String::from("**1.00**"),
                Some(figures) => {
                    let mark = if figures.stability == Stability::Unstable { "~" } else { "" };
                    format!("{mark}{:.2}", figures.ratio_to_best)
                }
            };
            write!(row, " {text} |").expect("a string takes every line");
        }
        line!(page, "{row}");
    }
    line!(page, "");
}

fn memory(
    page: &mut String,
    report: &Report,
    summary: &Summary,
    title: &str,
    figure: fn(&Figures) -> f64,
) {
    line!(page, "## {title}\n");
    header(page, report, &[]);
    for cell in &summary.cells {
        let mut row = format!("| {} |", cell.name);
        for index in columns(report) {
            let text = match &cell.figures[index] {
                None => String::from("–"),
                Some(figures) => format!("{:.1}", figure(figures) / f64::from(1 << 20)),
            };
            write!(row, " {text} |").expect("a string takes every line");
        }
        line!(page, "{row}");
    }
    line!(page, "");
}

fn absolute(page: &mut String, report: &Report, summary: &Summary) {
    line!(page, "## Medians, spreads and page faults\n");
    line!(
        page,
        "Median wall time in milliseconds, distance between the quartiles as a share of it, and \
         page faults.\n"
    );
    header(page, report, &["operations"]);
    for (cell, CellSummary { figures, .. }) in report.cells.iter().zip(&summary.cells) {
        let mut row = format!("| {} | {} |", cell.name, cell.operations);
        for index in columns(report) {
            let text = match &figures[index] {
                None => String::from("–"),
                Some(figures) => format!(
                    "{:.1} ±{:.0} % {}",
                    figures.seconds.median * 1e3,
                    figures.seconds.relative_iqr() * 100.0,
                    thousands(figures.minor_faults),
                ),
            };
            write!(row, " {text} |").expect("a string takes every line");
        }
        line!(page, "{row}");
    }
    line!(page, "\n## The cells\n");
    for cell in &report.cells {
        let params: Vec<String> =
            cell.params.iter().map(|(name, value)| format!("{name} {value}")).collect();
        line!(page, "- `{}`: {} ({})", cell.name, cell.about, params.join(", "));
    }
}

fn failures(page: &mut String, report: &Report) {
    if report.failures.is_empty() {
        return;
    }
    line!(page, "\n## Failures\n");
    for failure in &report.failures {
        let reason = failure.reason.lines().next().unwrap_or_default();
        line!(page, "- `{}` under {}: {reason}", failure.cell, failure.contender);
    }
}

/// The head of a table: the cell, some columns, and the contenders.
fn header(page: &mut String, report: &Report, more: &[&str]) {
    let labels = columns(report).map(|index| report.contenders[index].label.as_str());
    let titles: Vec<&str> = more.iter().copied().chain(labels).collect();
    line!(page, "| cell | {} |", titles.join(" | "));
    line!(page, "|---|{}", "--:|".repeat(titles.len()));
}

/// The columns of a table: controls show in the A/A spread alone.
fn columns(report: &Report) -> impl Iterator<Item = usize> + '_ {
    (0..report.contenders.len()).filter(|&index| !report.contenders[index].control)
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| String::from("–"), |value| format!("{value:.3}"))
}

fn thousands(value: f64) -> String {
    if value >= 10_000.0 { format!("{:.0}k", value / 1e3) } else { format!("{value:.0}") }
}
