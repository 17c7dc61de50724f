//! The INFO command: the server's figures as text, under Redis's field names.
//!
//! A field is there only if its figure is true of this server. What other systems report and this
//! one does not do (persistence, replication lag, evicted keys) is left out or is plainly zero.

use std::fmt::Write as _;

use super::spec::Spec;
use super::{Context, all};
use crate::allocator;
use crate::failure::Failure;
use crate::memory::{Figures, ratio};
use crate::number::human_bytes;
use crate::resp::input::Args;
use crate::shared::Shared;

/// The family's rows.
pub const COMMANDS: &[Spec] =
    &[Spec::new("info", -1, "[section ...]", "Answers the server's figures", info)];

/// The protocol level that the commands and replies here correspond to. Clients choose features by
/// it; the server's own version is in `flagstone_version`.
const COMPATIBLE_WITH: &str = "7.0.0";

/// A section's name, whether it is shown when none is asked for, and its text.
type Section = (&'static str, bool, fn(&Shared, &mut String));

const SECTIONS: [Section; 7] = [
    ("Server", true, server),
    ("Clients", true, clients),
    ("Memory", true, memory),
    ("Stats", true, stats),
    ("Replication", true, replication),
    ("Commandstats", false, command_stats),
    ("Keyspace", true, keyspace),
];

fn info(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let asked: Vec<String> =
        args.from(1).map(|name| String::from_utf8_lossy(name).to_ascii_lowercase()).collect();
    let text = text(cx.shared, &asked);
    cx.reply().verbatim(&text);
    Ok(())
}

/// The text for the sections asked for, in lower case; none stands for the default ones.
pub fn text(shared: &Shared, asked: &[String]) -> String {
    let asks = |name: &str| asked.iter().any(|asked| asked == name);
    let everything = asks("all") || asks("everything");
    let default = asked.is_empty() || asks("default");
    let mut text = String::new();
    for (name, is_default, write) in SECTIONS {
        if everything || (default && is_default) || asks(&name.to_ascii_lowercase()) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            let _ = write!(text, "# {name}\r\n");
            write(shared, &mut text);
        }
    }
    text
}

macro_rules! field {
    ($text:expr, $name:expr, $($value:tt)+) => {
        // Writing to a String cannot fail.
        let _ = write!($text, concat!($name, ":{}\r\n"), format_args!($($value)+));
    };
}

fn server(shared: &Shared, text: &mut String) {
    let uptime = shared.started.elapsed().as_secs();
    field!(text, "server_name", "flagstone");
    field!(text, "flagstone_version", "{}", env!("CARGO_PKG_VERSION"));
    field!(text, "redis_version", "{COMPATIBLE_WITH}");
    field!(text, "redis_mode", "standalone");
    field!(text, "os", "{} {}", std::env::consts::OS, std::env::consts::ARCH);
    field!(text, "arch_bits", "{}", usize::BITS);
    field!(text, "process_id", "{}", std::process::id());
    field!(text, "tcp_port", "{}", shared.port());
    field!(text, "io_threads", "{}", shared.workers());
    field!(text, "uptime_in_seconds", "{uptime}");
    field!(text, "uptime_in_days", "{}", uptime / 86_400);
}

fn clients(shared: &Shared, text: &mut String) {
    field!(text, "connected_clients", "{}", shared.clients.len());
    field!(text, "maxclients", "{}", shared.tunables.maxclients.get());
    field!(text, "peak_clients", "{}", shared.stats.peak_clients.get());
    field!(text, "blocked_clients", "{}", shared.stats.blocked.get());
    field!(text, "pubsub_clients", "{}", shared.stats.subscribers.get());
    field!(text, "client_slots", "{}", shared.clients.stats().slots);
    field!(text, "total_blocking_keys", "{}", shared.keyspace.figures().waited_for);
}

fn memory(shared: &Shared, text: &mut String) {
    let figures = Figures::read(shared);
    let percent = |part: u64, whole: u64| ratio(part, whole) * 100.0;
    field!(text, "used_memory", "{}", figures.used);
    field!(text, "used_memory_human", "{}", human_bytes(figures.used));
    field!(text, "used_memory_source", "{}", figures.source.as_str());
    if let Some(resident) = figures.resident {
        field!(text, "used_memory_rss", "{resident}");
        field!(text, "used_memory_rss_human", "{}", human_bytes(resident));
    }
    field!(text, "used_memory_peak", "{}", figures.peak);
    field!(text, "used_memory_peak_human", "{}", human_bytes(figures.peak));
    field!(text, "used_memory_peak_perc", "{:.2}%", percent(figures.used, figures.peak));
    field!(text, "used_memory_overhead", "{}", figures.overhead());
    field!(text, "used_memory_startup", "{}", figures.at_start);
    field!(text, "used_memory_dataset", "{}", figures.dataset);
    field!(text, "used_memory_dataset_perc", "{:.2}%", percent(figures.dataset, figures.used));
    field!(text, "used_memory_tables", "{}", figures.tables);
    field!(text, "used_memory_retired", "{}", shared.keyspace.retired_bytes());
    field!(text, "mem_clients_normal", "{}", figures.connections);
    if let Some(heap) = figures.heap {
        field!(text, "allocator_allocated", "{}", heap.live);
        field!(text, "allocator_active", "{}", heap.active);
        field!(text, "allocator_resident", "{}", heap.mapped);
        field!(text, "allocator_frag_ratio", "{:.2}", ratio(heap.active, heap.live));
        field!(text, "allocator_frag_bytes", "{}", heap.active.saturating_sub(heap.live));
        field!(text, "allocator_rss_ratio", "{:.2}", ratio(heap.mapped, heap.active));
        field!(text, "allocator_rss_bytes", "{}", heap.mapped.saturating_sub(heap.active));
        if let Some(resident) = figures.resident {
            field!(text, "rss_overhead_ratio", "{:.2}", ratio(resident, heap.mapped));
            field!(text, "rss_overhead_bytes", "{}", resident as i64 - heap.mapped as i64);
        }
    }
    if let (Some(ratio), Some(resident)) = (figures.fragmentation(), figures.resident) {
        field!(text, "mem_fragmentation_ratio", "{ratio:.2}");
        field!(text, "mem_fragmentation_bytes", "{}", resident as i64 - figures.used as i64);
    }
    field!(text, "maxmemory", "{}", figures.limit);
    field!(text, "maxmemory_human", "{}", human_bytes(figures.limit));
    field!(text, "maxmemory_policy", "noeviction");
    field!(text, "mem_allocator", "{}", allocator_name(shared));
    field!(text, "mem_allocator_verified", "{}", u8::from(shared.allocator.verified));
}

fn stats(shared: &Shared, text: &mut String) {
    let totals = shared.stats.since_reset(shared.totals());
    field!(text, "total_connections_received", "{}", totals.connections);
    field!(text, "total_commands_processed", "{}", totals.calls());
    field!(text, "instantaneous_ops_per_sec", "{}", shared.stats.calls_per_second());
    field!(text, "total_net_input_bytes", "{}", totals.received);
    field!(text, "total_net_output_bytes", "{}", totals.sent);
    field!(text, "rejected_connections", "{}", totals.rejected_connections);
    field!(text, "accept_errors", "{}", totals.accept_errors);
    field!(text, "expired_keys", "{}", totals.expired);
    field!(text, "evicted_keys", "0");
    field!(text, "keyspace_hits", "{}", totals.hits);
    field!(text, "keyspace_misses", "{}", totals.misses);
    field!(text, "pubsub_channels", "{}", shared.pubsub.channel_count());
    field!(text, "pubsub_patterns", "{}", shared.pubsub.pattern_count());
    field!(text, "pubsub_subscriptions", "{}", shared.pubsub.len());
    field!(text, "pubsub_published", "{}", totals.published);
    field!(text, "pubsub_delivered", "{}", totals.delivered);
    field!(text, "total_error_replies", "{}", totals.errors);
    field!(text, "oom_refusals", "{}", totals.oom_refusals);
    field!(text, "protocol_errors", "{}", totals.protocol_errors);
    field!(
        text,
        "client_output_buffer_limit_disconnections",
        "{}",
        totals.evicted_subscribers + totals.output_overflows
    );
    field!(text, "evicted_subscribers", "{}", totals.evicted_subscribers);
}

fn replication(_: &Shared, text: &mut String) {
    field!(text, "role", "master");
    field!(text, "connected_slaves", "0");
}

fn command_stats(shared: &Shared, text: &mut String) {
    let totals = shared.stats.since_reset(shared.totals());
    for (row, command) in all().iter().zip(&totals.commands) {
        if command.calls + command.rejected > 0 {
            let _ = write!(
                text,
                "cmdstat_{}:calls={},rejected_calls={},failed_calls={}\r\n",
                row.name, command.calls, command.rejected, command.failed
            );
        }
    }
}

fn keyspace(shared: &Shared, text: &mut String) {
    for (number, db) in shared.keyspace.dbs().iter().enumerate() {
        let figures = db.figures();
        if figures.keys > 0 {
            let _ =
                write!(text, "db{number}:keys={},expires={}\r\n", figures.keys, figures.volatile);
        }
    }
}

fn allocator_name(shared: &Shared) -> String {
    if shared.allocator.verified {
        format!("{}-{}", shared.allocator.name, env!("CARGO_PKG_VERSION"))
    } else if shared.allocator.name == allocator::BUILT_WITH {
        shared.allocator.name.to_owned()
    } else {
        format!("{} (built with {})", shared.allocator.name, allocator::BUILT_WITH)
    }
}

#[cfg(test)]
mod tests {
    use crate::commands::tests::Bench;

    fn field(text: &str, name: &str) -> String {
        let prefix = format!("{name}:");
        let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
    }

    #[test]
    fn sections_by_name() {
        let mut bench = Bench::new();
        let all = bench.run("INFO");
        for name in ["# Server", "# Clients", "# Memory", "# Stats", "# Keyspace"] {
            assert!(all.contains(name), "{name}");
        }
        assert!(!all.contains("# Commandstats"));
        assert!(bench.run("INFO everything").contains("# Commandstats"));
        let two = bench.run("INFO KEYSPACE clients");
        assert!(two.starts_with("# Clients") && two.contains("# Keyspace"));
        assert!(!two.contains("# Memory"));
        assert_eq!(bench.run("INFO boo"), "");
    }

    #[test]
    fn memory_follows_the_data() {
        let mut bench = Bench::new();
        let before: u64 = field(&bench.run("INFO memory"), "used_memory_dataset").parse().unwrap();
        for i in 0..100 {
            bench.run(&format!("SET key:{i} {}", "x".repeat(1000)));
        }
        let text = bench.run("INFO memory");
        let dataset: u64 = field(&text, "used_memory_dataset").parse().unwrap();
        assert!(dataset - before > 100_000, "{dataset}");
        let used: u64 = field(&text, "used_memory").parse().unwrap();
        let peak: u64 = field(&text, "used_memory_peak").parse().unwrap();
        assert!(used >= dataset && peak >= used, "{text}");
        assert_eq!(field(&text, "maxmemory_policy"), "noeviction");
        bench.run("FLUSHALL");
        assert_eq!(field(&bench.run("INFO memory"), "used_memory_dataset"), before.to_string());
    }

    #[test]
    fn counts_follow_the_commands() {
        let mut bench = Bench::new();
        bench.run("SET k v EX 100");
        bench.run("GET k");
        bench.run("GET missing");
        bench.run("INCR k");
        let text = bench.run("INFO stats commandstats keyspace");
        assert_eq!(field(&text, "keyspace_hits"), "1");
        assert_eq!(field(&text, "keyspace_misses"), "1");
        assert_eq!(field(&text, "total_error_replies"), "1");
        assert_eq!(field(&text, "cmdstat_get"), "calls=2,rejected_calls=0,failed_calls=0");
        assert_eq!(field(&text, "cmdstat_incr"), "calls=1,rejected_calls=0,failed_calls=1");
        assert_eq!(field(&text, "db0"), "keys=1,expires=1");
        assert_eq!(field(&bench.run("INFO clients"), "connected_clients"), "1");
    }
}
