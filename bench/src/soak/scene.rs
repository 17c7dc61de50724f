//! What the threads of a soak share: the server, the ledger, the latencies, and the counts.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::checks::{Check, Ledger};
use super::plan::Plan;
use super::pulse::Pulse;
use super::target::Target;

/// Latencies are kept up to here, in nanoseconds; longer ones count as this long.
const LONGEST: u64 = 600_000_000_000;

/// The shared state.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The server.
    pub target: &'a Target,
    /// How long and how hard.
    pub plan: &'a Plan,
    /// Where violations go.
    pub ledger: &'a Ledger,
    /// Tells the clients to finish.
    pub pulse: Pulse,
    /// When the soak began.
    pub began: Instant,
    latencies: Mutex<Latencies>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    faulty: Mutex<bool>,
}

/// Latencies of single requests, from send to reply, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// While the server is only loaded.
    pub churn: Histogram<u64>,
    /// The same, from when a request was due: what comes late, because the one before it took long or
    /// the client itself was late, counts from then.
    pub due: Histogram<u64>,
    /// While a fault is under way, in any of the servers that are soaked at once.
    pub faults: Histogram<u64>,
}

/// Percentiles of a [`Histogram`], in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Percentiles {
    /// Requests.
    pub count: u64,
    /// The median.
    pub p50: f64,
    /// 95 of 100 are at most this.
    pub p95: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// 999 of 1000 are at most this.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        let empty =
            || Histogram::new_with_bounds(1_000, LONGEST, 3).expect("the bounds are in order");
        Latencies { churn: empty(), due: empty(), faults: empty() }
    }
}

impl Percentiles {
    /// Of what was recorded.
    pub fn of(histogram: &Histogram<u64>) -> Percentiles {
        let milliseconds = |nanos: u64| nanos as f64 / 1e6;
        let at = |quantile| milliseconds(histogram.value_at_quantile(quantile));
        Percentiles {
            count: histogram.len(),
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: milliseconds(histogram.max()),
        }
    }
}

impl<'a> Scene<'a> {
    /// A scene that begins now.
    pub fn new(target: &'a Target, plan: &'a Plan, ledger: &'a Ledger) -> Scene<'a> {
        Scene {
            target,
            plan,
            ledger,
            pulse: Pulse::default(),
            began: Instant::now(),
            latencies: Mutex::default(),
            counts: Mutex::default(),
            faulty: Mutex::default(),
        }
    }

    /// Adds to a count of the report.
    pub fn count(&self, what: &'static str, n: u64) {
        *lock(&self.counts).entry(what).or_default() += n;
    }

    /// The counts.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.counts).clone()
    }

    /// Keeps the latency of a request: from its sending, and, if it was due at a time, from then.
    pub fn took(&self, time: Duration, since_due: Option<Duration>) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(LONGEST);
        let faulty = *lock(&self.faulty);
        let mut latencies = lock(&self.latencies);
        if faulty {
            latencies.faults.saturating_record(nanos(time));
            return;
        }
        latencies.churn.saturating_record(nanos(time));
        if let Some(since_due) = since_due {
            latencies.due.saturating_record(nanos(since_due));
        }
    }

    /// The latencies so far.
    pub fn latencies(&self) -> Latencies {
        lock(&self.latencies).clone()
    }

    /// Says whether a fault is under way.
    pub fn set_faulty(&self, faulty: bool) {
        *lock(&self.faulty) = faulty;
    }

    /// Runs one client until it ends; what ends it before its time is a violation, and it starts anew.
    pub fn keep(&self, check: Check, mut client: impl FnMut() -> std::io::Result<()>) {
        while !self.pulse.is_stopped() {
            if let Err(error) = client() {
                self.ledger.broke(check, format!("a client's connection failed: {error}"));
                self.pulse.rest(Duration::from_millis(200));
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
