//! The server family: DBSIZE FLUSHALL FLUSHDB TIME SHUTDOWN.

use super::Context;
use super::is_name;
use super::spec::{Flags, Spec};
use crate::failure::Failure;
use crate::keyspace::Db;
use crate::resp::input::Args;
use crate::shared::wall_clock_exact;

/// The family's rows.
pub const COMMANDS: &[Spec] = &[
    Spec::new("dbsize", 1, "", "Answers the number of keys", dbsize)
        .flags(Flags::READONLY.and(Flags::FAST)),
    Spec::new("flushall", -1, "[ASYNC | SYNC]", "Deletes all keys of all databases", flush_all)
        .flags(Flags::WRITE),
    Spec::new("flushdb", -1, "[ASYNC | SYNC]", "Deletes all keys of the database", flush_db)
        .flags(Flags::WRITE),
    Spec::new("shutdown", -1, "[NOSAVE | SAVE] [NOW] [FORCE]", "Stops the server", shutdown)
        .flags(Flags::ADMIN),
    Spec::new("time", 1, "", "Answers the time in seconds and microseconds", time)
        .flags(Flags::FAST),
];

fn dbsize(cx: &mut Context<'_>, _: Args<'_>) -> Result<(), Failure> {
    let keys = cx.db().len();
    cx.reply().count(keys);
    Ok(())
}

fn flush_db(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let dbs = std::slice::from_ref(cx.db());
    flush(cx, args, dbs)
}

fn flush_all(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let dbs = cx.shared.keyspace.dbs();
    flush(cx, args, dbs)
}

/// Each database is emptied at one moment; what was in it is retired with no lock held.
fn flush(cx: &mut Context<'_>, args: Args<'_>, dbs: &[Db]) -> Result<(), Failure> {
    let aside = match args.get(1) {
        None => false,
        Some(mode) if is_name("sync", mode) => false,
        Some(mode) if is_name("async", mode) => true,
        Some(_) => return Err(Failure::SYNTAX),
    };
    if args.len() > 2 {
        return Err(Failure::SYNTAX);
    }
    let flushed: Vec<_> = dbs.iter().map(|db| db.take_all(cx.guard)).collect();
    if aside && tokio::runtime::Handle::try_current().is_ok() {
        flagstone::runtime::spawn_blocking(move || drop(flushed));
    } else {
        cx.after.flushed.extend(flushed);
    }
    cx.reply().ok();
    Ok(())
}

fn time(cx: &mut Context<'_>, _: Args<'_>) -> Result<(), Failure> {
    let since = wall_clock_exact();
    let parts = [since.as_secs().to_string(), since.subsec_micros().to_string()];
    cx.reply().bulks(&parts);
    Ok(())
}

/// Starts the same shutdown as a signal. Like Redis it answers nothing: the closed connection is the
/// answer. There is nothing to save, so the modes make no difference.
fn shutdown(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let known = ["nosave", "save", "now", "force"];
    if args.from(1).any(|mode| !known.iter().any(|name| is_name(name, mode))) {
        return Err(Failure::SYNTAX);
    }
    cx.shared.shutdown_asked.notify_one();
    cx.session.ending = true;
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::tests::Bench;

    #[test]
    fn flushes() {
        let mut bench = Bench::new();
        bench.run("MSET a 1 b 2");
        bench.run("SELECT 1");
        bench.run("SET c 3 EX 100");
        assert_eq!(bench.run("DBSIZE"), ":1");
        assert_eq!(bench.run("FLUSHDB"), "+OK");
        assert_eq!(bench.run("DBSIZE"), ":0");
        bench.run("SELECT 0");
        assert_eq!(bench.run("DBSIZE"), ":2");
        assert_eq!(bench.run("FLUSHALL BOO"), "-ERR syntax error");
        assert_eq!(bench.run("FLUSHALL ASYNC"), "+OK");
        assert_eq!(bench.run("DBSIZE"), ":0");
        assert_eq!(bench.shared.keyspace.figures().dataset_bytes, 0);
    }

    #[test]
    fn a_shutdown_is_asked_for_and_not_answered() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("SHUTDOWN BOO"), "-ERR syntax error");
        assert!(!bench.session.ending);
        assert_eq!(bench.run("SHUTDOWN NOSAVE"), "");
        assert!(bench.session.ending);
    }

    #[test]
    fn the_time_is_now() {
        let mut bench = Bench::new();
        let reply = bench.run("TIME");
        let seconds: u64 =
            reply.trim_start_matches('[').split(',').next().unwrap().parse().unwrap();
        assert!(seconds.abs_diff(bench.session.now / 1000) <= 5);
    }
}
