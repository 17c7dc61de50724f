//! The memory family: MEMORY USAGE STATS PURGE DOCTOR MALLOC-STATS.

use std::fmt::Write as _;

use flagstone::Heap;

use super::spec::{Flags, Keys, Spec};
use super::{Context, is_name};
use crate::failure::Failure;
use crate::keyspace::shard::Locked;
use crate::memory::{Figures, Source, ratio};
use crate::number::{human_bytes, parse_i64};
use crate::resp::input::Args;
use crate::resp::reply::Reply;

/// The family's rows.
pub const COMMANDS: &[Spec] = &[Spec::container(
    "memory",
    "Tells where the memory is",
    &[
        Spec::new("doctor", 2, "", "What is wrong with the memory, if anything", doctor),
        Spec::new("help", 2, "", "This text", |cx, _| super::help(cx, "memory")),
        Spec::new("malloc-stats", 2, "", "The allocator's figures by class", malloc_stats),
        Spec::new("purge", 2, "", "Gives free memory back to the system", purge),
        Spec::new("stats", 2, "", "Where the memory is", stats),
        Spec::new("usage", -3, "key [SAMPLES count]", "Bytes that a key takes", usage)
            .keys(Keys::SECOND)
            .flags(Flags::READONLY),
    ],
)];

/// Block sizes are known exactly, so there is nothing to sample; the option is accepted.
fn usage(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    match (args.len(), args.get(3), args.get(4)) {
        (3, ..) => {}
        (5, Some(option), Some(count)) if is_name("samples", option) => {
            let count = parse_i64(count).ok_or(Failure::NOT_AN_INTEGER)?;
            if count < 0 {
                return Err(Failure::SYNTAX);
            }
        }
        _ => return Err(Failure::SYNTAX),
    }
    let key = cx.key(args.at(2));
    match cx.db().read(&key, cx.now(), cx.guard) {
        Some(entry) => cx.reply().count(Locked::usage(entry)),
        None => cx.reply().null(),
    }
    Ok(())
}

enum Stat {
    Bytes(u64),
    Signed(i64),
    Ratio(f64),
}

fn stats(cx: &mut Context<'_>, _: Args<'_>) -> Result<(), Failure> {
    let figures = Figures::read(cx.shared);
    let dbs = cx.shared.keyspace.dbs().iter().map(crate::keyspace::Db::figures);
    let dbs: Vec<_> = dbs.enumerate().filter(|(_, db)| db.keys > 0).collect();
    let per_key = figures.used.saturating_sub(figures.at_start).checked_div(figures.keys);
    let mut stats = vec![
        ("peak.allocated", Stat::Bytes(figures.peak)),
        ("total.allocated", Stat::Bytes(figures.used)),
        ("startup.allocated", Stat::Bytes(figures.at_start)),
        ("clients.normal", Stat::Bytes(figures.connections)),
        ("overhead.total", Stat::Bytes(figures.overhead())),
        ("keys.count", Stat::Bytes(figures.keys)),
        ("keys.bytes-per-key", Stat::Bytes(per_key.unwrap_or(0))),
        ("dataset.bytes", Stat::Bytes(figures.dataset)),
        ("dataset.percentage", Stat::Ratio(100.0 * ratio(figures.dataset, figures.used))),
        ("peak.percentage", Stat::Ratio(100.0 * ratio(figures.used, figures.peak))),
    ];
    if let Some(heap) = figures.heap {
        stats.extend([
            ("allocator.allocated", Stat::Bytes(heap.live)),
            ("allocator.active", Stat::Bytes(heap.active)),
            ("allocator.resident", Stat::Bytes(heap.mapped)),
            ("allocator-fragmentation.ratio", Stat::Ratio(ratio(heap.active, heap.live))),
            ("allocator-fragmentation.bytes", Stat::Bytes(heap.active.saturating_sub(heap.live))),
            ("allocator-rss.ratio", Stat::Ratio(ratio(heap.mapped, heap.active))),
            ("allocator-rss.bytes", Stat::Bytes(heap.mapped.saturating_sub(heap.active))),
        ]);
    }
    if let Some(resident) = figures.resident {
        stats.push(("fragmentation", Stat::Ratio(ratio(resident, figures.used))));
        stats.push(("fragmentation.bytes", Stat::Signed(resident as i64 - figures.used as i64)));
    }
    let mut reply = cx.reply();
    reply.map(stats.len() + dbs.len());
    for (name, stat) in &stats {
        reply.bulk(name.as_bytes());
        match stat {
            Stat::Bytes(n) => reply.integer(i64::try_from(*n).unwrap_or(i64::MAX)),
            Stat::Signed(n) => reply.integer(*n),
            Stat::Ratio(x) => reply.double(*x),
        }
    }
    for (number, db) in &dbs {
        reply.bulk(format!("db.{number}").as_bytes());
        reply.map(1);
        reply.bulk(b"overhead.hashtable.main");
        reply.count(db.overhead_bytes);
    }
    Ok(())
}

fn purge(cx: &mut Context<'_>, _: Args<'_>) -> Result<(), Failure> {
    cx.after.purge = true;
    cx.reply().ok();
    Ok(())
}

fn malloc_stats(cx: &mut Context<'_>, _: Args<'_>) -> Result<(), Failure> {
    let text = if cx.shared.gauge.source() == Source::Heap {
        class_table()
    } else {
        "Stats not supported for the current allocator".to_owned()
    };
    cx.reply().verbatim(&text);
    Ok(())
}

fn class_table() -> String {
    let snapshot = Heap::global().snapshot();
    let mut text = format!(
        "{:>12} {:>12} {:>12} {:>14} {:>14} {:>10}\n",
        "block bytes", "in use", "high water", "allocations", "frees", "slabs"
    );
    for class in snapshot.classes.iter().filter(|class| class.allocs > 0) {
        let _ = writeln!(
            text,
            "{:>12} {:>12} {:>12} {:>14} {:>14} {:>10}",
            class.block_bytes,
            class.in_use,
            class.high_water,
            class.allocs,
            class.frees,
            class.slabs
        );
    }
    let bytes = snapshot.bytes;
    let _ = writeln!(
        text,
        "live {} + cached {} + fragmentation {} + retired {} + metadata {} = mapped {} \
         (residual {})",
        bytes.live,
        bytes.cached,
        bytes.fragmentation,
        bytes.retired,
        bytes.metadata,
        bytes.mapped,
        bytes.residual()
    );
    text
}

fn doctor(cx: &mut Context<'_>, _: Args<'_>) -> Result<(), Failure> {
    let report = diagnose(&Figures::read(cx.shared));
    let mut reply: Reply<'_> = cx.reply();
    reply.verbatim(&report);
    Ok(())
}

/// A line for everything that stands out, or one that nothing does.
fn diagnose(figures: &Figures) -> String {
    /// Below this a server is too small for ratios to mean anything.
    const TOO_SMALL: u64 = 5 << 20;
    let mut lines = Vec::new();
    let used = figures.used;
    if figures.limit > 0 && used >= figures.limit / 10 * 9 {
        lines.push(format!(
            "The limit is near: {} of {} are in use. At the limit writes are refused; reads and \
             deletes go on.",
            human_bytes(used),
            human_bytes(figures.limit)
        ));
    }
    if figures.peak > TOO_SMALL && figures.peak / 2 > used && figures.resident > Some(used * 2) {
        lines.push(format!(
            "A peak of {} is over, and {} stay resident for {} in use. MEMORY PURGE gives back \
             what is free.",
            human_bytes(figures.peak),
            human_bytes(figures.resident.unwrap_or(0)),
            human_bytes(used)
        ));
    }
    if let Some(heap) = figures.heap
        && heap.live > TOO_SMALL
        && heap.active > heap.live / 2 * 3
    {
        lines.push(format!(
            "Slabs are sparsely used: {} in blocks, {} in the slabs that hold them. Keys of \
             different ages share slabs; the gap closes as they are rewritten.",
            human_bytes(heap.live),
            human_bytes(heap.active)
        ));
    }
    if figures.connections > TOO_SMALL && figures.connections > figures.dataset {
        lines.push(format!(
            "Connections hold more than the data: {} against {}. CLIENT LIST shows whose buffers \
             are large (tot-mem).",
            human_bytes(figures.connections),
            human_bytes(figures.dataset)
        ));
    }
    if lines.is_empty() {
        return format!("Nothing stands out: {} in use.", human_bytes(used));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::tests::Bench;

    #[test]
    fn usage_covers_the_payload() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("MEMORY USAGE k"), "nil");
        bench.run(&format!("SET k {}", "x".repeat(10_000)));
        let text = bench.int("MEMORY USAGE k");
        assert!((10_000..13_000).contains(&text), "{text}");
        bench.run("SET n 12345");
        let number = bench.int("MEMORY USAGE n SAMPLES 5");
        assert!((50..200).contains(&number), "{number}");
        bench.run("RPUSH l a b c");
        let short = bench.int("MEMORY USAGE l");
        bench.run(&format!("RPUSH l {}", "y".repeat(1000)));
        assert!(bench.int("MEMORY USAGE l") >= short + 1000);
        assert_eq!(bench.run("MEMORY USAGE k BOO 1"), "-ERR syntax error");
    }

    #[test]
    fn stats_add_up() {
        let mut bench = Bench::new();
        bench.run("MSET a 1 b 2");
        let reply = bench.run("MEMORY STATS");
        assert!(reply.contains("keys.count, :2"), "{reply}");
        assert!(reply.contains("db.0, [overhead.hashtable.main, :"), "{reply}");
        bench.run("HELLO 3");
        assert!(bench.run("MEMORY STATS").contains("dataset.percentage: ,"));
    }

    #[test]
    fn purge_doctor_and_classes_answer() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("MEMORY PURGE"), "+OK");
        assert!(bench.run("MEMORY DOCTOR").starts_with("Nothing stands out"));
        assert!(!bench.run("MEMORY MALLOC-STATS").is_empty());
    }

    #[test]
    fn the_doctor_sees_what_stands_out() {
        let healthy = Figures {
            used: 100 << 20,
            source: Source::Heap,
            peak: 110 << 20,
            at_start: 0,
            resident: Some(120 << 20),
            dataset: 90 << 20,
            tables: 1 << 20,
            connections: 1 << 20,
            keys: 1000,
            limit: 0,
            heap: None,
        };
        assert!(diagnose(&healthy).starts_with("Nothing stands out"));
        let near = Figures { limit: 105 << 20, ..healthy };
        assert!(diagnose(&near).starts_with("The limit is near"));
        let after_peak = Figures { peak: 1 << 30, resident: Some(1 << 30), ..healthy };
        assert!(diagnose(&after_peak).contains("MEMORY PURGE"));
        let buffers = Figures { connections: 95 << 20, ..healthy };
        assert!(diagnose(&buffers).contains("CLIENT LIST"));
    }
}
