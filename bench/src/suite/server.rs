//! `--suite server`: the reference server under redis-benchmark, one build per allocator.
//!
//! In each round every server is started anew, loaded with the whole series of tests, its resident
//! set read, and ended; the order rotates, and the build with Flagstone runs twice for the A/A
//! spread. A cell is one test, its time that of all its requests; memory is the server's own after
//! the series, the same in every cell.

use std::io;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{CannotRun, Ended, Suite, Wishes, progress_bar, skip};
use crate::driver::build::{Builder, is_installed};
use crate::driver::host::Host;
use crate::driver::order::order;
use crate::driver::server::{Server, Throughput, free_address, redis_benchmark};
use crate::peer::{FLAGSTONE, MIMALLOC};
use crate::report::model::{Cell, Contender, Failure, Report, Runs};
use crate::report::summary::Summary;
use crate::report::{self, last_line};

/// One of [`BUILDS`].
pub(super) type Build = (&'static str, &'static str, &'static [&'static str]);

/// The allocators that the server can be built with: name, feature, and what its
/// `INFO memory` calls the allocator.
pub(super) const BUILDS: [Build; 4] = [
    (FLAGSTONE, "flagstone-alloc", &["flagstone"]),
    (MIMALLOC, "mimalloc", &["mimalloc"]),
    ("jemalloc", "jemalloc", &["jemalloc"]),
    ("system", "system-alloc", &["system", "libc"]),
];

/// The tests, in the order in which redis-benchmark runs them.
const TESTS: [&str; 9] =
    ["set", "get", "incr", "lpush", "rpush", "lpop", "rpop", "lrange_100", "mset"];

/// Requests of each test: 0.1 to 3 s of one at the rates of such a server.
const REQUESTS: u64 = 200_000;

const ROUNDS: usize = 5;

/// What one start of a server gave.
struct Visit {
    results: Vec<Throughput>,
    peak: f64,
    end: f64,
    faults: f64,
}

/// Builds, loads, reports.
pub fn run(builder: &Builder, wishes: &Wishes) -> Result<Ended, CannotRun> {
    if !is_installed("redis-benchmark") {
        return Err(CannotRun(String::from("redis-benchmark is not installed (redis-tools)")));
    }
    let tests: Vec<&str> = TESTS.into_iter().filter(|test| wishes.wants(test)).collect();
    if tests.is_empty() {
        return Err(CannotRun(format!("no such test; there are {}", TESTS.join(", "))));
    }
    let mut skipped = Vec::new();
    let mut entrants: Vec<(PathBuf, Contender)> = Vec::new();
    for (name, feature, called) in BUILDS {
        if !wishes.peers.is_empty() && !wishes.peers.iter().any(|peer| peer == name) {
            continue;
        }
        println!("building the server with {name}");
        let built = builder.server(feature).map_err(|skipped| skipped.to_string());
        match built.and_then(|path| prove(&path, called).map(|version| (path, version))) {
            Ok((path, version)) => {
                let controls: &[bool] = if name == FLAGSTONE { &[false, true] } else { &[false] };
                for &control in controls {
                    entrants.push((path.clone(), contender(name, &version, control)));
                }
            }
            Err(reason) => skip(&mut skipped, name, reason),
        }
    }
    if entrants.is_empty() {
        return Err(CannotRun(String::from("the server could not be built or started")));
    }
    let mut report = Report {
        suite: Suite::Server.name().to_owned(),
        host: Host::look(builder.workspace()),
        rounds: 0,
        contenders: entrants.iter().map(|(_, contender)| contender.clone()).collect(),
        skipped,
        cells: tests.iter().map(|test| cell(test, entrants.len())).collect(),
        failures: Vec::new(),
    };
    measure(&mut report, &tests, &entrants, wishes);
    let summary = Summary::of(&report);
    let written = report::write(&report, &wishes.folder(Suite::Server, builder))
        .map_err(|error| CannotRun(format!("the report cannot be written: {error}")))?;
    print!("{}", report::markdown::overview(&report, &summary));
    for path in written {
        println!("wrote {}", path.display());
    }
    let last_line = last_line::comparison(&summary);
    Ok(Ended { last_line, failures: report.failures.len() })
}

fn contender(name: &str, version: &str, control: bool) -> Contender {
    Contender {
        label: if control { Contender::control_label(name) } else { name.to_owned() },
        peer: name.to_owned(),
        control,
        version: version.to_owned(),
        proof: String::from("INFO memory, mem_allocator"),
    }
}

fn cell(test: &str, contenders: usize) -> Cell {
    Cell {
        name: test.to_owned(),
        about: format!("redis-benchmark -t {test} -P 16 -c 50 -r 100000"),
        params: vec![(String::from("requests"), REQUESTS)],
        operations: REQUESTS,
        checksum: 0,
        runs: vec![Runs::default(); contenders],
    }
}

fn measure(
    report: &mut Report,
    tests: &[&str],
    entrants: &[(PathBuf, Contender)],
    wishes: &Wishes,
) {
    let rounds = wishes.rounds.unwrap_or(ROUNDS).max(1);
    let bar = progress_bar(rounds * entrants.len());
    for round in 0..rounds {
        if round > 0 && wishes.started.elapsed() > wishes.budget {
            bar.println(format!("stopped after {round} of {rounds} rounds: the time is up"));
            break;
        }
        for index in order(entrants.len(), 0, round) {
            let (path, contender) = &entrants[index];
            bar.set_message(contender.label.clone());
            match visit(path, tests) {
                Ok(visit) => record(report, index, &visit),
                Err(reason) => {
                    bar.println(format!("{}: {reason}", contender.label));
                    report.failures.push(Failure {
                        cell: String::from("all"),
                        contender: contender.label.clone(),
                        reason,
                    });
                }
            }
            bar.inc(1);
        }
        report.rounds = round + 1;
    }
    bar.finish_and_clear();
}

fn record(report: &mut Report, contender: usize, visit: &Visit) {
    for cell in &mut report.cells {
        let found = visit.results.iter().find(|result| result.test == cell.name);
        if let Some(result) = found {
            let runs = &mut cell.runs[contender];
            runs.seconds.push(REQUESTS as f64 / result.requests_per_second);
            runs.peak_rss_bytes.push(visit.peak);
            runs.final_rss_bytes.push(visit.end);
            runs.minor_faults.push(visit.faults);
        }
    }
}

fn visit(path: &Path, tests: &[&str]) -> Result<Visit, String> {
    let server = start(path).map_err(|error| error.to_string())?;
    let results = redis_benchmark(server.address(), tests, REQUESTS)?;
    let resident = server.resident().ok_or("the server ended under load")?;
    Ok(Visit {
        results,
        peak: resident.peak as f64,
        end: resident.current as f64,
        faults: server.minor_faults().unwrap_or(0) as f64,
    })
}

/// Starts a build once and asks it who serves. (requirement P2)
pub(super) fn prove(path: &Path, called: &[&str]) -> Result<String, String> {
    let asked = start(path).and_then(|server| server.memory_field("mem_allocator"));
    match asked {
        Err(error) => Err(error.to_string()),
        Ok(Some(name)) if called.iter().any(|known| name.starts_with(known)) => Ok(name),
        Ok(name) => Err(format!("the server says that it is served by {name:?}")),
    }
}

fn start(path: &Path) -> io::Result<Server> {
    let admin = free_address()?;
    Server::start(|address: SocketAddrV4| {
        let mut command = Command::new(path);
        command.args(["serve", "--resp", &address.to_string(), "--admin", &admin.to_string()]);
        command
    })
}
