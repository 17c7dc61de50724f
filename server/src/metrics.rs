//! The server's figures through the `metrics` facade, and as a section of `/stats.json`.
//!
//! Counting happens in [`Stats`](crate::stats::Stats), where it costs a command next to nothing; a
//! report reads the sums and sets the exported series. Counters are set with `absolute`: the sums
//! never run backwards.

use flagstone::typed::Stats;
use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};
use serde_json::{Map, Value, json};

use crate::commands;
use crate::memory::Figures;
use crate::shared::Shared;
use crate::stats::Totals;

/// Name, help text, and where the value comes from.
type CounterRow = (&'static str, Unit, &'static str, fn(&Totals) -> u64);
type GaugeRow = (&'static str, Unit, &'static str, fn(&Now) -> f64);

const COUNTERS: [CounterRow; 15] = [
    (
        "flagstone_server_connections_total",
        Unit::Count,
        "Connections accepted, refused ones included.",
        |t| t.connections,
    ),
    (
        "flagstone_server_rejected_connections_total",
        Unit::Count,
        "Connections refused because maxclients was reached.",
        |t| t.rejected_connections,
    ),
    (
        "flagstone_server_accept_errors_total",
        Unit::Count,
        "Failed accepts, for want of file descriptors for example.",
        |t| t.accept_errors,
    ),
    (
        "flagstone_server_protocol_errors_total",
        Unit::Count,
        "Connections closed because their bytes were no requests.",
        |t| t.protocol_errors,
    ),
    ("flagstone_server_received_bytes_total", Unit::Bytes, "Bytes received from clients.", |t| {
        t.received
    }),
    ("flagstone_server_sent_bytes_total", Unit::Bytes, "Bytes sent to clients.", |t| t.sent),
    (
        "flagstone_server_error_replies_total",
        Unit::Count,
        "Commands answered with an error.",
        |t| t.errors,
    ),
    (
        "flagstone_server_oom_refusals_total",
        Unit::Count,
        "Writes refused because maxmemory was reached.",
        |t| t.oom_refusals,
    ),
    (
        "flagstone_server_evicted_subscribers_total",
        Unit::Count,
        "Clients closed because they did not take their messages.",
        |t| t.evicted_subscribers,
    ),
    (
        "flagstone_server_output_overflows_total",
        Unit::Count,
        "Clients closed because their replies passed the output limit.",
        |t| t.output_overflows,
    ),
    ("flagstone_server_published_messages_total", Unit::Count, "Messages published.", |t| {
        t.published
    }),
    (
        "flagstone_server_delivered_messages_total",
        Unit::Count,
        "Messages posted to subscribers, each one counted.",
        |t| t.delivered,
    ),
    (
        "flagstone_server_expired_keys_total",
        Unit::Count,
        "Keys removed because their time was over.",
        |t| t.expired,
    ),
    ("flagstone_server_keyspace_hits_total", Unit::Count, "Reads that found their key.", |t| {
        t.hits
    }),
    (
        "flagstone_server_keyspace_misses_total",
        Unit::Count,
        "Reads that did not find their key.",
        |t| t.misses,
    ),
];

const GAUGES: [GaugeRow; 12] = [
    ("flagstone_server_connected_clients", Unit::Count, "Clients connected.", |n| n.clients as f64),
    ("flagstone_server_blocked_clients", Unit::Count, "Clients waiting in BLPOP or BRPOP.", |n| {
        n.blocked as f64
    }),
    ("flagstone_server_subscribed_clients", Unit::Count, "Clients with a subscription.", |n| {
        n.subscribers as f64
    }),
    ("flagstone_server_channels", Unit::Count, "Channels with subscribers.", |n| n.channels as f64),
    ("flagstone_server_patterns", Unit::Count, "Patterns with subscribers.", |n| n.patterns as f64),
    ("flagstone_server_keys", Unit::Count, "Keys in all databases.", |n| n.memory.keys as f64),
    ("flagstone_server_volatile_keys", Unit::Count, "Keys that have a deadline.", |n| {
        n.volatile as f64
    }),
    (
        "flagstone_server_dataset_bytes",
        Unit::Bytes,
        "Bytes of keys and values, at block size.",
        |n| n.memory.dataset as f64,
    ),
    ("flagstone_server_table_bytes", Unit::Bytes, "Bytes of hash tables and deadlines.", |n| {
        n.memory.tables as f64
    }),
    (
        "flagstone_server_connection_bytes",
        Unit::Bytes,
        "Bytes of read buffers, reply queues and waiting messages.",
        |n| n.memory.connections as f64,
    ),
    (
        "flagstone_server_used_memory_bytes",
        Unit::Bytes,
        "Bytes in use as maxmemory counts them.",
        |n| n.memory.used as f64,
    ),
    (
        "flagstone_server_maxmemory_bytes",
        Unit::Bytes,
        "The limit from which on writes are refused; 0 is no limit.",
        |n| n.memory.limit as f64,
    ),
];

/// Series of each slab, labelled by its name.
type SlabRow = (&'static str, Unit, &'static str, fn(&Stats) -> u64);

const SLABS: [SlabRow; 6] = [
    ("flagstone_server_slab_values", Unit::Count, "Values in the slab.", |s| s.len as u64),
    ("flagstone_server_slab_slots", Unit::Count, "Slots of the slab, in use or free.", |s| {
        s.slots as u64
    }),
    (
        "flagstone_server_slab_pending",
        Unit::Count,
        "Values removed from the slab that somebody may still be reading.",
        |s| s.pending,
    ),
    ("flagstone_server_slab_free", Unit::Count, "Slots that are free, in buckets.", |s| {
        s.free as u64
    }),
    ("flagstone_server_slab_pages", Unit::Count, "Pages of the slab.", |s| s.pages as u64),
    ("flagstone_server_slab_bytes", Unit::Bytes, "Bytes of the slab's pages.", |s| s.bytes as u64),
];

const COMMANDS: &str = "flagstone_server_commands_total";

/// What the gauges show.
struct Now {
    clients: usize,
    blocked: i64,
    subscribers: i64,
    channels: usize,
    patterns: usize,
    volatile: usize,
    memory: Figures,
    slabs: [(&'static str, Stats); SLAB_NAMES.len()],
}

/// The slabs that are shown.
const SLAB_NAMES: [&str; 4] = ["clients", "subscriptions", "entries", "tables"];

impl Now {
    fn read(shared: &Shared) -> Self {
        Self {
            clients: shared.clients.len(),
            blocked: shared.stats.blocked.get(),
            subscribers: shared.stats.subscribers.get(),
            channels: shared.pubsub.channel_count(),
            patterns: shared.pubsub.pattern_count(),
            volatile: shared.keyspace.figures().volatile,
            memory: Figures::read(shared),
            slabs: {
                let [entries, tables] = shared.keyspace.slabs();
                let [clients, subscriptions, ..] = SLAB_NAMES;
                [
                    (clients, shared.clients.stats()),
                    (subscriptions, shared.pubsub.stats()),
                    entries,
                    tables,
                ]
            },
        }
    }
}

/// Handles of the exported series, in the recorder that is installed when it is made.
pub struct Exported {
    commands: Vec<Counter>,
    counters: Vec<Counter>,
    gauges: Vec<Gauge>,
    /// Slab by slab, in the order of [`SLAB_NAMES`].
    slabs: Vec<Gauge>,
}

impl Exported {
    /// Describes and registers every series.
    pub fn new() -> Self {
        describe_counter!(COMMANDS, Unit::Count, "Commands run, by name.");
        let commands =
            commands::all().iter().map(|row| counter!(COMMANDS, "command" => row.name)).collect();
        let counters = COUNTERS
            .iter()
            .map(|(name, unit, help, _)| {
                describe_counter!(*name, *unit, *help);
                counter!(*name)
            })
            .collect();
        let gauges = GAUGES
            .iter()
            .map(|(name, unit, help, _)| {
                describe_gauge!(*name, *unit, *help);
                gauge!(*name)
            })
            .collect();
        for (name, unit, help, _) in &SLABS {
            describe_gauge!(*name, *unit, *help);
        }
        let of_slab = |slab| SLABS.iter().map(move |(name, ..)| gauge!(*name, "slab" => slab));
        let slabs = SLAB_NAMES.into_iter().flat_map(of_slab).collect();
        Self { commands, counters, gauges, slabs }
    }

    /// Sets every series to what it is now.
    pub fn report(&self, shared: &Shared) {
        let totals = shared.totals();
        for (series, command) in self.commands.iter().zip(&totals.commands) {
            series.absolute(command.calls);
        }
        for (series, (.., value)) in self.counters.iter().zip(&COUNTERS) {
            series.absolute(value(&totals));
        }
        let now = Now::read(shared);
        for (series, (.., value)) in self.gauges.iter().zip(&GAUGES) {
            series.set(value(&now));
        }
        let values = now
            .slabs
            .iter()
            .flat_map(|(_, stats)| SLABS.iter().map(move |(.., value)| value(stats) as f64));
        for (series, value) in self.slabs.iter().zip(values) {
            series.set(value);
        }
    }
}

impl Default for Exported {
    fn default() -> Self {
        Self::new()
    }
}

/// The section of `/stats.json`: the same series under the same names, without their prefix, read at
/// this moment; commands that were never called are left out.
pub fn section(shared: &Shared) -> Value {
    let totals = shared.totals();
    let now = Now::read(shared);
    let short = |name: &str| name.trim_start_matches("flagstone_server_").to_owned();
    let mut members = Map::new();
    let calls: Map<String, Value> = commands::all()
        .iter()
        .zip(&totals.commands)
        .filter(|(_, command)| command.calls > 0)
        .map(|(row, command)| (row.name.to_owned(), json!(command.calls)))
        .collect();
    members.insert(short(COMMANDS), Value::Object(calls));
    for (name, .., value) in &COUNTERS {
        members.insert(short(name), json!(value(&totals)));
    }
    for (name, .., value) in &GAUGES {
        // Gauges here are whole numbers.
        members.insert(short(name), json!(value(&now) as u64));
    }
    let slabs = now.slabs.iter().map(|(name, stats)| {
        let figure = |row: &SlabRow| (short(row.0).replace("slab_", ""), json!((row.3)(stats)));
        ((*name).to_owned(), Value::Object(SLABS.iter().map(figure).collect()))
    });
    members.insert("slabs".into(), Value::Object(slabs.collect()));
    members.insert("used_memory_source".into(), json!(now.memory.source.as_str()));
    members.insert("allocator".into(), json!(shared.allocator.name));
    members.insert("allocator_verified".into(), json!(shared.allocator.verified));
    members.insert("version".into(), json!(env!("CARGO_PKG_VERSION")));
    members.insert("uptime_seconds".into(), json!(shared.started.elapsed().as_secs()));
    members.insert("workers".into(), json!(shared.workers()));
    Value::Object(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::tests::Bench;

    #[test]
    fn names_follow_the_conventions() {
        let counters = COUNTERS.iter().map(|(name, unit, help, _)| (*name, *unit, *help, true));
        let gauges = GAUGES.iter().map(|(name, unit, help, _)| (*name, *unit, *help, false));
        let slabs = SLABS.iter().map(|(name, unit, help, _)| (*name, *unit, *help, false));
        let mut seen = std::collections::HashSet::new();
        for (name, unit, help, is_counter) in counters.chain(gauges).chain(slabs) {
            assert!(name.starts_with("flagstone_server_"), "{name}");
            assert_eq!(name.ends_with("_total"), is_counter, "{name}");
            assert_eq!(name.contains("_bytes"), unit == Unit::Bytes, "{name}");
            assert!(help.ends_with('.') && help.len() > 10, "{name}");
            assert!(seen.insert(name), "{name} is there twice");
        }
    }

    #[test]
    fn the_section_follows_the_commands() {
        let mut bench = Bench::new();
        bench.run("SET k v");
        bench.run("GET k");
        bench.run("GET k");
        let section = section(&bench.shared);
        assert_eq!(section["commands_total"], json!({ "get": 2, "set": 1 }));
        assert_eq!(section["keys"], json!(1));
        assert_eq!(section["keyspace_hits_total"], json!(2));
        assert_eq!(section["connected_clients"], json!(1));
        assert!(section["dataset_bytes"].as_u64().unwrap() > 0);
    }

    /// requirement: D10
    #[test]
    fn metrics_and_section_show_the_same() {
        let mut bench = Bench::new();
        bench.run("MSET a 1 b 2");
        let recorder = flagstone::telemetry::prometheus::Exporter::install()
            .unwrap_or_else(|error| error.into_local());
        Exported::new().report(&bench.shared);
        let text = recorder.render(&Default::default(), Default::default());
        let section = section(&bench.shared);
        for (name, key) in
            [("flagstone_server_keys", "keys"), ("flagstone_server_dataset_bytes", "dataset_bytes")]
        {
            let line = format!("{name} {}", section[key]);
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        }
        assert!(text.contains("flagstone_server_commands_total{command=\"mset\"} 1"), "{text}");
        for (slab, values) in [("entries", 2), ("clients", 1), ("subscriptions", 0)] {
            let line = format!("flagstone_server_slab_values{{slab=\"{slab}\"}} {values}");
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
            assert_eq!(section["slabs"][slab]["values"], json!(values), "{slab}");
        }
    }
}
