//! What a command is: a row of its family's table.
//!
//! The dispatcher, `COMMAND`, `... HELP` and the metrics all read the same rows.

use super::Context;
use crate::failure::Failure;
use crate::resp::input::Args;

/// A command's code. It writes exactly one reply (or none and an error), or leaves the session
/// blocked; it writes nothing before it returns an error.
pub type Handler = fn(&mut Context<'_>, Args<'_>) -> Result<(), Failure>;

/// One command, or one subcommand of a container such as `CLIENT`.
#[derive(Debug)]
pub struct Spec {
    /// Its name in lower case.
    pub name: &'static str,
    /// Number of arguments, the name included (and the container's, for a subcommand); negative:
    /// at least as many.
    pub arity: i32,
    /// What it does.
    pub flags: Flags,
    /// Where its keys are.
    pub keys: Keys,
    /// Its arguments, as `HELP` shows them.
    pub arguments: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// Its code; a container's is never called.
    pub handler: Handler,
    /// Its subcommands.
    pub subcommands: &'static [Spec],
}

/// Where the keys among a command's arguments are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// First key; 0: none.
    pub first: i32,
    /// Last key; negative counts from the end, -1 is the last argument.
    pub last: i32,
    /// Arguments from one key to the next.
    pub step: i32,
}

impl Keys {
    /// No key.
    pub const NONE: Self = Self { first: 0, last: 0, step: 0 };
    /// The first argument.
    pub const ONE: Self = Self { first: 1, last: 1, step: 1 };
    /// All arguments.
    pub const ALL: Self = Self { first: 1, last: -1, step: 1 };
    /// Every other argument.
    pub const PAIRS: Self = Self { first: 1, last: -1, step: 2 };
    /// All arguments but the last.
    pub const ALL_BUT_LAST: Self = Self { first: 1, last: -2, step: 1 };
    /// The first argument of a subcommand.
    pub const SECOND: Self = Self { first: 2, last: 2, step: 1 };

    /// Positions of the keys in a request of `len` arguments.
    pub fn positions(self, len: usize) -> impl Iterator<Item = usize> {
        let last = if self.last < 0 { len as i32 + self.last } else { self.last };
        let none = self.first == 0 || last < self.first;
        (self.first..=if none { self.first - 1 } else { last })
            .step_by(self.step.max(1) as usize)
            .filter(move |&at| at > 0 && (at as usize) < len)
            .map(|at| at as usize)
    }
}

/// What a command does, as a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// Nothing of the below.
    pub const NONE: Self = Self(0);
    /// May change the keyspace.
    pub const WRITE: Self = Self(1);
    /// Reads the keyspace.
    pub const READONLY: Self = Self(1 << 1);
    /// May need more memory: refused at the limit.
    pub const DENYOOM: Self = Self(1 << 2);
    /// Is for operators.
    pub const ADMIN: Self = Self(1 << 3);
    /// Is about messages.
    pub const PUBSUB: Self = Self(1 << 4);
    /// May wait.
    pub const BLOCKING: Self = Self(1 << 5);
    /// Takes constant or logarithmic time.
    pub const FAST: Self = Self(1 << 6);
    /// May run while a RESP2 client has subscriptions.
    pub const WHILE_SUBSCRIBED: Self = Self(1 << 7);
    /// Keeps something that is not in the keyspace: refused where the system has no memory.
    pub const KEEPS: Self = Self(1 << 8);

    /// Names as `COMMAND INFO` lists them; those that only matter here have none.
    const NAMES: [(Self, &'static str); 7] = [
        (Self::WRITE, "write"),
        (Self::READONLY, "readonly"),
        (Self::DENYOOM, "denyoom"),
        (Self::ADMIN, "admin"),
        (Self::PUBSUB, "pubsub"),
        (Self::BLOCKING, "blocking"),
        (Self::FAST, "fast"),
    ];

    /// Both sets.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in the set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names of what is in the set.
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMES.iter().filter(|(flag, _)| self.has(*flag)).map(|(_, name)| *name).collect()
    }
}

impl Spec {
    /// A row without keys, flags and subcommands; the methods below add them.
    pub const fn new(
        name: &'static str,
        arity: i32,
        arguments: &'static str,
        summary: &'static str,
        handler: Handler,
    ) -> Self {
        Self {
            name,
            arity,
            flags: Flags::NONE,
            keys: Keys::NONE,
            arguments,
            summary,
            handler,
            subcommands: &[],
        }
    }

    /// A container of subcommands.
    pub const fn container(
        name: &'static str,
        summary: &'static str,
        subcommands: &'static [Spec],
    ) -> Self {
        let mut spec = Self::new(name, -2, "<subcommand>", summary, no_subcommand);
        spec.subcommands = subcommands;
        spec
    }

    /// The row with keys.
    pub const fn keys(mut self, keys: Keys) -> Self {
        self.keys = keys;
        self
    }

    /// The row with flags added.
    pub const fn flags(mut self, flags: Flags) -> Self {
        self.flags = self.flags.and(flags);
        self
    }

    /// Whether a request of `len` arguments fits.
    pub fn admits(&self, len: usize) -> bool {
        let len = i32::try_from(len).unwrap_or(i32::MAX);
        if self.arity < 0 { len >= -self.arity } else { len == self.arity }
    }
}

/// The dispatcher resolves subcommands before it calls a handler.
fn no_subcommand(_: &mut Context<'_>, _: Args<'_>) -> Result<(), Failure> {
    Err(Failure::SYNTAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_positions() {
        let positions = |keys: Keys, len| keys.positions(len).collect::<Vec<_>>();
        assert_eq!(positions(Keys::NONE, 5), [0usize; 0]);
        assert_eq!(positions(Keys::ONE, 5), [1]);
        assert_eq!(positions(Keys::ALL, 4), [1, 2, 3]);
        assert_eq!(positions(Keys::PAIRS, 5), [1, 3]);
        assert_eq!(positions(Keys::ALL_BUT_LAST, 4), [1, 2]);
        assert_eq!(positions(Keys::SECOND, 3), [2]);
        assert_eq!(positions(Keys::SECOND, 2), [0usize; 0]);
    }

    #[test]
    fn flags_have_names() {
        let flags = Flags::WRITE.and(Flags::FAST).and(Flags::WHILE_SUBSCRIBED);
        assert_eq!(flags.names(), ["write", "fast"]);
    }
}
