//! The string family: GET SET and their variants, MGET MSET, APPEND STRLEN.

use super::Context;
use super::expiry::{Unit, deadline};
use super::is_name;
use super::spec::{Flags, Keys, Spec};
use crate::failure::Failure;
use crate::keyspace::entry::Entry;
use crate::keyspace::expiry::Millis;
use crate::keyspace::shard::Key;

use crate::resp::input::Args;

const READ: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE.and(Flags::DENYOOM);

/// The family's rows.
pub const COMMANDS: &[Spec] = &[
    Spec::new("append", 3, "key value", "Appends to a string", append)
        .keys(Keys::ONE)
        .flags(WRITE.and(Flags::FAST)),
    Spec::new("get", 2, "key", "Answers a string", get).keys(Keys::ONE).flags(READ),
    Spec::new("getdel", 2, "key", "Answers a string and deletes it", get_del)
        .keys(Keys::ONE)
        .flags(Flags::WRITE.and(Flags::FAST)),
    Spec::new("getset", 3, "key value", "Sets a string and answers the old one", get_set)
        .keys(Keys::ONE)
        .flags(WRITE.and(Flags::FAST)),
    Spec::new("mget", -2, "key [key ...]", "Answers several strings of one moment", mget)
        .keys(Keys::ALL)
        .flags(READ),
    Spec::new("mset", -3, "key value [key value ...]", "Sets several strings at once", mset)
        .keys(Keys::PAIRS)
        .flags(WRITE),
    Spec::new(
        "psetex",
        4,
        "key milliseconds value",
        "Sets a string that expires, in milliseconds",
        pset_ex,
    )
    .keys(Keys::ONE)
    .flags(WRITE),
    Spec::new(
        "set",
        -3,
        "key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]",
        "Sets a string, on conditions, with a deadline",
        set,
    )
    .keys(Keys::ONE)
    .flags(WRITE),
    Spec::new("setex", 4, "key seconds value", "Sets a string that expires", set_ex)
        .keys(Keys::ONE)
        .flags(WRITE),
    Spec::new("setnx", 3, "key value", "Sets a string if the key is new", set_nx)
        .keys(Keys::ONE)
        .flags(WRITE.and(Flags::FAST)),
    Spec::new("strlen", 2, "key", "Answers a string's length", strlen).keys(Keys::ONE).flags(READ),
];

fn get(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let key = cx.key(args.at(1));
    match cx.read(&key) {
        None => cx.reply().null(),
        Some(entry) => {
            if !entry.write_text(&mut cx.session.reply()) {
                return Err(Failure::WRONG_TYPE);
            }
        }
    }
    Ok(())
}

fn strlen(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let key = cx.key(args.at(1));
    let len = match cx.read(&key) {
        None => 0,
        Some(entry) => entry.text_len().ok_or(Failure::WRONG_TYPE)?,
    };
    cx.reply().count(len);
    Ok(())
}

fn mget(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let keys: Vec<Key<'_>> = args.from(1).map(|name| cx.key(name)).collect();
    let seen = cx.db().read_many(&keys, cx.now(), cx.guard);
    seen.iter().for_each(|one| cx.session.count_read(one.is_some()));
    let mut reply = cx.reply();
    reply.array(keys.len());
    for one in &seen {
        match one.map(|one| (one.number(), one.entry())) {
            Some((Some(number), _)) => reply.bulk_integer(number),
            Some((None, entry)) if entry.write_text(&mut reply) => {}
            _ => reply.null(),
        }
    }
    Ok(())
}

fn mset(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    if args.len().is_multiple_of(2) {
        return Err(Failure::arity("mset"));
    }
    let names = args.from(1).step_by(2).map(|name| cx.key(name));
    let pairs: Vec<_> = names.zip(args.from(2).step_by(2)).collect();
    cx.db().set_many(&pairs, cx.now(), cx.guard).map_err(Failure::no_memory)?;
    cx.reply().ok();
    Ok(())
}

/// What `SET` is to do besides setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SetOptions {
    only: Option<Only>,
    answer_old: bool,
    keep_deadline: bool,
    expires_at: Option<Millis>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Only {
    IfNew,
    IfThere,
}

fn set(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let options = set_options(args, cx.now())?;
    set_with(cx, args.at(1), args.at(2), options)
}

fn set_options(args: Args<'_>, now: Millis) -> Result<SetOptions, Failure> {
    let mut options = SetOptions::default();
    let mut time: Option<(&[u8], Unit, bool)> = None;
    let mut rest = args.from(3);
    while let Some(option) = rest.next() {
        let unit = [
            ("ex", Unit::Seconds, false),
            ("px", Unit::Millis, false),
            ("exat", Unit::Seconds, true),
            ("pxat", Unit::Millis, true),
        ]
        .into_iter()
        .find(|(name, ..)| is_name(name, option));
        if is_name("nx", option) && options.only != Some(Only::IfThere) {
            options.only = Some(Only::IfNew);
        } else if is_name("xx", option) && options.only != Some(Only::IfNew) {
            options.only = Some(Only::IfThere);
        } else if is_name("get", option) {
            options.answer_old = true;
        } else if is_name("keepttl", option) && time.is_none() {
            options.keep_deadline = true;
        } else if let Some((_, unit, absolute)) = unit
            && time.is_none_or(|(_, u, a)| (u, a) == (unit, absolute))
            && !options.keep_deadline
        {
            time = Some((rest.next().ok_or(Failure::SYNTAX)?, unit, absolute));
        } else {
            return Err(Failure::SYNTAX);
        }
    }
    // Only now: a mistake in the form is told before one in the number.
    if let Some((time, unit, absolute)) = time {
        options.expires_at = Some(positive_deadline(time, unit, absolute, now, "set")?);
    }
    Ok(options)
}

fn set_with(
    cx: &mut Context<'_>,
    name: &[u8],
    text: &[u8],
    options: SetOptions,
) -> Result<(), Failure> {
    let key = cx.key(name);
    let now = cx.now();
    let mut expires_at = options.expires_at;
    let plain = options == SetOptions { expires_at, ..SetOptions::default() };
    if plain {
        let entry = Entry::try_string(&key, text, expires_at).map_err(Failure::no_memory)?;
        cx.db().set(&key, entry, now, cx.guard);
    } else {
        let mut shard = cx.db().lock(&key, cx.guard);
        let old = shard.peek(&key, now);
        if options.answer_old && old.is_some_and(|entry| !entry.value().is_string()) {
            return Err(Failure::WRONG_TYPE);
        }
        let refused = match options.only {
            None => false,
            Some(Only::IfNew) => old.is_some(),
            Some(Only::IfThere) => old.is_none(),
        };
        if options.keep_deadline {
            expires_at = old.and_then(|entry| entry.expires_at());
        }
        // Before anything is answered or changed.
        let entry = Entry::try_string(&key, text, expires_at).map_err(Failure::no_memory)?;
        if options.answer_old {
            let mut reply = cx.session.reply();
            match old {
                Some(entry) => drop(entry.write_text(&mut reply)),
                None => reply.null(),
            }
            if cx.session.out.is_starved() {
                return Err(Failure::NO_MEMORY);
            }
        }
        if refused {
            if !options.answer_old {
                cx.session.reply().null();
            }
            return Ok(());
        }
        shard.set(&key, entry, now);
    }
    if !options.answer_old {
        cx.reply().ok();
    }
    Ok(())
}

fn set_nx(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let key = cx.key(args.at(1));
    let now = cx.now();
    let mut shard = cx.db().lock(&key, cx.guard);
    let new = shard.peek(&key, now).is_none();
    if new {
        let entry = Entry::try_string(&key, args.at(2), None).map_err(Failure::no_memory)?;
        shard.set(&key, entry, now);
    }
    drop(shard);
    cx.reply().integer(new.into());
    Ok(())
}

fn set_ex(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    set_expiring(cx, args, Unit::Seconds, "setex")
}

fn pset_ex(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    set_expiring(cx, args, Unit::Millis, "psetex")
}

fn set_expiring(
    cx: &mut Context<'_>,
    args: Args<'_>,
    unit: Unit,
    command: &str,
) -> Result<(), Failure> {
    let expires_at = positive_deadline(args.at(2), unit, false, cx.now(), command)?;
    let options = SetOptions { expires_at: Some(expires_at), ..SetOptions::default() };
    set_with(cx, args.at(1), args.at(3), options)
}

fn get_set(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let options = SetOptions { answer_old: true, ..SetOptions::default() };
    set_with(cx, args.at(1), args.at(2), options)
}

fn get_del(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let key = cx.key(args.at(1));
    let now = cx.now();
    let mut shard = cx.db().lock(&key, cx.guard);
    let entry = cx.read(&key);
    if entry.is_some_and(|entry| !entry.value().is_string()) {
        return Err(Failure::WRONG_TYPE);
    }
    match shard.peek(&key, now) {
        None => cx.reply().null(),
        Some(entry) => {
            entry.write_text(&mut cx.session.reply());
            // What could not be answered stays.
            if !cx.session.out.is_starved() {
                shard.remove(&key, now);
            }
        }
    }
    Ok(())
}

fn append(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let key = cx.key(args.at(1));
    let more = args.at(2);
    let now = cx.now();
    let longest = cx.shared.settings.wire.bulk;
    let mut shard = cx.db().lock(&key, cx.guard);
    let len = match shard.peek(&key, now) {
        Some(entry) => {
            let len = entry.text_len().ok_or(Failure::WRONG_TYPE)? + more.len();
            if len > longest {
                return Err(Failure::STRING_TOO_LONG);
            }
            let longer = entry.try_appended(&key, more).map_err(Failure::no_memory)?;
            let longer = longer.ok_or(Failure::WRONG_TYPE)?;
            shard.set(&key, longer, now);
            len
        }
        None => {
            let entry = Entry::try_string(&key, more, None).map_err(Failure::no_memory)?;
            shard.set(&key, entry, now);
            more.len()
        }
    };
    drop(shard);
    cx.reply().count(len);
    Ok(())
}

/// A deadline that `SET` and its variants take: more than zero.
fn positive_deadline(
    time: &[u8],
    unit: Unit,
    absolute: bool,
    now: Millis,
    command: &str,
) -> Result<Millis, Failure> {
    let at = deadline(time, unit, absolute, now, command)?;
    let given = crate::number::parse_i64(time).unwrap_or(0);
    if given <= 0 {
        return Err(Failure::expire_time(command));
    }
    u64::try_from(at).map_err(|_| Failure::expire_time(command))
}

#[cfg(test)]
mod tests {
    use crate::commands::tests::Bench;

    #[test]
    fn set_and_get() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("SET k v"), "+OK");
        assert_eq!(bench.run("GET k"), "v");
        assert_eq!(bench.run("GET missing"), "nil");
        assert_eq!(bench.run("GETSET k w"), "v");
        assert_eq!(bench.run("GETSET new x"), "nil");
        assert_eq!(bench.run("GETDEL k"), "w");
        assert_eq!(bench.run("GETDEL k"), "nil");
        assert_eq!(bench.run("SETNX k 1"), ":1");
        assert_eq!(bench.run("SETNX k 2"), ":0");
        assert_eq!(bench.run("GET k"), "1");
        assert_eq!(bench.run("STRLEN k"), ":1");
        assert_eq!(bench.run("STRLEN missing"), ":0");
    }

    #[test]
    fn set_on_conditions() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("SET k v XX"), "nil");
        assert_eq!(bench.run("SET k v NX"), "+OK");
        assert_eq!(bench.run("SET k w NX"), "nil");
        assert_eq!(bench.run("SET k w XX GET"), "v");
        assert_eq!(bench.run("SET k x NX GET"), "w");
        assert_eq!(bench.run("GET k"), "w");
        assert_eq!(bench.run("SET fresh x NX GET"), "nil");
        assert_eq!(bench.run("GET fresh"), "x");
        for bad in [
            "SET k v NX XX",
            "SET k v EX",
            "SET k v EX 1 PX 1",
            "SET k v KEEPTTL EX 1",
            "SET k v EX 1 KEEPTTL",
            "SET k v BOO",
        ] {
            assert_eq!(bench.run(bad), "-ERR syntax error", "{bad}");
        }
        assert_eq!(bench.run("GET k"), "w");
    }

    #[test]
    fn set_with_deadlines() {
        let mut bench = Bench::new();
        bench.run("SET k v EX 100");
        assert_eq!(bench.run("TTL k"), ":100");
        bench.run("SET k w KEEPTTL");
        assert_eq!(bench.run("TTL k"), ":100");
        bench.run("SET k x");
        assert_eq!(bench.run("TTL k"), ":-1");
        bench.run("PSETEX k 5000 v");
        assert_eq!(bench.run("PTTL k"), ":5000");
        bench.run("SETEX k 7 v");
        assert_eq!(bench.run("TTL k"), ":7");
        let at = bench.session.now / 1000 + 50;
        bench.run(&format!("SET k v EXAT {at}"));
        assert!(bench.int("TTL k") <= 50);
        bench.advance(60_000);
        assert_eq!(bench.run("GET k"), "nil");
        for (bad, command) in [
            ("SET k v EX 0", "set"),
            ("SET k v PX -1", "set"),
            ("SET k v EX 9223372036854775807", "set"),
            ("SETEX k 0 v", "setex"),
            ("PSETEX k 0 v", "psetex"),
        ] {
            let expected = format!("-ERR invalid expire time in '{command}' command");
            assert_eq!(bench.run(bad), expected, "{bad}");
        }
        assert_eq!(bench.run("SET k v EX x"), "-ERR value is not an integer or out of range");
        assert_eq!(bench.run("EXISTS k"), ":0");
    }

    #[test]
    fn many_at_once() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("MSET a 1 b 2 a 3"), "+OK");
        bench.run("LPUSH l x");
        assert_eq!(bench.run("MGET a b l missing"), "[3, 2, nil, nil]");
        assert_eq!(bench.run("MSET a 1 b"), "-ERR wrong number of arguments for 'mset' command");
    }

    #[test]
    fn append_makes_and_extends() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("APPEND k 12"), ":2");
        assert_eq!(bench.run("APPEND k 3"), ":3");
        assert_eq!(bench.run("INCR k"), ":124");
        assert_eq!(bench.run("APPEND k x"), ":4");
        assert_eq!(bench.run("GET k"), "124x");
        bench.run("LPUSH l a");
        assert!(bench.run("APPEND l x").starts_with("-WRONGTYPE"));
    }

    #[test]
    fn a_string_does_not_grow_past_the_bulk_limit() {
        let mut bench = Bench::with(|settings| settings.wire.bulk = 10);
        assert_eq!(bench.run("APPEND k 12345678"), ":8");
        assert!(bench.run("APPEND k 901").starts_with("-ERR string exceeds maximum"));
        assert_eq!(bench.run("STRLEN k"), ":8");
    }

    #[test]
    fn another_type_is_refused() {
        let mut bench = Bench::new();
        bench.run("LPUSH l a");
        for command in ["GET l", "STRLEN l", "GETDEL l", "GETSET l x", "SET l x GET"] {
            assert!(bench.run(command).starts_with("-WRONGTYPE "), "{command}");
        }
        assert_eq!(bench.run("LLEN l"), ":1");
        assert_eq!(bench.run("SET l x"), "+OK");
        assert_eq!(bench.run("GET l"), "x");
    }
}
