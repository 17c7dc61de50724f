//! What is read from outside while a soak runs: `/stats.json` and `/metrics`, held against what they
//! promise (`docs/stats.md`), and the pauses of the machine itself.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::checks::{Check, Ledger};
use super::faults::poll;
use super::scene::Scene;

/// Time between two readings of `/stats.json`.
const BETWEEN: Duration = Duration::from_millis(500);
/// Every so many readings one of `/metrics` as well.
const METRICS_EVERY: u64 = 4;
/// Pages of `/metrics` that are given to promtool, spread over the soak.
const PROMTOOL_RUNS: u32 = 6;
/// What may be in flight between counters that are read one by one, in bytes: the residual of a heap
/// that works.
const IN_FLIGHT: i64 = 1 << 20;
/// Further looks at a residual above that, a large block or two being in flight.
const LOOKS: usize = 10;
/// A guard or a grace period that takes longer is stalled.
const STALLED: Duration = Duration::from_secs(60);
/// A rest that takes so much longer than asked for is the machine's pause, and nobody's stall.
const PAUSE: Duration = Duration::from_secs(1);

/// What was seen.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Watched {
    /// Readings of `/stats.json`.
    pub scrapes: u64,
    /// Readings of `/metrics`.
    pub pages: u64,
    /// Largest residual, in bytes, without its sign.
    pub largest_residual: u64,
    /// Largest number of retired bytes that waited in any domain.
    pub largest_pending: u64,
    /// Longest age of a guard, in seconds.
    pub oldest_guard: f64,
    /// Grace periods that were completed.
    pub grace_periods: u64,
    /// Pauses of this machine: how many.
    pub pauses: u64,
    /// Their sum, in seconds.
    pub paused: f64,
}

/// Watches until the end.
pub fn watch(scene: &Scene<'_>, heap_serves: bool) -> Watched {
    let mut watched = Watched::default();
    let mut counters = Counters::default();
    let mut epochs = Epochs::default();
    let promtool = is_there("promtool");
    if !promtool {
        scene.ledger.excuse(Check::Exposition, "promtool is not installed");
    }
    if !heap_serves {
        scene.ledger.excuse(Check::Identity, "Flagstone's heap does not serve in this build");
    }
    let mut checked_pages = 0;
    loop {
        let resting = Instant::now();
        let stopped = scene.pulse.rest(BETWEEN);
        let over = resting.elapsed().saturating_sub(BETWEEN);
        let paused = over > PAUSE;
        if paused {
            watched.pauses += 1;
            watched.paused += over.as_secs_f64();
        }
        if stopped {
            return watched;
        }
        match read_json(scene) {
            Ok(stats) => {
                watched.scrapes += 1;
                if heap_serves {
                    identity(scene.ledger, &stats, &mut watched, || read_json(scene));
                }
                epochs.check(scene.ledger, &stats, paused, &mut watched);
            }
            Err(error) => scene.ledger.broke(Check::Alive, format!("/stats.json: {error}")),
        }
        if !watched.scrapes.is_multiple_of(METRICS_EVERY) {
            continue;
        }
        match scene.target.fetch("/metrics") {
            Ok(page) => {
                watched.pages += 1;
                scene.ledger.judge(Check::Counters, counters.check(&page));
                let due = scene.plan.length * checked_pages / PROMTOOL_RUNS;
                if promtool && scene.began.elapsed() >= due {
                    checked_pages += 1;
                    scene.ledger.judge(Check::Exposition, lint(&page));
                }
            }
            Err(error) => scene.ledger.broke(Check::Alive, format!("/metrics: {error}")),
        }
    }
}

/// One reading of `/stats.json`.
pub fn read_json(scene: &Scene<'_>) -> Result<Value, String> {
    let text = scene.target.fetch("/stats.json").map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

/// A number of `/stats.json`, `null` and what is not there being none.
pub fn number(stats: &Value, path: &str) -> Option<i64> {
    stats.pointer(path)?.as_i64()
}

/// Parts and whole, and the counters that belong together. What is in flight comes and goes: a residual
/// is an error if it is there whenever one looks again.
fn identity(
    ledger: &Ledger,
    stats: &Value,
    watched: &mut Watched,
    mut again: impl FnMut() -> Result<Value, String>,
) {
    let mut found = residual(stats);
    if let Ok(residual) = found {
        watched.largest_residual = watched.largest_residual.max(residual.unsigned_abs());
    }
    for _ in 0..LOOKS {
        if found.as_ref().is_ok_and(|residual| residual.abs() > IN_FLIGHT) {
            found = again().and_then(|stats| residual(&stats));
        }
    }
    ledger.judge(
        Check::Identity,
        found.and_then(|residual| {
            if residual.abs() <= IN_FLIGHT {
                Ok(())
            } else {
                Err(format!("{residual} bytes are mapped and in no part of the heap"))
            }
        }),
    );
    ledger.judge(Check::Identity, agreements(stats));
}

/// Mapped bytes less the sum of the parts are zero when nobody is at work.
pub fn identity_at_rest(scene: &Scene<'_>) -> Result<(), String> {
    poll("the residual of a heap at rest to be zero", || {
        let stats = read_json(scene).map_err(io::Error::other)?;
        Ok(residual(&stats).map_err(io::Error::other)? == 0)
    })
}

/// Mapped bytes less the sum of the parts, computed here and as the server says it.
fn residual(stats: &Value) -> Result<i64, String> {
    let bytes = |name: &str| {
        number(stats, &format!("/heap/bytes/{name}")).ok_or(format!("no heap.bytes.{name}"))
    };
    let mut parts = 0;
    for part in ["live", "cached", "fragmentation", "retired", "metadata"] {
        let part_bytes = bytes(part)?;
        if part_bytes < 0 {
            return Err(format!("heap.bytes.{part} is {part_bytes}"));
        }
        parts += part_bytes;
    }
    let ours = bytes("mapped")? - parts;
    let theirs = bytes("residual")?;
    if ours == theirs {
        Ok(ours)
    } else {
        Err(format!("the parts leave {ours} bytes, the server says {theirs}"))
    }
}

/// The identities between counters that `docs/stats.md` names.
fn agreements(stats: &Value) -> Result<(), String> {
    let difference = |whole: &str, more: &str, less: &str| -> Result<(), String> {
        let get = |path: &str| number(stats, path).ok_or(format!("no {path}"));
        let (whole_is, more_is, less_is) = (get(whole)?, get(more)?, get(less)?);
        if whole_is == more_is - less_is {
            Ok(())
        } else {
            Err(format!("{whole} is {whole_is}, {more} - {less} is {more_is} - {less_is}"))
        }
    };
    difference(
        "/heap/remote/pending_blocks",
        "/heap/remote/posted_blocks",
        "/heap/remote/drained_blocks",
    )?;
    difference(
        "/heap/segments/segments",
        "/heap/segments/mapped_total",
        "/heap/segments/unmapped_total",
    )?;
    let classes = stats.pointer("/heap/classes").and_then(Value::as_array);
    for class in 0..classes.map_or(0, Vec::len) {
        let at = |name: &str| format!("/heap/classes/{class}/{name}");
        difference(&at("in_use"), &at("allocs"), &at("frees"))?;
    }
    let domains = stats.pointer("/domains").and_then(Value::as_array);
    for domain in 0..domains.map_or(0, Vec::len) {
        for what in ["blocks", "bytes"] {
            let at = |name: &str| format!("/domains/{domain}/{name}/{what}");
            difference(&at("pending"), &at("retired"), &at("reclaimed"))?;
        }
    }
    Ok(())
}

/// What is remembered of each domain's epochs from one reading to the next.
#[derive(Debug, Default)]
struct Epochs(HashMap<String, Progress>);

#[derive(Clone, Copy, Debug)]
struct Progress {
    completed: i64,
    stalls: i64,
    /// Since when batches have waited without a grace period completing.
    waiting_since: Option<Instant>,
}

impl Epochs {
    fn check(&mut self, ledger: &Ledger, stats: &Value, paused: bool, watched: &mut Watched) {
        let domains = stats.pointer("/domains").and_then(Value::as_array);
        let Some(domains) = domains.filter(|domains| !domains.is_empty()) else {
            ledger.broke(Check::Epochs, "/stats.json tells of no domain");
            return;
        };
        watched.grace_periods = 0;
        for domain in domains {
            let get = |path: &str| number(domain, path).unwrap_or(0);
            let name = domain.pointer("/domain").and_then(Value::as_str).unwrap_or_default();
            let age = Duration::from_nanos(get("/oldest_guard/age_nanos").max(0) as u64);
            watched.oldest_guard = watched.oldest_guard.max(age.as_secs_f64());
            let pending = get("/pending/bytes").max(0) as u64;
            watched.largest_pending = watched.largest_pending.max(pending);
            watched.grace_periods += get("/grace/completed").max(0) as u64;
            ledger.judge(Check::Epochs, self.judge(name, domain, paused));
        }
    }

    fn judge(&mut self, name: &str, domain: &Value, paused: bool) -> Result<(), String> {
        let get = |path: &str| number(domain, path).ok_or(format!("domain {name}: no {path}"));
        let (completed, stalls) = (get("/grace/completed")?, get("/stalls")?);
        let waits = get("/in_flight_batches")? > 0;
        let now = Instant::now();
        let last = self.0.get(name).copied();
        let moved = last.is_none_or(|last| last.completed != completed);
        let since = last.and_then(|last| last.waiting_since).filter(|_| !moved && !paused);
        let waiting_since = waits.then(|| since.unwrap_or(now));
        self.0.insert(name.to_owned(), Progress { completed, stalls, waiting_since });
        if paused {
            // A guard held, a period begun before the pause is as old as the pause.
            return Ok(());
        }
        if let Some(last) = last
            && stalls > last.stalls
        {
            let place = domain.pointer("/oldest_guard/place").cloned().unwrap_or_default();
            return Err(format!("domain {name}: {stalls} guards were held too long, {place}"));
        }
        let age = get("/oldest_guard/age_nanos")?.max(0) as u64;
        if Duration::from_nanos(age) > STALLED {
            return Err(format!("domain {name}: a guard is held for {} s", age / 1_000_000_000));
        }
        if waiting_since.is_some_and(|since| now - since > STALLED) {
            let seconds = STALLED.as_secs();
            return Err(format!("domain {name}: batches wait, no grace period in {seconds} s"));
        }
        Ok(())
    }
}

/// Every counter of the last page, by its series.
#[derive(Debug, Default)]
struct Counters(HashMap<String, f64>);

impl Counters {
    /// No series whose type is counter may be gone or smaller than on the last page.
    fn check(&mut self, page: &str) -> Result<(), String> {
        let mut found = HashMap::new();
        let mut counter = "";
        for line in page.lines() {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                counter = declared.strip_suffix(" counter").unwrap_or("");
            } else if !line.starts_with('#')
                && let Some((series, value)) = line.rsplit_once(' ')
                && !counter.is_empty()
                && series.starts_with(counter)
            {
                let value = value.parse().map_err(|_| format!("{series}: {value:?}"))?;
                found.insert(series.to_owned(), value);
            }
        }
        if found.is_empty() {
            return Err(String::from("/metrics has no counter"));
        }
        let before = std::mem::replace(&mut self.0, found);
        for (series, was) in before {
            match self.0.get(&series) {
                Some(is) if *is >= was => {}
                // What the system did not tell this time: without descriptors it tells little.
                Some(is) if is.is_nan() => drop(self.0.insert(series, was)),
                Some(is) => return Err(format!("{series} went from {was} to {is}")),
                None => return Err(format!("{series} was shown and is gone")),
            }
        }
        Ok(())
    }
}

fn is_there(program: &str) -> bool {
    crate::driver::build::is_installed(program)
}

/// `promtool check metrics`, without its advice on names that are other exporters' as well.
fn lint(page: &str) -> Result<(), String> {
    let run = || -> std::io::Result<std::process::Output> {
        let mut child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().expect("it is piped");
        // promtool reads everything before it says anything.
        stdin.write_all(page.as_bytes())?;
        drop(stdin);
        child.wait_with_output()
    };
    let output = run().map_err(|error| format!("promtool: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("promtool: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
