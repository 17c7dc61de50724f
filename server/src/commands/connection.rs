//! The connection family: PING ECHO HELLO AUTH SELECT QUIT RESET.

use super::Context;
use super::spec::{Flags, Spec};
use super::{is_name, quote};
use crate::failure::Failure;
use crate::number::parse_i64;
use crate::resp::Protocol;
use crate::resp::input::Args;
use crate::session::ReplyMode;
use crate::settings::DATABASES;

/// The family's rows.
pub const COMMANDS: &[Spec] = &[
    Spec::new("auth", -2, "[username] password", "Gives a password", auth).flags(Flags::FAST),
    Spec::new("echo", 2, "message", "Answers its argument", echo).flags(Flags::FAST),
    Spec::new(
        "hello",
        -1,
        "[protover [AUTH username password] [SETNAME clientname]]",
        "Chooses the protocol version and introduces both sides",
        hello,
    )
    .flags(Flags::FAST),
    Spec::new("ping", -1, "[message]", "Answers PONG, or its argument", ping)
        .flags(Flags::FAST.and(Flags::WHILE_SUBSCRIBED)),
    Spec::new("quit", -1, "", "Closes the connection after its reply", quit)
        .flags(Flags::FAST.and(Flags::WHILE_SUBSCRIBED)),
    Spec::new("reset", 1, "", "Puts the connection back to how it started", reset)
        .flags(Flags::FAST.and(Flags::WHILE_SUBSCRIBED)),
    Spec::new("select", 2, "index", "Chooses a database", select).flags(Flags::FAST),
];

fn ping(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    if args.len() > 2 {
        return Err(Failure::arity("ping"));
    }
    if cx.session.is_restricted() {
        let mut reply = cx.reply();
        reply.array(2);
        reply.bulk(b"pong");
        reply.bulk(args.get(1).unwrap_or_default());
        return Ok(());
    }
    match args.get(1) {
        Some(message) => cx.reply().bulk(message),
        None => cx.reply().simple("PONG"),
    }
    Ok(())
}

fn echo(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    cx.reply().bulk(args.at(1));
    Ok(())
}

fn select(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let index = parse_i64(args.at(1)).ok_or(Failure::NOT_AN_INTEGER)?;
    cx.session.db =
        usize::try_from(index).ok().filter(|&index| index < DATABASES).ok_or(Failure::DB_INDEX)?;
    cx.reply().ok();
    Ok(())
}

fn quit(cx: &mut Context<'_>, _: Args<'_>) -> Result<(), Failure> {
    cx.reply().ok();
    cx.session.ending = true;
    Ok(())
}

fn reset(cx: &mut Context<'_>, _: Args<'_>) -> Result<(), Failure> {
    let session = &mut *cx.session;
    session.unsubscribe_all(cx.shared);
    session.take_all_messages();
    session.db = 0;
    session.protocol = Protocol::Resp2;
    session.client.speaks_resp3.lower();
    session.reply_mode = ReplyMode::On;
    session.out.set_muted(false);
    {
        let mut view = session.client.view.lock();
        view.name.clear();
        view.no_evict = false;
    }
    cx.reply().simple("RESET");
    Ok(())
}

fn auth(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    match args.len() {
        2 => Err(Failure::fixed(
            "ERR AUTH <password> called without any password configured for the default user. \
             Are you sure your configuration is correct?",
        )),
        3 => {
            check_user(args.at(1))?;
            cx.reply().ok();
            Ok(())
        }
        _ => Err(Failure::SYNTAX),
    }
}

/// There is one user, `default`, and no password: any password is right.
fn check_user(user: &[u8]) -> Result<(), Failure> {
    if user == b"default" {
        return Ok(());
    }
    Err(Failure::fixed("WRONGPASS invalid username-password pair or user is disabled."))
}

fn hello(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let mut protocol = cx.session.protocol;
    if let Some(version) = args.get(1) {
        protocol = match parse_i64(version) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Err(Failure::fixed("NOPROTO unsupported protocol version")),
            None => {
                return Err(Failure::fixed(
                    "ERR Protocol version is not an integer or out of range",
                ));
            }
        };
    }
    let mut name = None;
    let mut at = 2;
    while let Some(option) = args.get(at) {
        let more = args.len() - at - 1;
        if is_name("auth", option) && more >= 2 {
            check_user(args.at(at + 1))?;
            at += 3;
        } else if is_name("setname", option) && more >= 1 {
            name = Some(client_name(args.at(at + 1))?);
            at += 2;
        } else {
            return Err(Failure::text(format!(
                "ERR Syntax error in HELLO option '{}'",
                quote(option)
            )));
        }
    }
    if let Some(name) = name {
        cx.session.client.view.lock().name = name;
    }
    // Messages that wait are encoded in the old version; they go before the reply.
    cx.session.take_all_messages();
    cx.session.protocol = protocol;
    match protocol {
        Protocol::Resp2 => cx.session.client.speaks_resp3.lower(),
        Protocol::Resp3 => drop(cx.session.client.speaks_resp3.raise()),
    }
    let id = cx.session.client.id;
    let mut reply = cx.reply();
    reply.map(7);
    reply.bulk(b"server");
    reply.bulk(b"flagstone");
    reply.bulk(b"version");
    reply.bulk(env!("CARGO_PKG_VERSION").as_bytes());
    reply.bulk(b"proto");
    reply.integer(protocol.version());
    reply.bulk(b"id");
    reply.integer(id as i64);
    reply.bulk(b"mode");
    reply.bulk(b"standalone");
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}

/// A name fit for a line of `CLIENT LIST`: printable, without blanks.
pub(super) fn client_name(name: &[u8]) -> Result<String, Failure> {
    if name.iter().all(u8::is_ascii_graphic) {
        Ok(String::from_utf8_lossy(name).into())
    } else {
        Err(Failure::fixed(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use crate::commands::tests::Bench;

    #[test]
    fn ping_and_echo() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("PING"), "+PONG");
        assert_eq!(bench.run("ping hi"), "hi");
        assert_eq!(bench.run("ping a b"), "-ERR wrong number of arguments for 'ping' command");
        assert_eq!(bench.run("ECHO 'a b'"), "a b");
        assert_eq!(bench.run("ECHO"), "-ERR wrong number of arguments for 'echo' command");
    }

    #[test]
    fn databases_are_apart() {
        let mut bench = Bench::new();
        bench.run("SET k 0");
        assert_eq!(bench.run("SELECT 15"), "+OK");
        assert_eq!(bench.run("GET k"), "nil");
        bench.run("SET k 15");
        bench.run("SELECT 0");
        assert_eq!(bench.run("GET k"), "0");
        assert_eq!(bench.run("SELECT 16"), "-ERR DB index is out of range");
        assert_eq!(bench.run("SELECT -1"), "-ERR DB index is out of range");
        assert_eq!(bench.run("SELECT x"), "-ERR value is not an integer or out of range");
    }

    #[test]
    fn hello_switches_and_introduces() {
        let mut bench = Bench::new();
        assert!(bench.run("HELLO").starts_with("[server, flagstone, version, "));
        assert!(bench.run("HELLO 3 SETNAME me").starts_with("{server: flagstone, "));
        assert_eq!(bench.run("CLIENT GETNAME"), "me");
        assert_eq!(bench.run("GET missing"), "null");
        assert_eq!(bench.run("HELLO 4"), "-NOPROTO unsupported protocol version");
        assert_eq!(bench.run("HELLO x"), "-ERR Protocol version is not an integer or out of range");
        assert_eq!(bench.run("HELLO 2 BOO"), "-ERR Syntax error in HELLO option 'BOO'");
        assert_eq!(bench.run("HELLO 2 AUTH a"), "-ERR Syntax error in HELLO option 'AUTH'");
        assert!(bench.run("HELLO 2 AUTH x y").starts_with("-WRONGPASS "));
        assert_eq!(bench.run("GET missing"), "null", "a refused HELLO changes nothing");
        assert!(bench.run("HELLO 2 AUTH default y").starts_with("[server"));
        assert!(bench.run("AUTH y").starts_with("-ERR AUTH <password> called without"));
        assert_eq!(bench.run("AUTH default y"), "+OK");
    }

    #[test]
    fn reset_forgets() {
        let mut bench = Bench::new();
        bench.run("HELLO 3 SETNAME me");
        bench.run("SELECT 3");
        bench.run("SUBSCRIBE x");
        assert_eq!(bench.run("RESET"), "+RESET");
        assert_eq!(bench.run("GET k"), "nil");
        assert_eq!(bench.run("CLIENT GETNAME"), "nil");
        assert_eq!(bench.session.db, 0);
        assert_eq!(bench.shared.pubsub.channel_count(), 0);
    }
}
