//! What the server counts.
//!
//! Counters of the hot path are striped: a connection counts on the cache lines of its stripe, and
//! a reader sums the stripes. Nothing is ever reset under a reader: `CONFIG RESETSTAT` keeps the sums
//! of that moment and `INFO` subtracts them; metrics never run backwards.

use crate::sync::{Counter, Level, Mutex, Padded};

const STRIPES: usize = 16;

/// All counters of one server.
#[derive(Debug)]
pub struct Stats {
    stripes: Box<[Padded<Stripe>]>,
    /// Connections accepted.
    pub connections: Counter,
    /// Connections refused because there were too many.
    pub rejected_connections: Counter,
    /// Failed calls of accept, for want of file descriptors for example.
    pub accept_errors: Counter,
    /// Requests that were no requests.
    pub protocol_errors: Counter,
    /// Clients closed because they did not take their messages.
    pub evicted_subscribers: Counter,
    /// Clients closed because one batch of replies passed the limit.
    pub output_overflows: Counter,
    /// Writes refused at the memory limit.
    pub oom_refusals: Counter,
    /// Messages published.
    pub published: Counter,
    /// Messages posted to subscribers.
    pub delivered: Counter,
    /// Clients that wait in `BLPOP` or `BRPOP`.
    pub blocked: Level,
    /// Clients with a subscription.
    pub subscribers: Level,
    /// Most clients at a time.
    pub peak_clients: Counter,
    rate: Mutex<Rate>,
    baseline: Mutex<Totals>,
}

/// The counters that a stripe has of its own.
#[derive(Debug)]
pub struct Stripe {
    commands: Box<[CommandCounters]>,
    /// Bytes received.
    pub received: Counter,
    /// Bytes sent.
    pub sent: Counter,
    /// Commands answered with an error.
    pub errors: Counter,
    /// Reads that found their key.
    pub hits: Counter,
    /// Reads that did not.
    pub misses: Counter,
}

#[derive(Debug, Default)]
struct CommandCounters {
    calls: Counter,
    failed: Counter,
    rejected: Counter,
}

/// How often one command was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandTotals {
    /// Times it ran.
    pub calls: u64,
    /// Times it ran and answered an error.
    pub failed: u64,
    /// Times it was refused before it ran.
    pub rejected: u64,
}

/// Sums over all stripes, and the plain counters, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Per command, in the order of the command table.
    pub commands: Vec<CommandTotals>,
    /// See [`Stripe::received`].
    pub received: u64,
    /// See [`Stripe::sent`].
    pub sent: u64,
    /// See [`Stripe::errors`].
    pub errors: u64,
    /// See [`Stats::connections`].
    pub connections: u64,
    /// See [`Stats::rejected_connections`].
    pub rejected_connections: u64,
    /// See [`Stats::accept_errors`].
    pub accept_errors: u64,
    /// See [`Stats::protocol_errors`].
    pub protocol_errors: u64,
    /// See [`Stats::evicted_subscribers`].
    pub evicted_subscribers: u64,
    /// See [`Stats::output_overflows`].
    pub output_overflows: u64,
    /// See [`Stats::oom_refusals`].
    pub oom_refusals: u64,
    /// See [`Stats::published`].
    pub published: u64,
    /// See [`Stats::delivered`].
    pub delivered: u64,
    /// See [`Stripe::hits`].
    pub hits: u64,
    /// See [`Stripe::misses`].
    pub misses: u64,
    /// Keys removed because their time was over. The keyspace counts them; [`Stats`] does not know.
    pub expired: u64,
}

/// Calls per second, from samples of the last seconds.
#[derive(Debug, Default)]
struct Rate {
    samples: [f64; 16],
    next: usize,
    last: Option<(std::time::Instant, u64)>,
}

impl Stats {
    /// Zero for `commands` commands.
    pub fn new(commands: usize) -> Self {
        let stripe = || {
            Padded(Stripe {
                commands: (0..commands).map(|_| CommandCounters::default()).collect(),
                received: Counter::new(),
                sent: Counter::new(),
                errors: Counter::new(),
                hits: Counter::new(),
                misses: Counter::new(),
            })
        };
        Self {
            stripes: (0..STRIPES).map(|_| stripe()).collect(),
            connections: Counter::new(),
            rejected_connections: Counter::new(),
            accept_errors: Counter::new(),
            protocol_errors: Counter::new(),
            evicted_subscribers: Counter::new(),
            output_overflows: Counter::new(),
            oom_refusals: Counter::new(),
            published: Counter::new(),
            delivered: Counter::new(),
            blocked: Level::new(),
            subscribers: Level::new(),
            peak_clients: Counter::new(),
            rate: Mutex::default(),
            baseline: Mutex::new(Totals {
                commands: vec![CommandTotals::default(); commands],
                ..Totals::default()
            }),
        }
    }

    /// The stripe for the client of this number.
    pub fn stripe(&self, client: u64) -> &Stripe {
        &self.stripes[client as usize % STRIPES]
    }

    /// Sums since the server started.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            commands: vec![CommandTotals::default(); self.stripes[0].commands.len()],
            connections: self.connections.get(),
            rejected_connections: self.rejected_connections.get(),
            accept_errors: self.accept_errors.get(),
            protocol_errors: self.protocol_errors.get(),
            evicted_subscribers: self.evicted_subscribers.get(),
            output_overflows: self.output_overflows.get(),
            oom_refusals: self.oom_refusals.get(),
            published: self.published.get(),
            delivered: self.delivered.get(),
            ..Totals::default()
        };
        for stripe in &self.stripes {
            totals.received += stripe.received.get();
            totals.sent += stripe.sent.get();
            totals.errors += stripe.errors.get();
            totals.hits += stripe.hits.get();
            totals.misses += stripe.misses.get();
            for (sum, command) in totals.commands.iter_mut().zip(&stripe.commands) {
                sum.calls += command.calls.get();
                sum.failed += command.failed.get();
                sum.rejected += command.rejected.get();
            }
        }
        totals
    }

    /// What `totals` have grown by since the last [`reset`](Self::reset).
    pub fn since_reset(&self, totals: Totals) -> Totals {
        totals.since(&self.baseline.lock())
    }

    /// Lets [`since_reset`](Self::since_reset) count from `totals` on.
    pub fn reset(&self, totals: Totals) {
        *self.baseline.lock() = totals;
    }

    /// Takes a sample for [`calls_per_second`](Self::calls_per_second).
    pub fn sample_rate(&self) {
        let calls = self.totals().calls();
        let now = std::time::Instant::now();
        let mut rate = self.rate.lock();
        if let Some((then, before)) = rate.last.replace((now, calls)) {
            let seconds = now.duration_since(then).as_secs_f64();
            let next = rate.next;
            rate.samples[next] = (calls - before) as f64 / seconds.max(1e-3);
            rate.next = (next + 1) % rate.samples.len();
        }
    }

    /// Commands per second, the mean of the last sixteen samples.
    pub fn calls_per_second(&self) -> u64 {
        let rate = self.rate.lock();
        (rate.samples.iter().sum::<f64>() / rate.samples.len() as f64) as u64
    }
}

impl Stripe {
    /// Counts `n` calls of a command.
    pub fn called(&self, command: usize, n: u64) {
        self.commands[command].calls.add(n);
    }

    /// Counts a call that answered an error.
    pub fn failed(&self, command: usize) {
        self.commands[command].failed.add(1);
        self.errors.add(1);
    }

    /// Counts a command that was refused before it ran.
    pub fn rejected(&self, command: usize) {
        self.commands[command].rejected.add(1);
        self.errors.add(1);
    }
}

impl Totals {
    /// Calls of all commands.
    pub fn calls(&self) -> u64 {
        self.commands.iter().map(|command| command.calls).sum()
    }

    fn since(mut self, before: &Self) -> Self {
        for (now, then) in self.commands.iter_mut().zip(&before.commands) {
            now.calls -= then.calls;
            now.failed -= then.failed;
            now.rejected -= then.rejected;
        }
        self.received -= before.received;
        self.sent -= before.sent;
        self.errors -= before.errors;
        self.connections -= before.connections;
        self.rejected_connections -= before.rejected_connections;
        self.accept_errors -= before.accept_errors;
        self.protocol_errors -= before.protocol_errors;
        self.evicted_subscribers -= before.evicted_subscribers;
        self.output_overflows -= before.output_overflows;
        self.oom_refusals -= before.oom_refusals;
        self.published -= before.published;
        self.delivered -= before.delivered;
        self.hits -= before.hits;
        self.misses -= before.misses;
        self.expired -= before.expired;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripes_add_up_and_a_reset_subtracts() {
        let stats = Stats::new(2);
        for client in 0..40 {
            stats.stripe(client).called(1, 2);
            stats.stripe(client).sent.add(10);
        }
        stats.stripe(3).failed(1);
        stats.connections.add(1);
        let totals = stats.totals();
        assert_eq!(totals.commands[1], CommandTotals { calls: 80, failed: 1, rejected: 0 });
        assert_eq!((totals.calls(), totals.sent, totals.errors), (80, 400, 1));
        assert_eq!(stats.since_reset(stats.totals()), totals);
        stats.reset(totals);
        stats.stripe(5).called(0, 1);
        let since = stats.since_reset(stats.totals());
        assert_eq!((since.calls(), since.sent, since.connections), (1, 0, 0));
        assert_eq!(stats.totals().calls(), 81);
    }

    #[test]
    fn the_rate_follows_the_calls() {
        let stats = Stats::new(1);
        stats.sample_rate();
        assert_eq!(stats.calls_per_second(), 0);
        stats.stripe(0).called(0, 1_000_000);
        stats.sample_rate();
        assert!(stats.calls_per_second() > 0);
    }
}
