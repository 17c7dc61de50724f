//! The COMMAND family: what commands there are, from the same rows that the dispatcher reads.

use super::spec::{Keys, Spec};
use super::{Context, all, find, group, is_name};
use crate::failure::Failure;
use crate::glob;
use crate::resp::input::Args;
use crate::resp::reply::Reply;

/// The family's rows.
pub const COMMANDS: &[Spec] = &[{
    let mut spec = Spec::container(
        "command",
        "Tells about commands",
        &[
            Spec::new("count", 2, "", "Number of commands", count),
            Spec::new("docs", -2, "[name ...]", "Documentation of commands", docs),
            Spec::new("getkeys", -4, "command [arg ...]", "Keys of a request", get_keys),
            Spec::new("help", 2, "", "This text", |cx, _| super::help(cx, "command")),
            Spec::new("info", -2, "[name ...]", "Arguments and flags of commands", info),
            Spec::new("list", -2, "[FILTERBY PATTERN pattern]", "Names of commands", list),
        ],
    );
    // Alone it answers like INFO without names.
    spec.arity = -1;
    spec.handler = every;
    spec
}];

fn every(cx: &mut Context<'_>, _: Args<'_>) -> Result<(), Failure> {
    let mut reply = cx.reply();
    reply.array(all().len());
    all().iter().for_each(|row| describe(&mut reply, row));
    Ok(())
}

fn count(cx: &mut Context<'_>, _: Args<'_>) -> Result<(), Failure> {
    cx.reply().count(all().len());
    Ok(())
}

fn list(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let pattern = match args.len() {
        2 => None,
        5 if is_name("filterby", args.at(2)) && is_name("pattern", args.at(3)) => {
            Some(args.at(4).to_ascii_lowercase())
        }
        _ => return Err(Failure::SYNTAX),
    };
    let names: Vec<&str> = all()
        .iter()
        .map(|row| row.name)
        .filter(|name| pattern.as_ref().is_none_or(|p| glob::matches(p, name.as_bytes())))
        .collect();
    cx.reply().bulks(&names);
    Ok(())
}

fn info(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    if args.len() == 2 {
        return every(cx, args);
    }
    let names = args.from(2);
    let mut reply = cx.reply();
    reply.array(names.len());
    for name in names {
        match find(name) {
            Some((_, row)) => describe(&mut reply, row),
            None => reply.null_array(),
        }
    }
    Ok(())
}

/// Name, arity, flags, first key, last key, step, ACL categories, tips, key specifications,
/// subcommands. There are no ACLs and no tips here.
fn describe(reply: &mut Reply<'_>, row: &Spec) {
    describe_as(reply, row, row.name);
}

fn describe_as(reply: &mut Reply<'_>, row: &Spec, name: &str) {
    reply.array(10);
    reply.bulk(name.as_bytes());
    reply.integer(row.arity.into());
    let flags = row.flags.names();
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.simple(flag));
    let Keys { first, last, step } = row.keys;
    [first, last, step].iter().for_each(|&n| reply.integer(n.into()));
    reply.set(0);
    reply.array(0);
    reply.array(0);
    reply.array(row.subcommands.len());
    for sub in row.subcommands {
        describe_as(reply, sub, &format!("{}|{}", row.name, sub.name));
    }
}

fn docs(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let rows: Vec<&Spec> = if args.len() == 2 {
        all().to_vec()
    } else {
        args.from(2).filter_map(find).map(|(_, row)| row).collect()
    };
    let mut reply = cx.reply();
    reply.map(rows.len());
    rows.iter().for_each(|row| document(&mut reply, row, row.name, group(row.name)));
    Ok(())
}

fn document(reply: &mut Reply<'_>, row: &Spec, name: &str, group: &str) {
    reply.bulk(name.as_bytes());
    let containers = usize::from(!row.subcommands.is_empty());
    reply.map(3 + containers);
    reply.bulk(b"summary");
    reply.bulk(row.summary.as_bytes());
    reply.bulk(b"since");
    reply.bulk(b"0.1.0");
    reply.bulk(b"group");
    reply.bulk(group.as_bytes());
    if containers == 1 {
        reply.bulk(b"subcommands");
        reply.map(row.subcommands.len());
        for sub in row.subcommands {
            document(reply, sub, &format!("{}|{}", row.name, sub.name), group);
        }
    }
}

fn get_keys(cx: &mut Context<'_>, args: Args<'_>) -> Result<(), Failure> {
    let (_, row) = find(args.at(2)).ok_or(Failure::fixed("ERR Invalid command specified"))?;
    let given = args.len() - 2;
    let row = match args.get(3).filter(|_| !row.subcommands.is_empty()) {
        Some(name) => row.subcommands.iter().find(|sub| is_name(sub.name, name)).unwrap_or(row),
        None => row,
    };
    if row.keys == Keys::NONE {
        return Err(Failure::fixed("ERR The command has no key arguments"));
    }
    if !row.admits(given) {
        return Err(Failure::fixed("ERR Invalid number of arguments specified for command"));
    }
    let keys: Vec<&[u8]> = row.keys.positions(given).map(|at| args.at(2 + at)).collect();
    cx.reply().bulks(&keys);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::all;
    use crate::commands::tests::Bench;

    #[test]
    fn the_table_is_told() {
        let mut bench = Bench::new();
        let count = all().len();
        assert_eq!(bench.run("COMMAND COUNT"), format!(":{count}"));
        assert_eq!(bench.run("COMMAND LIST").matches(',').count(), count - 1);
        assert_eq!(bench.run("COMMAND LIST FILTERBY PATTERN SET*"), "[set, setex, setnx]");
        assert_eq!(bench.run("COMMAND LIST FILTERBY BOO x"), "-ERR syntax error");
        assert!(bench.run("COMMAND").len() > 1000);
        assert_eq!(
            bench.run("COMMAND INFO get boo"),
            "[[get, :2, [+readonly, +fast], :1, :1, :1, [], [], [], []], nil]"
        );
        assert!(bench.run("COMMAND INFO config").contains("[config|get, :-3, [+admin], "));
    }

    #[test]
    fn documentation() {
        let mut bench = Bench::new();
        let reply = bench.run("COMMAND DOCS lpush boo");
        assert!(reply.starts_with("[lpush, [summary, Adds elements at the head, "), "{reply}");
        assert!(reply.contains("group, list"), "{reply}");
        bench.run("HELLO 3");
        assert!(bench.run("COMMAND DOCS").contains("client|kill"));
    }

    #[test]
    fn keys_of_requests() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("COMMAND GETKEYS MSET a 1 b 2"), "[a, b]");
        assert_eq!(bench.run("COMMAND GETKEYS BLPOP a b 0"), "[a, b]");
        assert_eq!(bench.run("COMMAND GETKEYS MEMORY USAGE k"), "[k]");
        assert_eq!(bench.run("COMMAND GETKEYS PING x"), "-ERR The command has no key arguments");
        assert_eq!(bench.run("COMMAND GETKEYS BOO x"), "-ERR Invalid command specified");
        assert_eq!(
            bench.run("COMMAND GETKEYS GET a b"),
            "-ERR Invalid number of arguments specified for command"
        );
    }
}
