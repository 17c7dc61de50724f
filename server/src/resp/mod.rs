//! The wire: requests in, replies out, in RESP2 and RESP3.
//!
//! A request goes through two steps. [`scan`] walks its header lines as bytes arrive, checks every
//! limit and finds the request's end, without allocating. Only a whole request that passed is handed
//! to `redis-protocol`, which decodes it into ranges of the read buffer ([`input`]). So no count or
//! length that a client merely announces ever sizes an allocation.
//!
//! Replies are written by [`reply`] straight into the connection's [`output`], a queue of chunks with
//! a byte limit.

pub mod inline;
pub mod input;
pub mod output;
pub mod reply;
pub mod scan;

/// The protocol version that a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// What every connection starts with.
    #[default]
    Resp2,
    /// After `HELLO 3`: maps, sets, nulls, doubles and pushes have types of their own.
    Resp3,
}

impl Protocol {
    /// The number that `HELLO` takes and answers.
    pub fn version(self) -> i64 {
        match self {
            Self::Resp2 => 2,
            Self::Resp3 => 3,
        }
    }
}
