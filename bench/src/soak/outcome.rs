//! What a soak gave, as JSON and as a Markdown page, and its last line.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Serialize;

use super::checks::{Check, Entry};
use super::ending::Baseline;
use super::plan::Plan;
use super::scene::Percentiles;
use super::trend::{Flatness, TOLERATED_BYTES, TOLERATED_SHARE};
use super::watch::Watched;
use crate::driver::host::Host;
use crate::report::model::SkippedPeer;

const MIB: f64 = (1 << 20) as f64;

/// The resident set in one round.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Reading {
    /// Which round.
    pub round: usize,
    /// The middle of its churn, from the beginning of the soak.
    pub seconds: f64,
    /// The median of its readings.
    pub bytes: f64,
    /// Bytes of keys, values and tables at its end, by the server's own account.
    pub data: Option<u64>,
    /// Where the heap's bytes were then, where Flagstone serves.
    pub heap: Option<Parts>,
}

/// The parts of the heap, in bytes, as `/stats.json` has them.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Parts {
    /// Blocks in use.
    pub live: i64,
    /// Free blocks and free slabs with pages.
    pub cached: i64,
    /// What no block covers.
    pub fragmentation: i64,
}

/// One server's soak.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// How long the load lasted.
    pub seconds: f64,
    /// Rounds.
    pub rounds: usize,
    /// Rounds at the start whose resident set does not count.
    pub warm_up: usize,
    /// What the clients did.
    pub counts: BTreeMap<&'static str, u64>,
    /// Latencies while there was only load.
    pub churn: Option<Percentiles>,
    /// The same requests, from when they were due.
    pub due: Option<Percentiles>,
    /// Latencies during faults.
    pub faults: Option<Percentiles>,
    /// Processor time of the server during the load, in seconds.
    pub processor_seconds: Option<f64>,
    /// Share of the machine's processor time that was in use meanwhile, by whomever.
    pub busy: Option<f64>,
    /// The resident set by round.
    pub resident: Vec<Reading>,
    /// The verdict on it.
    pub flatness: Option<Flatness>,
    /// Resident bytes when everything was deleted and everybody gone.
    pub resident_at_end: Option<u64>,
    /// Largest resident set.
    pub peak_resident: Option<u64>,
    /// What the server held at the start.
    pub baseline: Option<Baseline>,
    /// What the watch saw.
    pub watched: Watched,
    /// The checks.
    pub checks: Vec<(Check, Entry)>,
}

impl Outcome {
    /// The verdict on the resident set as it is; none for too few rounds after the warm-up.
    pub fn judge(&self) -> Option<Flatness> {
        let after = self.resident.iter().filter(|reading| reading.round >= self.warm_up);
        let readings: Vec<(f64, f64)> =
            after.map(|reading| (reading.seconds, reading.bytes)).collect();
        Flatness::of(&readings)
    }

    /// Median of what the rounds after the warm-up read.
    fn median_of(&self, read: impl Fn(&Reading) -> Option<f64>) -> Option<f64> {
        let after = self.resident.iter().filter(|reading| reading.round >= self.warm_up);
        crate::stats::median(&after.filter_map(read).collect::<Vec<f64>>())
    }

    /// The last round's reading in words.
    pub fn last_reading(&self) -> String {
        let Some(last) = self.resident.last() else { return String::from("not read") };
        let data = last.data.map_or(f64::NAN, |bytes| bytes as f64 / MIB);
        format!("{:.1} MiB resident for {data:.1} of data", last.bytes / MIB)
    }

    /// The checks that did not hold.
    pub fn failed(&self) -> Vec<Check> {
        self.checks.iter().filter(|(_, entry)| entry.failed()).map(|(check, _)| *check).collect()
    }
}

/// The soak of one build.
#[derive(Clone, Debug, Serialize)]
pub struct Entrant {
    /// Its allocator.
    pub name: String,
    /// What the server says of it.
    pub version: String,
    /// What it gave.
    pub outcome: Outcome,
}

/// Everything of one run.
#[derive(Clone, Debug, Serialize)]
pub struct SoakReport {
    /// The machine and the sources.
    pub host: Host,
    /// Time of each soak, as asked for, in seconds.
    pub length: f64,
    /// A tenth of the load.
    pub light: bool,
    /// Servers that were soaked at once.
    pub at_once: u32,
    /// Errors injected on purpose.
    pub injected: Vec<&'static str>,
    /// The soaks.
    pub entrants: Vec<Entrant>,
    /// Builds that are missing.
    pub skipped: Vec<SkippedPeer>,
}

/// Adds a line; writing to a string does not fail.
macro_rules! line {
    ($page:expr, $($arg:tt)*) => { writeln!($page, $($arg)*).expect("a string takes every line") };
}

impl SoakReport {
    /// A report without soaks yet.
    pub fn new(host: Host, plan: &Plan) -> SoakReport {
        SoakReport {
            host,
            length: plan.length.as_secs_f64(),
            light: plan.light,
            at_once: plan.at_once,
            injected: plan.inject.iter().map(|injected| injected.name()).collect(),
            entrants: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Checks that did not hold, over all soaks.
    pub fn failures(&self) -> usize {
        self.entrants.iter().map(|entrant| entrant.outcome.failed().len()).sum()
    }

    /// Writes `report.json` and `report.md`.
    pub fn write(&self, folder: &Path) -> io::Result<[PathBuf; 2]> {
        fs::create_dir_all(folder)?;
        let paths = [folder.join("report.json"), folder.join("report.md")];
        fs::write(&paths[0], serde_json::to_string_pretty(self)?)?;
        fs::write(&paths[1], self.page())?;
        Ok(paths)
    }

    /// The last line: who held, and the figures of the first.
    pub fn last_line(&self) -> String {
        let verdicts: Vec<String> = self.entrants.iter().map(verdict).collect();
        format!("soak: {}", verdicts.join(" · "))
    }

    /// The Markdown page.
    pub fn page(&self) -> String {
        let mut page = String::new();
        let host = &self.host;
        line!(page, "# Soak\n");
        line!(
            page,
            "{:.0} s each, {} load{}, on {} ({} CPUs, {:.0} GiB, Linux {}), commit `{}`.{}\n",
            self.length,
            if self.light { "a tenth of the" } else { "full" },
            if self.at_once > 1 {
                format!(" on each of {} servers at once", self.at_once)
            } else {
                String::new()
            },
            host.cpu,
            host.cpus,
            host.memory_bytes as f64 / f64::from(1 << 30),
            host.kernel,
            host.commit,
            if self.injected.is_empty() {
                String::new()
            } else {
                format!(" Injected on purpose: {}.", self.injected.join(", "))
            },
        );
        self.summary(&mut page);
        self.memory(&mut page);
        self.latencies(&mut page);
        self.checks(&mut page);
        self.work(&mut page);
        self.rounds(&mut page);
        page
    }

    fn summary(&self, page: &mut String) {
        line!(page, "## Summary\n");
        line!(
            page,
            "Resident set and data: medians after the warm-up, in MiB; data is what keys, values and \
             tables take by the server's own account, `live` what the heap has given out to anybody. \
             Latency of single requests without a fault, in ms, from when they were due. Processor \
             time is the server's during the load. Failures are checks that did not hold.\n"
        );
        line!(
            page,
            "| allocator | resident | slope (MiB/h) | data | live | p50 | p99 | p999 | processor s | \
             machine busy | rounds | failures |"
        );
        line!(page, "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
        for Entrant { name, outcome, .. } in &self.entrants {
            let figure = |value: Option<f64>, digits: usize| match value {
                Some(value) => format!("{value:.digits$}"),
                None => String::from("-"),
            };
            let mib = |bytes: Option<f64>| figure(bytes.map(|bytes| bytes / MIB), 1);
            let slope = outcome.flatness.map(|f| f.slope.per_second * 3600.0 / MIB);
            let due = outcome.due.filter(|due| due.count > 0);
            line!(
                page,
                "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} % | {} | {} |",
                mib(outcome.median_of(|reading| Some(reading.bytes))),
                slope.map_or_else(|| String::from("-"), |slope| format!("{slope:+.1}")),
                mib(outcome.median_of(|reading| reading.data.map(|bytes| bytes as f64))),
                mib(outcome.median_of(|reading| reading.heap.map(|parts| parts.live as f64))),
                figure(due.map(|due| due.p50), 3),
                figure(due.map(|due| due.p99), 3),
                figure(due.map(|due| due.p999), 3),
                figure(outcome.processor_seconds, 0),
                figure(outcome.busy.map(|share| 100.0 * share), 0),
                outcome.rounds,
                outcome.failed().len(),
            );
        }
        line!(page, "");
    }

    fn memory(&self, page: &mut String) {
        line!(page, "## Resident set\n");
        line!(
            page,
            "Medians of each round's churn, warm-up left out; Theil-Sen slope with its 95 % bounds. It \
             counts as rising if the lower bound proves more growth than {:.0} % of the median, and \
             more than {:.0} MiB, over the window. `empty` is what stays when every key is deleted \
             and every client gone.\n",
            100.0 * TOLERATED_SHARE,
            TOLERATED_BYTES / MIB,
        );
        line!(
            page,
            "| allocator | rounds | warm-up | window | median | slope (MiB/h) | 95 % | peak | empty | |"
        );
        line!(page, "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|");
        for Entrant { name, outcome, .. } in &self.entrants {
            let mib = |bytes: Option<u64>| match bytes {
                Some(bytes) => format!("{:.1}", bytes as f64 / MIB),
                None => String::from("-"),
            };
            let (peak, empty) = (mib(outcome.peak_resident), mib(outcome.resident_at_end));
            let Some(flatness) = outcome.flatness else {
                line!(
                    page,
                    "| {name} | {} | {} | | | | | {peak} | {empty} | no verdict |",
                    outcome.rounds,
                    outcome.warm_up
                );
                continue;
            };
            let hourly = |per_second: f64| per_second * 3600.0 / MIB;
            line!(
                page,
                "| {name} | {} | {} | {:.0} s | {:.1} | {:+.1} | {:+.1} ... {:+.1} | {peak} | {empty} | {} |",
                outcome.rounds,
                outcome.warm_up,
                flatness.window,
                flatness.median / MIB,
                hourly(flatness.slope.per_second),
                hourly(flatness.slope.lower),
                hourly(flatness.slope.upper),
                if flatness.rises() { "**rises**" } else { "flat" },
            );
        }
        line!(page, "");
    }

    fn latencies(&self, page: &mut String) {
        line!(page, "## Latency (ms)\n");
        line!(
            page,
            "Single requests of the key clients, from send to reply, beside everything else that the \
             machine does, its pauses included. Each client's turns are due at a fixed rate, one that \
             comes late delays the next: `from due` counts a turn's first request from then. Who falls \
             behind by half a second starts afresh.\n"
        );
        line!(page, "| allocator | while | requests | p50 | p95 | p99 | p999 | longest |");
        line!(page, "|---|---|--:|--:|--:|--:|--:|--:|");
        for Entrant { name, outcome, .. } in &self.entrants {
            let parts = [
                ("load", outcome.churn),
                ("load, from due", outcome.due),
                ("faults", outcome.faults),
            ];
            for (when, percentiles) in parts {
                let Some(p) = percentiles.filter(|p| p.count > 0) else { continue };
                line!(
                    page,
                    "| {name} | {when} | {} | {:.3} | {:.3} | {:.3} | {:.3} | {:.1} |",
                    p.count,
                    p.p50,
                    p.p95,
                    p.p99,
                    p.p999,
                    p.max
                );
            }
        }
        line!(page, "");
    }

    fn checks(&self, page: &mut String) {
        line!(page, "## Checks\n");
        let names: Vec<&str> = self.entrants.iter().map(|entrant| entrant.name.as_str()).collect();
        line!(page, "| check | what must hold | {} |", names.join(" | "));
        line!(page, "|---|---|{}", "---|".repeat(names.len()));
        for (index, check) in Check::ALL.into_iter().enumerate() {
            let verdicts: Vec<String> = self
                .entrants
                .iter()
                .filter_map(|entrant| entrant.outcome.checks.get(index))
                .map(|(_, entry)| in_words(entry))
                .collect();
            line!(page, "| `{check}` | {} | {} |", check.about(), verdicts.join(" | "));
        }
        line!(page, "");
        for Entrant { name, outcome, .. } in &self.entrants {
            for (check, entry) in &outcome.checks {
                for violation in &entry.violations {
                    line!(page, "- {name}, `{check}`: {}", violation.replace('\n', " "));
                }
                if let Some(excuse) = &entry.excuse {
                    line!(page, "- {name}, `{check}` not checked: {excuse}");
                }
            }
        }
        for SkippedPeer { peer, reason } in &self.skipped {
            line!(page, "- {peer} is missing: {}", reason.replace('\n', " "));
        }
        line!(page, "");
    }

    fn work(&self, page: &mut String) {
        line!(page, "## What was done\n");
        for Entrant { name, version, outcome } in &self.entrants {
            let counts: Vec<String> =
                outcome.counts.iter().map(|(what, n)| format!("{n} {what}")).collect();
            let seen = &outcome.watched;
            line!(page, "- {name} ({version}): {:.0} s; {}.", outcome.seconds, counts.join(", "));
            line!(
                page,
                "  Seen: {} readings of `/stats.json` and {} of `/metrics`, largest residual {} \
                 bytes, at most {} bytes retired and waiting, oldest guard {:.1} s, {} grace periods, \
                 {} pauses of the machine ({:.0} s).",
                seen.scrapes,
                seen.pages,
                seen.largest_residual,
                seen.largest_pending,
                seen.oldest_guard,
                seen.grace_periods,
                seen.pauses,
                seen.paused,
            );
        }
        line!(page, "");
    }

    fn rounds(&self, page: &mut String) {
        line!(page, "## Resident set by round (MiB)\n");
        line!(
            page,
            "In parentheses, where Flagstone serves: live, cached and fragmented bytes of the heap.\n"
        );
        for Entrant { name, outcome, .. } in &self.entrants {
            let rounds = outcome.resident.iter().map(|reading| {
                let resident = reading.bytes / MIB;
                match reading.heap {
                    None => format!("{resident:.1}"),
                    Some(Parts { live, cached, fragmentation }) => {
                        let [live, cached, lost] =
                            [live, cached, fragmentation].map(|bytes| bytes as f64 / MIB);
                        format!("{resident:.1} ({live:.1} + {cached:.1} + {lost:.1})")
                    }
                }
            });
            line!(page, "- {name}: {}", rounds.collect::<Vec<_>>().join(" "));
        }
    }
}

fn in_words(entry: &Entry) -> String {
    match entry {
        Entry { broken: 0, held: 0, excuse: Some(_), .. } => String::from("-"),
        Entry { broken: 0, held: 0, .. } => String::from("**never checked**"),
        Entry { broken: 0, held, .. } => format!("held {held} x"),
        Entry { broken, held, .. } => format!("**broken {broken} x**, held {held} x"),
    }
}

fn verdict(entrant: &Entrant) -> String {
    let Entrant { name, outcome, .. } = entrant;
    let failed = outcome.failed();
    if !failed.is_empty() {
        let names: Vec<&str> = failed.iter().map(|check| check.name()).collect();
        return format!("{name} FAILED ({})", names.join(", "));
    }
    let hourly = outcome.flatness.map_or(f64::NAN, |f| f.slope.per_second * 3600.0 / MIB);
    let churn = outcome.churn.map_or_else(String::new, |p| {
        format!(", p50/p99/p999 {:.2}/{:.2}/{:.2} ms", p.p50, p.p99, p.p999)
    });
    format!("{name} held for {:.0} s, slope {hourly:+.1} MiB/h{churn}", outcome.seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entrant(broken: bool) -> Entrant {
        let ledger = crate::soak::checks::Ledger::default();
        for check in Check::ALL {
            ledger.held(check);
        }
        if broken {
            ledger.broke(Check::Resident, "it\nrises");
        }
        let outcome = Outcome { checks: ledger.entries(), seconds: 60.0, ..Outcome::default() };
        Entrant { name: String::from("flagstone"), version: String::from("1"), outcome }
    }

    fn report(broken: bool) -> SoakReport {
        let plan = Plan {
            length: std::time::Duration::from_secs(60),
            light: false,
            at_once: 3,
            faults: Vec::new(),
            inject: Vec::new(),
        };
        let mut report = SoakReport::new(Host::look(Path::new("/")), &plan);
        report.entrants.push(entrant(broken));
        report
    }

    #[test]
    fn the_summary_has_every_figure_after_the_warm_up() {
        let mut report = report(false);
        let mut due = crate::soak::scene::Latencies::default().due;
        due.saturating_record(2_000_000);
        let mib = |n: u64| n << 20;
        let parts = |live| Parts { live, cached: 0, fragmentation: 0 };
        let reading = |round: usize, n: u64| Reading {
            round,
            seconds: 60.0 * round as f64,
            bytes: mib(n) as f64,
            data: Some(mib(n) / 2),
            heap: Some(parts(mib(n) as i64 / 4)),
        };
        let outcome = &mut report.entrants[0].outcome;
        outcome.resident = (0..8).map(|round| reading(round, 40 + 4 * round as u64)).collect();
        (outcome.rounds, outcome.warm_up) = (8, 2);
        outcome.flatness = outcome.judge();
        outcome.due = Some(Percentiles::of(&due));
        (outcome.processor_seconds, outcome.busy) = (Some(12.0), Some(0.255));
        let page = report.page();
        let row = "| flagstone | 58.0 | +240.0 | 29.0 | 14.5 | 2.001 | 2.001 | 2.001 | 12 | 26 % | 8 | 0 |";
        assert!(page.contains(row) && page.contains("on each of 3 servers at once"), "{page}");
        assert_eq!(report.entrants[0].outcome.last_reading(), "68.0 MiB resident for 34.0 of data");
    }

    #[test]
    fn a_violation_is_in_every_form_of_the_report() {
        let sound = report(false);
        assert_eq!(sound.failures(), 0);
        assert!(sound.last_line().starts_with("soak: flagstone held for 60 s"));
        assert!(!sound.page().contains("**broken"));
        let broken = report(true);
        assert_eq!(broken.failures(), 1);
        assert_eq!(broken.last_line(), "soak: flagstone FAILED (resident)");
        assert!(broken.page().contains("- flagstone, `resident`: it rises"), "{}", broken.page());
        assert!(serde_json::to_string(&broken).unwrap().contains("rises"));
    }
}
