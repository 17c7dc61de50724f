//! The configuration family: CONFIG GET SET RESETSTAT REWRITE.
//!
//! Parameters have Redis's names, because clients ask for them by those. Some only tell how things
//! are here (`appendonly no`); those that can be set take effect at once.

use super::spec::{Flags, Spec};
use super::{Context, is_name, quote};
use crate::failure::Failure;
use crate::glob;
use crate::number::parse_bytes;
use crate::resp::input::Args;
use crate::settings::{DATABASES, OutputLimit};
use crate::shared::Shared;

/// The family's rows.
pub const COMMANDS: &[Spec] = &[Spec::container(
    "config",
    "Tells about settings and changes them",
    &[
        Spec::new("get", -3, "pattern [pattern ...]", "Settings whose names match", get)
            .flags(Flags::ADMIN),
        Spec::new("help", 2, "", "This text", |cx, _| super::help(cx, "config")),
        Spec::new("resetstat", 2, "", "Lets INFO's counters start again", reset_stat)
            .flags(Flags::ADMIN),
        Spec::new("rewrite", 2, "", "Not possible: flags and file stay as written", rewrite)
            .flags(Flags::ADMIN),
        Spec::new("set", -4, "name value [name value ...]", "Changes settings", set)
            .flags(Flags::ADMIN),
    ],
)];

/// One parameter.
struct Parameter {
    name: &'static str,
    get: fn(&Shared) -> String,
    /// `None`: it cannot be changed while serving.
    set: Option<Setter>,
}

/// Takes a value, or says what it must be.
type Setter = fn(&Shared, &str) -> Result<(), &'static str>;

const PARAMETERS: &[Parameter] = &[
    fixed("appendonly", |_| "no".into()),
    fixed("bind", |shared| shared.settings.resp.ip().to_string()),
    Parameter {
        name: "client-output-buffer-limit",
        get: |shared| {
            let show = |name, limit: OutputLimit| {
                format!("{name} {} {} {}", limit.hard, limit.soft, limit.soft_seconds)
            };
            let normal = show("normal", shared.tunables.output_normal.get());
            let pubsub = show("pubsub", shared.tunables.output_pubsub.get());
            format!("{normal} {pubsub}")
        },
        set: Some(set_output_limits),
    },
    fixed("databases", |_| DATABASES.to_string()),
    fixed("io-threads", |shared| shared.workers().to_string()),
    Parameter {
        name: "maxclients",
        get: |shared| shared.tunables.maxclients.get().to_string(),
        set: Some(|shared, value| {
            let n: u32 = value.parse().map_err(|_| "argument must be a number of clients")?;
            if n == 0 {
                return Err("argument must be at least 1");
            }
            shared.tunables.maxclients.set(n.into());
            Ok(())
        }),
    },
    Parameter {
        name: "maxmemory",
        get: |shared| shared.tunables.maxmemory.get().to_string(),
        set: Some(|shared, value| {
            let bytes = parse_bytes(value).ok_or("argument must be a memory value")?;
            shared.tunables.maxmemory.set(bytes);
            Ok(())
        }),
    },
    fixed("maxmemory-policy", |_| "noeviction".into()),
    fixed("port", |shared| shared.port().to_string()),
    fixed("proto-max-bulk-len", |shared| shared.settings.wire.bulk.to_string()),
    fixed("client-query-buffer-limit", |shared| shared.settings.wire.request.to_string()),
    fixed("save", |_| String::new()),
    fixed("tcp-keepalive", |shared| shared.settings.tcp_keepalive.as_secs().to_string()),
    Parameter {
        name: "timeout",
        get: |shared| shared.tunables.timeout.get().to_string(),
        set: Some(|shared, value| {
            let seconds: u32 = value.parse().map_err(|_| "argument must be a number of seconds")?;
            shared.tunables.timeout.set(seconds.into());
            // Who waits has the deadline of the old setting: a look at the mailbox makes a new one.
            shared.keyspace.with_participant(|participant| {
                for client in shared.clients.all(&participant.pin()) {
                    client.wake.notify_one();
                }
            });
            Ok(())
        }),
    },
];

const fn fixed(name: &'static str, get: fn(&Shared) -> String) -> Parameter {
    Parameter { name, get, set: None }
}

fn get(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let patterns: Vec<Vec<u8>> = args.from(2).map(<[u8]>::to_ascii_lowercase).collect();
    let wanted: Vec<_> = PARAMETERS
        .iter()
        .filter(|p| patterns.iter().any(|pattern| glob::matches(pattern, p.name.as_bytes())))
        .map(|p| (p.name, (p.get)(cx.shared)))
        .collect();
    let mut reply = cx.reply();
    reply.map(wanted.len());
    for (name, value) in &wanted {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    Ok(())
}

/// Several parameters at once are checked by name first; a value that is refused leaves those before
/// it changed, and the error names it.
fn set(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    if !args.len().is_multiple_of(2) {
        return Err(Failure::arity("config|set"));
    }
    let pairs = args.from(2).step_by(2).zip(args.from(3).step_by(2));
    let failed = |name: &str, why: &str| {
        Failure::text(format!(
            "ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"
        ))
    };
    let mut changes = Vec::new();
    for (name, value) in pairs {
        let Some(parameter) = PARAMETERS.iter().find(|p| is_name(p.name, name)) else {
            return Err(Failure::text(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{}'",
                quote(name)
            )));
        };
        let Some(set) = parameter.set else {
            return Err(failed(parameter.name, "can't set immutable config"));
        };
        changes.push((parameter.name, set, quote(value)));
    }
    for (name, set, value) in changes {
        set(cx.shared, &value).map_err(|why| failed(name, why))?;
    }
    cx.reply().ok();
    Ok(())
}

/// `<class> <hard> <soft> <seconds>`, one or several times.
fn set_output_limits(shared: &Shared, value: &str) -> Result<(), &'static str> {
    const FORM: &str = "argument must be <normal|pubsub> <hard> <soft> <seconds>, repeated";
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    let (groups, rest) = words.as_chunks::<4>();
    if groups.is_empty() || !rest.is_empty() {
        return Err(FORM);
    }
    for [class, hard, soft, seconds] in groups {
        let limit = OutputLimit {
            hard: parse_bytes(hard).ok_or(FORM)?,
            soft: parse_bytes(soft).ok_or(FORM)?,
            soft_seconds: seconds.parse().map_err(|_| FORM)?,
        };
        match *class {
            "normal" => shared.tunables.output_normal.set(limit),
            "pubsub" => shared.tunables.output_pubsub.set(limit),
            _ => return Err(FORM),
        }
    }
    Ok(())
}

fn reset_stat(cx: &mut Context<'_>, _: Args<'_>) -> Result<(), Failure> {
    cx.shared.stats.reset(cx.shared.totals());
    cx.reply().ok();
    Ok(())
}

fn rewrite(_: &mut Context<'_>, _: Args<'_>) -> Result<(), Failure> {
    Err(Failure::fixed("ERR The server is running without a config file"))
}

#[cfg(test)]
mod tests {
    use crate::commands::tests::Bench;

    #[test]
    fn what_benchmarks_ask_for() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("CONFIG GET save"), "[save, ]");
        assert_eq!(bench.run("CONFIG GET appendonly"), "[appendonly, no]");
        assert_eq!(
            bench.run("CONFIG GET maxmemory*"),
            "[maxmemory, 0, maxmemory-policy, noeviction]"
        );
        assert_eq!(bench.run("CONFIG GET nothing"), "[]");
        assert_eq!(bench.run("CONFIG GET SAVE port"), "[port, 0, save, ]");
        bench.run("HELLO 3");
        assert_eq!(bench.run("CONFIG GET databases"), "{databases: 16}");
    }

    #[test]
    fn what_can_be_set() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("CONFIG SET maxmemory 100mb timeout 5"), "+OK");
        assert_eq!(bench.run("CONFIG GET maxmemory"), "[maxmemory, 104857600]");
        assert_eq!(bench.run("CONFIG GET timeout"), "[timeout, 5]");
        assert_eq!(bench.run("CONFIG SET maxclients 7"), "+OK");
        assert_eq!(bench.run("CONFIG SET client-output-buffer-limit 'pubsub 1mb 512kb 10'"), "+OK");
        assert_eq!(bench.shared.tunables.output_pubsub.get().hard, 1 << 20);
    }

    #[test]
    fn what_cannot() {
        let mut bench = Bench::new();
        for (command, expected) in [
            (
                "CONFIG SET boo 1",
                "-ERR Unknown option or number of arguments for CONFIG SET - 'boo'",
            ),
            (
                "CONFIG SET maxmemory much",
                "-ERR CONFIG SET failed (possibly related to argument 'maxmemory') - argument must \
                 be a memory value",
            ),
            (
                "CONFIG SET port 1",
                "-ERR CONFIG SET failed (possibly related to argument 'port') - can't set \
                 immutable config",
            ),
            (
                "CONFIG SET maxmemory 1 timeout",
                "-ERR wrong number of arguments for 'config|set' command",
            ),
            ("CONFIG REWRITE", "-ERR The server is running without a config file"),
        ] {
            assert_eq!(bench.run(command), expected);
        }
        for bad in ["pubsub 1 2", "boo 1 2 3", "pubsub x 2 3", ""] {
            let reply = bench.run(&format!("CONFIG SET client-output-buffer-limit '{bad}'"));
            assert!(reply.starts_with("-ERR CONFIG SET failed"), "{bad}: {reply}");
        }
        assert_eq!(bench.run("CONFIG GET maxmemory"), "[maxmemory, 0]");
    }

    #[test]
    fn counters_start_again() {
        let mut bench = Bench::new();
        bench.run("SET k v");
        bench.run("GET k");
        assert!(bench.run("INFO stats").contains("keyspace_hits:1"));
        assert_eq!(bench.run("CONFIG RESETSTAT"), "+OK");
        assert!(bench.run("INFO stats").contains("keyspace_hits:0"));
        assert_eq!(bench.shared.stats.totals().calls(), 5, "metrics go on");
    }
}
