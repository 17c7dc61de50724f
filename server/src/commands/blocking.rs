//! The waiting family: BLPOP BRPOP.
//!
//! The handler answers at once or leaves the session blocked; the connection then runs nothing else
//! until an element comes, the time is over, or the client goes away.

use std::time::Duration;

use flagstone::epoch::Guard;
use tokio::time::Instant;

use super::Context;
use super::spec::{Flags, Keys, Spec};
use crate::failure::Failure;
use crate::fallible::{NoMemory, try_boxed};
use crate::keyspace::blocking::PopOrWait;
use crate::keyspace::list::End;
use crate::keyspace::shard::Key;
use crate::keyspace::waiters::{Popped, Waiter};
use crate::number::parse_f64;
use crate::resp::input::Args;
use crate::session::{Blocked, Session};
use crate::shared::{Shared, wall_clock};

const FLAGS: Flags = Flags::WRITE.and(Flags::BLOCKING).and(Flags::KEEPS);

/// The family's rows.
pub const COMMANDS: &[Spec] = &[
    Spec::new("blpop", -3, "key [key ...] timeout", "Takes off a head, waits for one", blpop)
        .keys(Keys::ALL_BUT_LAST)
        .flags(FLAGS),
    Spec::new("brpop", -3, "key [key ...] timeout", "Takes off a tail, waits for one", brpop)
        .keys(Keys::ALL_BUT_LAST)
        .flags(FLAGS),
];

/// Writes the reply of a wait that ended without an element.
pub fn answer_none(session: &mut Session) {
    session.reply().null_array();
}

/// Writes the reply of a wait that ended with an element, or with the word that there was no memory to
/// hand it over.
pub fn deliver(shared: &Shared, session: &mut Session, popped: Result<Popped, NoMemory>) {
    let answered = shared.keyspace.with_participant(|participant| {
        let guard = participant.pin();
        answer(shared, session, popped?, &guard)
    });
    if let Err(failure) = answered {
        shared.stats.oom_refusals.add(1);
        session.reply().error(failure.as_str());
    }
}

/// Answers with an element. Without memory for that it goes back to its list.
fn answer(
    shared: &Shared,
    session: &mut Session,
    popped: Popped,
    guard: &Guard<'_>,
) -> Result<(), Failure> {
    if let Err(refused) = session.out.reserve(popped.reply_room()) {
        // Most likely the list still has the place that it came from.
        let _ = shared.keyspace.db(session.db).put_back(popped, wall_clock(), guard);
        return Err(Failure::no_memory(refused));
    }
    session.reply().bulks([&popped.key, &popped.element]);
    Ok(())
}

/// Writes the reply of a wait that `CLIENT UNBLOCK ... ERROR` ended.
pub fn answer_unblocked(session: &mut Session) {
    session.reply().error("UNBLOCKED client unblocked via CLIENT UNBLOCK");
}

fn blpop(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    pop_or_wait(cx, args, End::Left)
}

fn brpop(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    pop_or_wait(cx, args, End::Right)
}

fn pop_or_wait(cx: &mut Context<'_>, args: Args<'_>, end: End) -> Result<(), Failure> {
    let last = args.len() - 1;
    let deadline = timeout(args.at(last))?.map(|wait| Instant::now() + wait);
    let names = args.from(1).take(last - 1);
    let mut keys: Vec<Key<'_>> = Vec::new();
    keys.try_reserve_exact(last - 1).map_err(Failure::no_memory)?;
    keys.extend(names.map(|name| cx.key(name)));
    let mut waited_for: Vec<Box<[u8]>> = Vec::new();
    let make_waiter = || {
        waited_for.try_reserve_exact(keys.len())?;
        for key in &keys {
            waited_for.push(try_boxed(key.bytes)?);
        }
        let ticket = cx.shared.keyspace.next_ticket();
        Ok(Waiter::new(ticket, end, cx.session.client.wake.clone()))
    };
    match cx.db().pop_or_wait(&keys, end, cx.now(), cx.guard, make_waiter)? {
        PopOrWait::Popped(popped) => answer(cx.shared, cx.session, popped, cx.guard)?,
        PopOrWait::WrongType => return Err(Failure::WRONG_TYPE),
        PopOrWait::Waiting(waiter) => {
            let (shared, db) = (cx.shared.clone(), cx.session.db);
            cx.session.blocked = Some(Blocked::new(shared, db, waited_for, waiter, deadline));
        }
    }
    Ok(())
}

/// Seconds, with fractions; `None` for ever.
fn timeout(text: &[u8]) -> Result<Option<Duration>, Failure> {
    const OUT_OF_RANGE: Failure = Failure::fixed("ERR timeout is out of range");
    /// Longest wait, far past any process's life and far from the clock's end.
    const LONGEST: f64 = (i64::MAX / 1000 / 1000) as f64;
    let seconds =
        parse_f64(text).ok_or(Failure::fixed("ERR timeout is not a float or out of range"))?;
    if seconds < 0.0 {
        return Err(Failure::fixed("ERR timeout is negative"));
    }
    if seconds > LONGEST {
        return Err(OUT_OF_RANGE);
    }
    if seconds == 0.0 {
        return Ok(None);
    }
    // A wait shorter than a millisecond is one, not none.
    let wait = Duration::try_from_secs_f64(seconds).map_err(|_| OUT_OF_RANGE)?;
    Ok(Some(wait.max(Duration::from_millis(1))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::tests::Bench;

    #[test]
    fn what_is_there_is_taken_at_once() {
        let mut bench = Bench::new();
        bench.run("RPUSH b 1 2");
        assert_eq!(bench.run("BLPOP a b 0"), "[b, 1]");
        assert_eq!(bench.run("BRPOP a b 0.5"), "[b, 2]");
        assert!(bench.session.blocked.is_none());
    }

    #[test]
    fn a_push_serves_who_waits() {
        let mut first = Bench::new();
        let mut second = first.another();
        let mut third = first.another();
        assert_eq!(first.run("BLPOP a b 0"), "");
        assert_eq!(second.run("BRPOP b 0"), "");
        assert_eq!(third.run("RPUSH b 1 2 3"), ":3");
        let popped = first.session.blocked.take().unwrap().give_up().unwrap();
        deliver(&first.shared, &mut first.session, Ok(popped));
        assert_eq!(first.printed(), "[b, 1]");
        let popped = second.session.blocked.take().unwrap().give_up().unwrap();
        deliver(&second.shared, &mut second.session, Ok(popped));
        assert_eq!(second.printed(), "[b, 3]");
        assert_eq!(third.run("LRANGE b 0 -1"), "[2]");
        assert_eq!(third.shared.stats.blocked.get(), 0);
    }

    #[test]
    fn a_client_that_goes_away_loses_nothing() {
        let mut waiting = Bench::new();
        let mut other = waiting.another();
        waiting.run("BLPOP a 0");
        other.run("RPUSH a 1");
        assert_eq!(other.run("LLEN a"), ":0");
        drop(waiting.session.blocked.take());
        assert_eq!(other.run("LRANGE a 0 -1"), "[1]");
    }

    #[test]
    fn timeouts() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("BLPOP a -1"), "-ERR timeout is negative");
        assert_eq!(bench.run("BLPOP a x"), "-ERR timeout is not a float or out of range");
        assert_eq!(bench.run("BLPOP a inf"), "-ERR timeout is out of range");
        assert_eq!(bench.run("BLPOP a 1e300"), "-ERR timeout is out of range");
        assert!(bench.session.blocked.is_none());
        assert_eq!(timeout(b"0").unwrap(), None);
        assert_eq!(timeout(b"0.0000001").unwrap(), Some(Duration::from_millis(1)));
        assert_eq!(timeout(b"1.5").unwrap(), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn another_type_is_refused() {
        let mut bench = Bench::new();
        bench.run("SET s x");
        assert!(bench.run("BLPOP s 0").starts_with("-WRONGTYPE "));
    }
}
