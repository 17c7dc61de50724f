//! The key family: DEL UNLINK EXISTS TYPE KEYS SCAN.
//!
//! DEL and UNLINK are the same: a deleted value is retired, and freed later by whoever finds that nobody
//! reads it; large lists aside.

use super::Context;
use super::is_name;
use super::spec::{Flags, Keys, Spec};
use crate::failure::Failure;
use crate::glob;
use crate::keyspace::scan::Cursor;
use crate::keyspace::shard::Key;
use crate::number::{parse_i64, parse_u64};
use crate::resp::input::Args;

const READ: Flags = Flags::READONLY.and(Flags::FAST);

/// The family's rows.
pub const COMMANDS: &[Spec] = &[
    Spec::new("del", -2, "key [key ...]", "Deletes keys", del).keys(Keys::ALL).flags(Flags::WRITE),
    Spec::new("exists", -2, "key [key ...]", "Counts the keys that are there", exists)
        .keys(Keys::ALL)
        .flags(READ),
    Spec::new("keys", 2, "pattern", "Answers all keys that match", keys).flags(Flags::READONLY),
    Spec::new(
        "scan",
        -2,
        "cursor [MATCH pattern] [COUNT count] [TYPE type]",
        "Answers some keys and where to go on",
        scan,
    )
    .flags(Flags::READONLY),
    Spec::new("type", 2, "key", "Answers what a key holds", type_of).keys(Keys::ONE).flags(READ),
    Spec::new("unlink", -2, "key [key ...]", "Deletes keys", del)
        .keys(Keys::ALL)
        .flags(Flags::WRITE.and(Flags::FAST)),
];

fn del(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let now = cx.now();
    let keys: Vec<Key<'_>> = args.from(1).map(|name| cx.key(name)).collect();
    let removed = cx.db().remove_many(&keys, now, cx.guard);
    cx.reply().count(removed);
    Ok(())
}

fn exists(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let now = cx.now();
    if args.len() == 2 {
        let there = cx.read(&cx.key(args.at(1))).is_some();
        cx.reply().count(there.into());
        return Ok(());
    }
    let keys: Vec<Key<'_>> = args.from(1).map(|name| cx.key(name)).collect();
    let seen = cx.db().read_many(&keys, now, cx.guard);
    seen.iter().for_each(|one| cx.session.count_read(one.is_some()));
    let there = seen.iter().flatten().count();
    cx.reply().count(there);
    Ok(())
}

fn type_of(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let key = cx.key(args.at(1));
    let name = cx.db().read(&key, cx.now(), cx.guard).map(|entry| entry.value().type_name());
    cx.reply().simple(name.unwrap_or("none"));
    Ok(())
}

fn keys(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let pattern = args.at(1);
    let mut names: Vec<Box<[u8]>> = Vec::new();
    let cursor = cx.db().scan(Cursor::default(), usize::MAX, cx.now(), cx.guard, |name, _| {
        if glob::matches(pattern, name) {
            names.push(name.into());
        }
    });
    debug_assert!(cursor.is_zero(), "one step visits everything");
    cx.reply().bulks(&names);
    Ok(())
}

fn scan(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let cursor = parse_u64(args.at(1)).ok_or(Failure::fixed("ERR invalid cursor"))?;
    let mut pattern = None;
    let mut type_name = None;
    let mut count = 10;
    let mut rest = args.from(2);
    while let Some(option) = rest.next() {
        let value = rest.next().ok_or(Failure::SYNTAX)?;
        if is_name("match", option) {
            pattern = Some(value);
        } else if is_name("type", option) {
            type_name = Some(value);
        } else if is_name("count", option) {
            count = parse_i64(value).ok_or(Failure::NOT_AN_INTEGER)?;
        } else {
            return Err(Failure::SYNTAX);
        }
    }
    let count = usize::try_from(count).ok().filter(|&n| n > 0).ok_or(Failure::SYNTAX)?;
    let mut names: Vec<Box<[u8]>> = Vec::new();
    let cursor = Cursor::from_wire(cursor);
    let next = cx.db().scan(cursor, count, cx.now(), cx.guard, |name, entry| {
        let matches = pattern.is_none_or(|pattern| glob::matches(pattern, name))
            && type_name.is_none_or(|wanted| is_name(entry.value().type_name(), wanted));
        if matches {
            names.push(name.into());
        }
    });
    let mut reply = cx.reply();
    reply.array(2);
    reply.bulk(next.to_wire().to_string().as_bytes());
    reply.bulks(&names);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::tests::Bench;

    #[test]
    fn keys_come_and_go() {
        let mut bench = Bench::new();
        bench.run("MSET a 1 b 2 c 3");
        bench.run("RPUSH l x");
        assert_eq!(bench.run("EXISTS a b a missing"), ":3");
        assert_eq!(bench.run("TYPE a"), "+string");
        assert_eq!(bench.run("TYPE l"), "+list");
        assert_eq!(bench.run("TYPE missing"), "+none");
        assert_eq!(bench.run("DEL a b missing a"), ":2");
        assert_eq!(bench.run("UNLINK c l"), ":2");
        assert_eq!(bench.run("DBSIZE"), ":0");
        assert_eq!(bench.run("DEL a"), ":0");
    }

    #[test]
    fn keys_by_pattern() {
        let mut bench = Bench::new();
        bench.run("MSET one 1 two 2 three 3");
        assert_eq!(bench.run("KEYS *o"), "[two]");
        assert_eq!(bench.run("KEYS x*"), "[]");
        assert_eq!(bench.run("KEYS *").matches(',').count(), 2);
    }

    #[test]
    fn a_scan_sees_every_key() {
        let mut bench = Bench::new();
        for i in 0..500 {
            bench.run(&format!("SET key:{i} {i}"));
        }
        bench.run("RPUSH list a");
        let mut cursor = "0".to_owned();
        let mut seen = std::collections::BTreeSet::new();
        loop {
            let reply = bench.run(&format!("SCAN {cursor} MATCH key:* COUNT 7 TYPE string"));
            let inner = reply.strip_prefix('[').unwrap().strip_suffix(']').unwrap();
            let (next, names) = inner.split_once(", [").unwrap();
            let names = names.strip_suffix(']').unwrap();
            seen.extend(names.split(", ").filter(|name| !name.is_empty()).map(str::to_owned));
            cursor = next.to_owned();
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(seen.len(), 500);
        assert_eq!(bench.run("SCAN 0 COUNT 1000 TYPE list"), "[0, [list]]");
        assert_eq!(bench.run("SCAN 0 COUNT 1000 TYPE hash"), "[0, []]");
    }

    #[test]
    fn a_scan_refuses_what_makes_no_sense() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("SCAN x"), "-ERR invalid cursor");
        assert_eq!(bench.run("SCAN 0 COUNT 0"), "-ERR syntax error");
        assert_eq!(bench.run("SCAN 0 COUNT"), "-ERR syntax error");
        assert_eq!(bench.run("SCAN 0 BOO 1"), "-ERR syntax error");
        assert_eq!(bench.run("SCAN 0 COUNT x"), "-ERR value is not an integer or out of range");
    }
}
