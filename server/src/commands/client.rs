//! The client family: CLIENT and its subcommands.

use super::connection::client_name;
use super::spec::{Flags, Spec};
use super::{Context, is_name, quote};
use crate::clients::Client;
use crate::failure::Failure;
use crate::mailbox::Order;
use crate::number::parse_i64;
use crate::resp::input::Args;
use crate::session::ReplyMode;

/// The family's rows.
pub const COMMANDS: &[Spec] = &[Spec::container(
    "client",
    "Tells about connections and changes them",
    &[
        Spec::new("getname", 2, "", "This connection's name", get_name),
        Spec::new("help", 2, "", "This text", |cx, _| super::help(cx, "client")),
        Spec::new("id", 2, "", "This connection's number", id),
        Spec::new("info", 2, "", "This connection's line of the list", info),
        Spec::new(
            "kill",
            -3,
            "addr | [ID id] [ADDR addr] [LADDR addr] [TYPE type] [SKIPME yes | no]",
            "Closes connections",
            kill,
        )
        .flags(Flags::ADMIN),
        Spec::new("list", -2, "[TYPE type] [ID id ...]", "All connections", list)
            .flags(Flags::ADMIN),
        Spec::new("no-evict", 3, "ON | OFF", "Asks to be spared when memory is short", no_evict)
            .flags(Flags::ADMIN),
        Spec::new("no-touch", 3, "ON | OFF", "Reads leave no trace; they never do", no_touch),
        Spec::new("reply", 3, "ON | OFF | SKIP", "Chooses which replies are sent", reply_mode),
        Spec::new("setinfo", 4, "LIB-NAME name | LIB-VER version", "Names the library", set_info),
        Spec::new("setname", 3, "name", "Names this connection", set_name),
        Spec::new("unblock", -3, "id [TIMEOUT | ERROR]", "Ends another's wait", unblock)
            .flags(Flags::ADMIN),
    ],
)];

fn id(cx: &mut Context<'_>, _: Args<'_>) -> Result<(), Failure> {
    let id = cx.session.client.id;
    cx.reply().integer(id as i64);
    Ok(())
}

fn get_name(cx: &mut Context<'_>, _: Args<'_>) -> Result<(), Failure> {
    let name = cx.session.client.view.lock().name.clone();
    if name.is_empty() {
        cx.reply().null()
    } else {
        cx.reply().bulk(name.as_bytes())
    }
    Ok(())
}

fn set_name(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let name = client_name(args.at(2))?;
    cx.session.client.view.lock().name = name;
    cx.reply().ok();
    Ok(())
}

fn set_info(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let value = client_name(args.at(3)).map_err(|_| {
        let name = quote(args.at(2)).to_ascii_lowercase();
        Failure::text(format!("ERR {name} cannot contain spaces, newlines or special characters."))
    })?;
    let mut view = cx.session.client.view.lock();
    if is_name("lib-name", args.at(2)) {
        view.lib_name = value;
    } else if is_name("lib-ver", args.at(2)) {
        view.lib_ver = value;
    } else {
        return Err(Failure::text(format!("ERR Unrecognized option '{}'", quote(args.at(2)))));
    }
    drop(view);
    cx.reply().ok();
    Ok(())
}

fn info(cx: &mut Context<'_>, _: Args<'_>) -> Result<(), Failure> {
    cx.session.write_view();
    let line = cx.session.client.describe() + "\n";
    cx.reply().verbatim(&line);
    Ok(())
}

fn list(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    cx.session.write_view();
    let clients = match (args.get(2), args.len()) {
        (None, _) => cx.shared.clients.all(cx.guard),
        (Some(option), 4) if is_name("type", option) => {
            let kind = ClientType::parse(args.at(3))?;
            let mut all = cx.shared.clients.all(cx.guard);
            all.retain(|client| kind.fits(client));
            all
        }
        (Some(option), len) if is_name("id", option) && len > 3 => {
            let ids: Result<Vec<u64>, Failure> = args.from(3).map(client_id).collect();
            let all = cx.shared.clients.all(cx.guard);
            let at = |id| all.binary_search_by_key(&id, |client| client.id).ok();
            ids?.into_iter().filter_map(|id| Some(all[at(id)?])).collect()
        }
        _ => return Err(Failure::SYNTAX),
    };
    let lines: String = clients.iter().map(|client| client.describe() + "\n").collect();
    cx.reply().verbatim(&lines);
    Ok(())
}

fn no_evict(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let on = on_off(args.at(2))?;
    cx.session.client.view.lock().no_evict = on;
    cx.reply().ok();
    Ok(())
}

fn no_touch(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    on_off(args.at(2))?;
    cx.reply().ok();
    Ok(())
}

fn reply_mode(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let mode = args.at(2);
    let session = &mut *cx.session;
    if is_name("on", mode) {
        session.reply_mode = ReplyMode::On;
        session.out.set_muted(false);
        session.reply().ok();
    } else if is_name("off", mode) {
        session.reply_mode = ReplyMode::Off;
        session.out.set_muted(true);
    } else if is_name("skip", mode) {
        if session.reply_mode == ReplyMode::On {
            session.reply_mode = ReplyMode::SkipNext;
        }
    } else {
        return Err(Failure::SYNTAX);
    }
    Ok(())
}

fn unblock(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let order = match args.get(3) {
        None => Order::UnblockTimeout,
        Some(how) if is_name("timeout", how) => Order::UnblockTimeout,
        Some(how) if is_name("error", how) => Order::UnblockError,
        Some(_) => {
            return Err(Failure::fixed("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"));
        }
    };
    if args.len() > 4 {
        return Err(Failure::arity("client|unblock"));
    }
    let id = parse_i64(args.at(2)).ok_or(Failure::NOT_AN_INTEGER)?;
    let client = u64::try_from(id).ok().and_then(|id| cx.shared.clients.by_id(id, cx.guard));
    let blocked = client.is_some_and(|client| client.view.lock().blocked);
    if let Some(client) = client.filter(|_| blocked) {
        client.mailbox.order(order);
    }
    cx.reply().integer(blocked.into());
    Ok(())
}

/// Which connections `CLIENT KILL` closes: those that fit every filter given.
#[derive(Default)]
struct Filter<'a> {
    id: Option<u64>,
    peer: Option<&'a [u8]>,
    local: Option<&'a [u8]>,
    kind: Option<ClientType>,
    /// `None`: the default of the form of the command.
    skip_me: Option<bool>,
}

impl Filter<'_> {
    fn fits(&self, client: &Client) -> bool {
        let is = |addr: std::net::SocketAddr, text: &[u8]| addr.to_string().as_bytes() == text;
        self.id.is_none_or(|id| client.id == id)
            && self.peer.is_none_or(|text| is(client.peer, text))
            && self.local.is_none_or(|text| is(client.local, text))
            && self.kind.is_none_or(|kind| kind.fits(client))
    }
}

fn kill(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let old_form = args.len() == 3;
    let mut filter = Filter::default();
    if old_form {
        filter.peer = Some(args.at(2));
        filter.skip_me = Some(false);
    }
    let mut options = args.from(if old_form { 3 } else { 2 });
    while let Some(option) = options.next() {
        let value = options.next().ok_or(Failure::SYNTAX)?;
        if is_name("id", option) {
            filter.id = Some(
                client_id(value)
                    .map_err(|_| Failure::fixed("ERR client-id should be greater than 0"))?,
            );
        } else if is_name("addr", option) {
            filter.peer = Some(value);
        } else if is_name("laddr", option) {
            filter.local = Some(value);
        } else if is_name("type", option) {
            filter.kind = Some(ClientType::parse(value)?);
        } else if is_name("skipme", option) {
            filter.skip_me = Some(if is_name("yes", value) {
                true
            } else if is_name("no", value) {
                false
            } else {
                return Err(Failure::SYNTAX);
            });
        } else {
            return Err(Failure::SYNTAX);
        }
    }
    cx.session.write_view();
    let own = cx.session.client.id;
    let skip_me = filter.skip_me.unwrap_or(true);
    let mut killed = 0;
    for client in cx.shared.clients.all(cx.guard) {
        if !filter.fits(client) || (skip_me && client.id == own) {
            continue;
        }
        killed += 1;
        if client.id == own {
            // Its reply is still sent.
            cx.session.ending = true;
        } else {
            client.mailbox.order(Order::Kill);
        }
    }
    match (old_form, killed) {
        (true, 0) => return Err(Failure::fixed("ERR No such client")),
        (true, _) => cx.reply().ok(),
        (false, _) => cx.reply().integer(killed),
    }
    Ok(())
}

/// The types that lists and kills select by. This server has no replicas and is nobody's.
#[derive(Clone, Copy)]
enum ClientType {
    Normal,
    Subscriber,
    Replication,
}

impl ClientType {
    fn parse(text: &[u8]) -> Result<Self, Failure> {
        if is_name("normal", text) {
            Ok(Self::Normal)
        } else if is_name("pubsub", text) {
            Ok(Self::Subscriber)
        } else if ["master", "replica", "slave"].iter().any(|name| is_name(name, text)) {
            Ok(Self::Replication)
        } else {
            Err(Failure::text(format!("ERR Unknown client type '{}'", quote(text))))
        }
    }

    fn fits(self, client: &Client) -> bool {
        match self {
            Self::Normal => !client.is_subscriber(),
            Self::Subscriber => client.is_subscriber(),
            Self::Replication => false,
        }
    }
}

fn client_id(text: &[u8]) -> Result<u64, Failure> {
    parse_i64(text)
        .and_then(|id| u64::try_from(id).ok())
        .filter(|&id| id > 0)
        .ok_or(Failure::fixed("ERR Invalid client ID"))
}

fn on_off(text: &[u8]) -> Result<bool, Failure> {
    if is_name("on", text) {
        Ok(true)
    } else if is_name("off", text) {
        Ok(false)
    } else {
        Err(Failure::SYNTAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::tests::Bench;

    #[test]
    fn names_and_numbers() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("CLIENT ID"), ":1");
        assert_eq!(bench.run("CLIENT GETNAME"), "nil");
        assert_eq!(bench.run("CLIENT SETNAME worker-1"), "+OK");
        assert_eq!(bench.run("client getname"), "worker-1");
        assert!(bench.run("CLIENT SETNAME 'a b'").starts_with("-ERR Client names cannot"));
        assert_eq!(bench.run("CLIENT SETINFO LIB-NAME rs"), "+OK");
        assert_eq!(bench.run("CLIENT SETINFO lib-ver 1.2"), "+OK");
        assert!(bench.run("CLIENT SETINFO BOO x").starts_with("-ERR Unrecognized option"));
        let line = bench.run("CLIENT INFO");
        for field in [" name=worker-1 ", " cmd=client ", " lib-name=rs ", " lib-ver=1.2"] {
            assert!(line.contains(field), "{field} in {line}");
        }
    }

    #[test]
    fn lists_by_type_and_number() {
        let mut bench = Bench::new();
        let mut listener = bench.another();
        listener.run("SUBSCRIBE x");
        assert_eq!(bench.run("CLIENT LIST").lines().count(), 2);
        assert!(bench.run("CLIENT LIST TYPE pubsub").starts_with("id=2 "));
        assert!(bench.run("CLIENT LIST TYPE normal").starts_with("id=1 "));
        assert_eq!(bench.run("CLIENT LIST TYPE replica"), "");
        assert!(bench.run("CLIENT LIST ID 2 99").starts_with("id=2 "));
        assert_eq!(bench.run("CLIENT LIST BOO"), "-ERR syntax error");
        assert_eq!(bench.run("CLIENT LIST ID x"), "-ERR Invalid client ID");
        assert_eq!(bench.run("CLIENT LIST TYPE x"), "-ERR Unknown client type 'x'");
    }

    #[test]
    fn replies_can_be_switched_off() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("CLIENT REPLY SKIP"), "");
        assert_eq!(bench.run("PING"), "");
        assert_eq!(bench.run("PING"), "+PONG");
        assert_eq!(bench.run("CLIENT REPLY OFF"), "");
        assert_eq!(bench.run("PING"), "");
        assert_eq!(bench.run("BOO"), "");
        assert_eq!(bench.run("CLIENT REPLY ON"), "+OK");
        assert_eq!(bench.run("PING"), "+PONG");
        bench.run("CLIENT REPLY SKIP");
        assert_eq!(bench.run("CLIENT REPLY OFF"), "");
        assert_eq!(bench.run("PING"), "");
    }

    #[test]
    fn kills_leave_orders() {
        let mut bench = Bench::new();
        let other = bench.another();
        assert_eq!(bench.run("CLIENT KILL ID 2"), ":1");
        assert_eq!(other.session.client.mailbox.take_order(), Some(Order::Kill));
        assert_eq!(bench.run("CLIENT KILL 1.2.3.4:5"), "-ERR No such client");
        assert_eq!(bench.run("CLIENT KILL ID 0"), "-ERR client-id should be greater than 0");
        assert_eq!(bench.run("CLIENT KILL TYPE pubsub SKIPME no"), ":0");
        assert_eq!(bench.run("CLIENT KILL ID 1"), ":0", "oneself is skipped");
        assert!(!bench.session.ending);
        assert_eq!(bench.run("CLIENT KILL ID 1 SKIPME no"), ":1");
        assert!(bench.session.ending);
    }

    #[test]
    fn waits_are_ended_from_outside() {
        let mut bench = Bench::new();
        let mut waiting = bench.another();
        assert_eq!(bench.run("CLIENT UNBLOCK 2"), ":0");
        waiting.run("BLPOP l 0");
        assert_eq!(bench.run("CLIENT UNBLOCK 2 ERROR"), ":1");
        assert_eq!(waiting.session.client.mailbox.take_order(), Some(Order::UnblockError));
        assert!(bench.run("CLIENT UNBLOCK 2 BOO").starts_with("-ERR CLIENT UNBLOCK reason"));
    }
}
