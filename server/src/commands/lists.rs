//! The list family: pushes, pops and reads. Those that wait are in [`super::blocking`].

use super::Context;
use super::spec::{Flags, Keys, Spec};
use crate::failure::Failure;
use crate::fallible::try_boxed;
use crate::keyspace::list::{End, View};
use crate::number::parse_i64;
use crate::resp::input::Args;

const PUSH: Flags = Flags::WRITE.and(Flags::DENYOOM).and(Flags::FAST);
const POP: Flags = Flags::WRITE.and(Flags::FAST);

/// The family's rows.
pub const COMMANDS: &[Spec] = &[
    Spec::new("lindex", 3, "key index", "Answers one element", lindex)
        .keys(Keys::ONE)
        .flags(Flags::READONLY),
    Spec::new("llen", 2, "key", "Answers a list's length", llen)
        .keys(Keys::ONE)
        .flags(Flags::READONLY.and(Flags::FAST)),
    Spec::new("lpop", -2, "key [count]", "Takes elements off the head", lpop)
        .keys(Keys::ONE)
        .flags(POP),
    Spec::new("lpush", -3, "key element [element ...]", "Adds elements at the head", lpush)
        .keys(Keys::ONE)
        .flags(PUSH),
    Spec::new(
        "lpushx",
        -3,
        "key element [element ...]",
        "Adds elements at the head of a list that is there",
        lpushx,
    )
    .keys(Keys::ONE)
    .flags(PUSH),
    Spec::new("lrange", 4, "key start stop", "Answers elements by position", lrange)
        .keys(Keys::ONE)
        .flags(Flags::READONLY),
    Spec::new("rpop", -2, "key [count]", "Takes elements off the tail", rpop)
        .keys(Keys::ONE)
        .flags(POP),
    Spec::new("rpush", -3, "key element [element ...]", "Adds elements at the tail", rpush)
        .keys(Keys::ONE)
        .flags(PUSH),
    Spec::new(
        "rpushx",
        -3,
        "key element [element ...]",
        "Adds elements at the tail of a list that is there",
        rpushx,
    )
    .keys(Keys::ONE)
    .flags(PUSH),
];

fn lpush(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    push(cx, args, End::Left, true)
}

fn rpush(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    push(cx, args, End::Right, true)
}

fn lpushx(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    push(cx, args, End::Left, false)
}

fn rpushx(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    push(cx, args, End::Right, false)
}

fn push(cx: &mut Context<'_>, args: Args<'_>, end: End, create: bool) -> Result<(), Failure> {
    let key = cx.key(args.at(1));
    let now = cx.now();
    // Copied before locking. Most pushes are of one element and need no list of them.
    let (mut one, mut many);
    let elements = if args.len() == 3 {
        one = [try_boxed(args.at(2))?];
        &mut one[..]
    } else {
        many = Vec::new();
        many.try_reserve_exact(args.len() - 2).map_err(Failure::no_memory)?;
        for element in args.from(2) {
            many.push(try_boxed(element)?);
        }
        &mut many[..]
    };
    let mut shard = cx.db().lock(&key, cx.guard);
    let len = if create || shard.peek(&key, now).is_some() {
        shard.try_push(&key, end, now, elements)?.ok_or(Failure::WRONG_TYPE)?
    } else {
        0
    };
    drop(shard);
    cx.reply().count(len);
    Ok(())
}

fn lpop(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    pop(cx, args, End::Left, "lpop")
}

fn rpop(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    pop(cx, args, End::Right, "rpop")
}

/// Bytes of a string's reply besides its own, at most.
const BULK_HEAD: usize = 32;

fn pop(cx: &mut Context<'_>, args: Args<'_>, end: End, command: &str) -> Result<(), Failure> {
    if args.len() > 3 {
        return Err(Failure::arity(command));
    }
    let count = match args.get(2) {
        None => None,
        Some(count) => {
            let count = parse_i64(count).and_then(|n| usize::try_from(n).ok());
            Some(count.ok_or(Failure::NOT_POSITIVE)?)
        }
    };
    let key = cx.key(args.at(1));
    let now = cx.now();
    let mut shard = cx.db().lock(&key, cx.guard);
    if let Some(entry) = shard.peek(&key, now) {
        let list = entry.value().as_list().ok_or(Failure::WRONG_TYPE)?;
        // Room for what is answered comes before it is taken off.
        let elements = list.view().ends(end, count.unwrap_or(1));
        let room = elements.map(|element| element.len() + BULK_HEAD).sum();
        cx.session.out.reserve(room).map_err(Failure::no_memory)?;
    }
    // Written after unlocking: the guard keeps them.
    let popped = shard.try_pop(&key, end, count.unwrap_or(1), now)?;
    drop(shard);
    let mut reply = cx.reply();
    match (popped, count) {
        (None, None) => reply.null(),
        (None, Some(_)) => reply.null_array(),
        (Some(elements), Some(_)) => reply.bulks(&elements),
        (Some(elements), None) => reply.bulk(elements[0]),
    }
    Ok(())
}

/// The list of a key at one moment, for a command that reads.
fn view<'a>(cx: &mut Context<'a>, name: &[u8]) -> Result<Option<View<'a>>, Failure> {
    match cx.read(&cx.key(name)) {
        None => Ok(None),
        Some(entry) => Ok(Some(entry.value().as_list().ok_or(Failure::WRONG_TYPE)?.view())),
    }
}

fn llen(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let len = view(cx, args.at(1))?.map_or(0, View::len);
    cx.reply().count(len);
    Ok(())
}

fn lindex(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let element = match view(cx, args.at(1))? {
        None => None,
        Some(list) => list.get(parse_i64(args.at(2)).ok_or(Failure::NOT_AN_INTEGER)?),
    };
    match element {
        Some(element) => cx.reply().bulk(element),
        None => cx.reply().null(),
    }
    Ok(())
}

fn lrange(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let start = parse_i64(args.at(2)).ok_or(Failure::NOT_AN_INTEGER)?;
    let stop = parse_i64(args.at(3)).ok_or(Failure::NOT_AN_INTEGER)?;
    match view(cx, args.at(1))? {
        None => cx.reply().array(0),
        Some(list) => cx.reply().bulks(list.range(list.positions(start, stop))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::tests::Bench;

    #[test]
    fn both_ends() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("RPUSH l b c"), ":2");
        assert_eq!(bench.run("LPUSH l a z"), ":4");
        assert_eq!(bench.run("LRANGE l 0 -1"), "[z, a, b, c]");
        assert_eq!(bench.run("LINDEX l 0"), "z");
        assert_eq!(bench.run("LINDEX l -1"), "c");
        assert_eq!(bench.run("LINDEX l 9"), "nil");
        assert_eq!(bench.run("LPOP l"), "z");
        assert_eq!(bench.run("RPOP l"), "c");
        assert_eq!(bench.run("LPOP l 5"), "[a, b]");
        assert_eq!(bench.run("EXISTS l"), ":0");
        assert_eq!(bench.run("LLEN l"), ":0");
    }

    #[test]
    fn pops_with_counts() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("LPOP l"), "nil");
        assert_eq!(bench.run("LPOP l 2"), "nil");
        bench.run("RPUSH l a b c");
        assert_eq!(bench.run("LPOP l 0"), "[]");
        assert_eq!(bench.run("RPOP l 2"), "[c, b]");
        let negative = "-ERR value is out of range, must be positive";
        assert_eq!(bench.run("LPOP l -1"), negative);
        assert_eq!(bench.run("LPOP l x"), negative);
        assert_eq!(bench.run("LPOP l 1 2"), "-ERR wrong number of arguments for 'lpop' command");
        assert_eq!(bench.run("LLEN l"), ":1");
    }

    #[test]
    fn pushes_onto_what_is_there() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("LPUSHX l a"), ":0");
        assert_eq!(bench.run("EXISTS l"), ":0");
        bench.run("RPUSH l a");
        assert_eq!(bench.run("RPUSHX l b"), ":2");
        assert_eq!(bench.run("LPUSHX l c d"), ":4");
        assert_eq!(bench.run("LRANGE l 0 -1"), "[d, c, a, b]");
    }

    #[test]
    fn ranges() {
        let mut bench = Bench::new();
        bench.run("RPUSH l 0 1 2 3 4");
        assert_eq!(bench.run("LRANGE l 1 3"), "[1, 2, 3]");
        assert_eq!(bench.run("LRANGE l -2 -1"), "[3, 4]");
        assert_eq!(bench.run("LRANGE l 4 100"), "[4]");
        assert_eq!(bench.run("LRANGE l 3 1"), "[]");
        assert_eq!(bench.run("LRANGE missing 0 -1"), "[]");
        assert_eq!(bench.run("LRANGE l a b"), "-ERR value is not an integer or out of range");
    }

    #[test]
    fn another_type_is_refused() {
        let mut bench = Bench::new();
        bench.run("SET s x");
        for command in [
            "LPUSH s a",
            "RPUSHX s a",
            "LPOP s",
            "RPOP s 2",
            "LLEN s",
            "LINDEX s 0",
            "LRANGE s 0 1",
        ] {
            assert!(bench.run(command).starts_with("-WRONGTYPE "), "{command}");
        }
        assert_eq!(bench.run("GET s"), "x");
    }

    #[test]
    fn elements_may_be_empty() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("RPUSH l '' ''"), ":2");
        assert_eq!(bench.run("LPOP l 2"), "[, ]");
    }
}
