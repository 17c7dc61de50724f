//! The counter family: INCR DECR INCRBY DECRBY.

use super::Context;
use super::spec::{Flags, Keys, Spec};
use crate::failure::Failure;
use crate::keyspace::entry::Entry;
use crate::number::parse_i64;
use crate::resp::input::Args;

const FLAGS: Flags = Flags::WRITE.and(Flags::DENYOOM).and(Flags::FAST);

/// The family's rows.
pub const COMMANDS: &[Spec] = &[
    Spec::new("decr", 2, "key", "Takes one from an integer", decr).keys(Keys::ONE).flags(FLAGS),
    Spec::new("decrby", 3, "key decrement", "Takes a number from an integer", decr_by)
        .keys(Keys::ONE)
        .flags(FLAGS),
    Spec::new("incr", 2, "key", "Adds one to an integer", incr).keys(Keys::ONE).flags(FLAGS),
    Spec::new("incrby", 3, "key increment", "Adds a number to an integer", incr_by)
        .keys(Keys::ONE)
        .flags(FLAGS),
];

fn incr(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    add(cx, args.at(1), 1)
}

fn decr(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    add(cx, args.at(1), -1)
}

fn incr_by(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let by = parse_i64(args.at(2)).ok_or(Failure::NOT_AN_INTEGER)?;
    add(cx, args.at(1), by)
}

fn decr_by(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let by = parse_i64(args.at(2)).ok_or(Failure::NOT_AN_INTEGER)?;
    let by = by.checked_neg().ok_or(Failure::fixed("ERR decrement would overflow"))?;
    add(cx, args.at(1), by)
}

fn add(cx: &mut Context<'_>, name: &[u8], by: i64) -> Result<(), Failure> {
    let key = cx.key(name);
    let now = cx.now();
    let mut shard = cx.db().lock(&key, cx.guard);
    let sum = match shard.peek(&key, now) {
        Some(entry) => {
            if !entry.value().is_string() {
                return Err(Failure::WRONG_TYPE);
            }
            let before = entry.as_int().ok_or(Failure::NOT_AN_INTEGER)?;
            let after = before.checked_add(by).ok_or(Failure::COUNTER_OVERFLOW)?;
            shard.set_integer(&key, entry, after, now);
            after
        }
        None => {
            shard.set(&key, Entry::integer(&key, by, None), now);
            by
        }
    };
    drop(shard);
    cx.reply().integer(sum);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::tests::Bench;

    #[test]
    fn counters_count() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("INCR n"), ":1");
        assert_eq!(bench.run("INCRBY n 10"), ":11");
        assert_eq!(bench.run("DECR n"), ":10");
        assert_eq!(bench.run("DECRBY n 20"), ":-10");
        assert_eq!(bench.run("GET n"), "-10");
    }

    #[test]
    fn a_failed_count_changes_nothing() {
        let mut bench = Bench::new();
        bench.run("SET n 9223372036854775807");
        let overflow = "-ERR increment or decrement would overflow";
        assert_eq!(bench.run("INCR n"), overflow);
        assert_eq!(bench.run("GET n"), "9223372036854775807");
        bench.run("SET n -9223372036854775808");
        assert_eq!(bench.run("DECR n"), overflow);
        assert_eq!(bench.run("DECRBY n -9223372036854775808"), "-ERR decrement would overflow");
        bench.run("SET t 1.5");
        let no_integer = "-ERR value is not an integer or out of range";
        assert_eq!(bench.run("INCR t"), no_integer);
        assert_eq!(bench.run("INCRBY n 1.5"), no_integer);
        bench.run("LPUSH l a");
        assert!(bench.run("INCR l").starts_with("-WRONGTYPE "));
    }

    #[test]
    fn the_deadline_stays() {
        let mut bench = Bench::new();
        bench.run("SET n 1 EX 100");
        bench.run("INCR n");
        assert_eq!(bench.run("TTL n"), ":100");
    }
}
