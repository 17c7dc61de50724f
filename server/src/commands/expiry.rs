//! The expiry family: EXPIRE and its variants, TTL and its variants, PERSIST.

use super::Context;
use super::spec::{Flags, Keys, Spec};
use super::{is_name, quote};
use crate::failure::Failure;
use crate::keyspace::expiry::Millis;
use crate::number::parse_i64;
use crate::resp::input::Args;

const READ: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE.and(Flags::FAST);

/// The family's rows.
pub const COMMANDS: &[Spec] = &[
    Spec::new("expire", -3, "key seconds [NX | XX | GT | LT]", "Sets a deadline", expire)
        .keys(Keys::ONE)
        .flags(WRITE),
    Spec::new(
        "expireat",
        -3,
        "key unix-seconds [NX | XX | GT | LT]",
        "Sets a deadline as a time of day",
        expire_at,
    )
    .keys(Keys::ONE)
    .flags(WRITE),
    Spec::new("expiretime", 2, "key", "Answers a deadline in Unix seconds", expire_time)
        .keys(Keys::ONE)
        .flags(READ),
    Spec::new("persist", 2, "key", "Removes a deadline", persist).keys(Keys::ONE).flags(WRITE),
    Spec::new(
        "pexpire",
        -3,
        "key milliseconds [NX | XX | GT | LT]",
        "Sets a deadline, in milliseconds",
        pexpire,
    )
    .keys(Keys::ONE)
    .flags(WRITE),
    Spec::new(
        "pexpireat",
        -3,
        "key unix-milliseconds [NX | XX | GT | LT]",
        "Sets a deadline as a time of day, in milliseconds",
        pexpire_at,
    )
    .keys(Keys::ONE)
    .flags(WRITE),
    Spec::new("pexpiretime", 2, "key", "Answers a deadline in Unix milliseconds", pexpire_time)
        .keys(Keys::ONE)
        .flags(READ),
    Spec::new("pttl", 2, "key", "Answers the time left, in milliseconds", pttl)
        .keys(Keys::ONE)
        .flags(READ),
    Spec::new("ttl", 2, "key", "Answers the time left, in seconds", ttl)
        .keys(Keys::ONE)
        .flags(READ),
];

/// The unit of a time argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Millis,
}

/// Reads a time argument into a deadline in milliseconds since the epoch, which may be in the past
/// or even negative.
pub(super) fn deadline(
    time: &[u8],
    unit: Unit,
    absolute: bool,
    now: Millis,
    command: &str,
) -> Result<i64, Failure> {
    let time = parse_i64(time).ok_or(Failure::NOT_AN_INTEGER)?;
    let millis = match unit {
        Unit::Seconds => time.checked_mul(1000),
        Unit::Millis => Some(time),
    };
    let at = if absolute { millis } else { millis.and_then(|ms| ms.checked_add(now as i64)) };
    at.ok_or_else(|| Failure::expire_time(command))
}

fn expire(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    set_deadline(cx, args, Unit::Seconds, false, "expire")
}

fn expire_at(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    set_deadline(cx, args, Unit::Seconds, true, "expireat")
}

fn pexpire(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    set_deadline(cx, args, Unit::Millis, false, "pexpire")
}

fn pexpire_at(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    set_deadline(cx, args, Unit::Millis, true, "pexpireat")
}

/// When a new deadline is taken.
#[derive(Clone, Copy, Debug, Default)]
struct Conditions {
    if_none: bool,
    if_any: bool,
    if_later: bool,
    if_sooner: bool,
}

impl Conditions {
    fn parse<'a>(options: impl Iterator<Item = &'a [u8]>) -> Result<Self, Failure> {
        let mut conditions = Self::default();
        for option in options {
            let flag = if is_name("nx", option) {
                &mut conditions.if_none
            } else if is_name("xx", option) {
                &mut conditions.if_any
            } else if is_name("gt", option) {
                &mut conditions.if_later
            } else if is_name("lt", option) {
                &mut conditions.if_sooner
            } else {
                return Err(Failure::text(format!("ERR Unsupported option {}", quote(option))));
            };
            *flag = true;
        }
        if conditions.if_none && (conditions.if_any || conditions.if_later || conditions.if_sooner)
        {
            return Err(Failure::fixed(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if conditions.if_later && conditions.if_sooner {
            return Err(Failure::fixed(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        Ok(conditions)
    }

    /// Whether `new` is taken instead of `old`; no deadline counts as infinitely late.
    fn admit(self, old: Option<Millis>, new: i64) -> bool {
        let old = old.map(|at| at as i64);
        !(self.if_none && old.is_some()
            || self.if_any && old.is_none()
            || self.if_later && old.is_none_or(|old| new <= old)
            || self.if_sooner && old.is_some_and(|old| new >= old))
    }
}

fn set_deadline(
    cx: &mut Context<'_>,
    args: Args<'_>,
    unit: Unit,
    absolute: bool,
    command: &str,
) -> Result<(), Failure> {
    let now = cx.now();
    let conditions = Conditions::parse(args.from(3))?;
    let at = deadline(args.at(2), unit, absolute, now, command)?;
    let key = cx.key(args.at(1));
    let mut shard = cx.db().lock(&key, cx.guard);
    let taken = shard
        .peek(&key, now)
        .map(|entry| entry.expires_at())
        .is_some_and(|old| conditions.admit(old, at));
    if taken {
        if at <= now as i64 {
            shard.remove(&key, now);
        } else {
            shard.set_deadline(&key, Some(at as u64), now);
        }
    }
    drop(shard);
    cx.reply().integer(taken.into());
    Ok(())
}

fn persist(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let key = cx.key(args.at(1));
    let now = cx.now();
    let mut shard = cx.db().lock(&key, cx.guard);
    let had = shard.peek(&key, now).is_some_and(|entry| entry.expires_at().is_some());
    if had {
        shard.set_deadline(&key, None, now);
    }
    drop(shard);
    cx.reply().integer(had.into());
    Ok(())
}

fn ttl(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    answer_deadline(cx, args, |at, now| (at.saturating_sub(now) + 500) / 1000)
}

fn pttl(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    answer_deadline(cx, args, |at, now| at.saturating_sub(now))
}

fn expire_time(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    answer_deadline(cx, args, |at, _| (at + 500) / 1000)
}

fn pexpire_time(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    answer_deadline(cx, args, |at, _| at)
}

/// Answers -2 for no key, -1 for no deadline, else what `show` makes of it.
fn answer_deadline(
    cx: &mut Context<'_>,
    args: Args<'_>,
    show: impl Fn(Millis, Millis) -> u64,
) -> Result<(), Failure> {
    let key = cx.key(args.at(1));
    let now = cx.now();
    let answer = match cx.db().read(&key, now, cx.guard).map(|entry| entry.expires_at()) {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => show(at, now) as i64,
    };
    cx.reply().integer(answer);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::tests::Bench;

    #[test]
    fn deadlines_come_and_go() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("TTL k"), ":-2");
        assert_eq!(bench.run("EXPIRE k 1"), ":0");
        bench.run("SET k v");
        assert_eq!(bench.run("TTL k"), ":-1");
        assert_eq!(bench.run("EXPIRE k 10"), ":1");
        assert_eq!(bench.run("PTTL k"), ":10000");
        bench.advance(9_400);
        assert_eq!(bench.run("TTL k"), ":1");
        assert_eq!(bench.run("PERSIST k"), ":1");
        assert_eq!(bench.run("PERSIST k"), ":0");
        assert_eq!(bench.run("PEXPIRE k 5"), ":1");
        bench.advance(5);
        assert_eq!(bench.run("EXISTS k"), ":0");
        assert_eq!(bench.run("DBSIZE"), ":0");
    }

    #[test]
    fn a_deadline_in_the_past_deletes() {
        let mut bench = Bench::new();
        for command in ["EXPIRE k -1", "EXPIRE k 0", "EXPIREAT k 1", "PEXPIREAT k -5"] {
            bench.run("SET k v");
            assert_eq!(bench.run(command), ":1", "{command}");
            assert_eq!(bench.run("EXISTS k"), ":0", "{command}");
        }
    }

    #[test]
    fn times_of_day() {
        let mut bench = Bench::new();
        bench.run("SET k v");
        let at = bench.session.now + 100_000;
        bench.run(&format!("PEXPIREAT k {at}"));
        assert_eq!(bench.run("PEXPIRETIME k"), format!(":{at}"));
        assert_eq!(bench.run("EXPIRETIME k"), format!(":{}", (at + 500) / 1000));
        assert_eq!(bench.run("TTL k"), ":100");
    }

    #[test]
    fn conditions() {
        let mut bench = Bench::new();
        bench.run("SET k v");
        assert_eq!(bench.run("EXPIRE k 10 XX"), ":0");
        assert_eq!(bench.run("EXPIRE k 10 GT"), ":0", "no deadline is later than any");
        assert_eq!(bench.run("EXPIRE k 10 LT"), ":1");
        assert_eq!(bench.run("EXPIRE k 20 NX"), ":0");
        assert_eq!(bench.run("EXPIRE k 20 LT"), ":0");
        assert_eq!(bench.run("EXPIRE k 20 XX GT"), ":1");
        assert_eq!(bench.run("TTL k"), ":20");
        assert!(bench.run("EXPIRE k 1 NX XX").starts_with("-ERR NX and XX, GT or LT"));
        assert!(bench.run("EXPIRE k 1 GT LT").starts_with("-ERR GT and LT"));
        assert_eq!(bench.run("EXPIRE k 1 BOO"), "-ERR Unsupported option BOO");
    }

    #[test]
    fn times_that_make_no_sense() {
        let mut bench = Bench::new();
        bench.run("SET k v");
        for (command, name) in [
            ("EXPIRE k 9223372036854775807", "expire"),
            ("EXPIRE k -9223372036854775808", "expire"),
            ("PEXPIRE k 9223372036854775807", "pexpire"),
        ] {
            let expected = format!("-ERR invalid expire time in '{name}' command");
            assert_eq!(bench.run(command), expected, "{command}");
        }
        assert_eq!(bench.run("EXPIRE k soon"), "-ERR value is not an integer or out of range");
        assert_eq!(bench.run("TTL k"), ":-1");
    }
}
