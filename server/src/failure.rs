//! Error replies. Clients match on these texts, so they are Redis's, code and all.

use std::borrow::Cow;
use std::collections::TryReserveError;
use std::fmt;

use crate::fallible::NoMemory;

/// Why a command was not done: the text of the error reply, its code first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(Cow<'static, str>);

impl Failure {
    /// The key holds another type.
    pub const WRONG_TYPE: Self =
        Self::fixed("WRONGTYPE Operation against a key holding the wrong kind of value");
    /// Arguments are out of order or exclude each other.
    pub const SYNTAX: Self = Self::fixed("ERR syntax error");
    /// An argument or a value is no 64-bit integer.
    pub const NOT_AN_INTEGER: Self = Self::fixed("ERR value is not an integer or out of range");
    /// A count is negative.
    pub const NOT_POSITIVE: Self = Self::fixed("ERR value is out of range, must be positive");
    /// A counter would pass the 64-bit range.
    pub const COUNTER_OVERFLOW: Self = Self::fixed("ERR increment or decrement would overflow");
    /// A string would be longer than a client may send.
    pub const STRING_TOO_LONG: Self =
        Self::fixed("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    /// The memory limit is reached.
    pub const OUT_OF_MEMORY: Self =
        Self::fixed("OOM command not allowed when used memory > 'maxmemory'.");
    /// The system gave no memory.
    pub const NO_MEMORY: Self = Self::fixed("OOM the server has no memory for this");
    /// The database number is not between 0 and 15.
    pub const DB_INDEX: Self = Self::fixed("ERR DB index is out of range");

    /// A failure with a text that is known now.
    pub const fn fixed(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// A failure with a text made now.
    pub fn text(text: impl Into<String>) -> Self {
        Self(Cow::Owned(text.into()))
    }

    /// [`NO_MEMORY`](Self::NO_MEMORY), for the error of a collection.
    pub fn no_memory(_: TryReserveError) -> Self {
        Self::NO_MEMORY
    }

    /// The argument count does not fit; `command` as in `get` or `client|kill`.
    pub fn arity(command: &str) -> Self {
        Self::text(format!("ERR wrong number of arguments for '{command}' command"))
    }

    /// An expiry time that makes no sense, for the command of this name.
    pub fn expire_time(command: &str) -> Self {
        Self::text(format!("ERR invalid expire time in '{command}' command"))
    }

    /// The text of the reply.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<NoMemory> for Failure {
    fn from(_: NoMemory) -> Self {
        Self::NO_MEMORY
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}
