//! Values: integers, strings and lists.
//!
//! A value is read by anybody at any time, so it does not change, but for two kinds that have one word to
//! change: an integer is that word, a list has its bounds in one. Every other change is another value in
//! another [`Entry`](super::entry::Entry).
//!
//! A string that is the canonical spelling of an `i64` is kept as the number. Other short strings lie
//! behind their key in the entry's block. Long ones are [`Bytes`], exactly sized copies of what arrived:
//! a reply shares them with the connection instead of copying.

use std::collections::TryReserveError;

use bytes::Bytes;

use super::list::List;
use crate::allocator::block_bytes;
use crate::sync::Word;

/// From this size on a string is shared with replies instead of being copied into them.
pub const SHARED_FROM: usize = 64 * 1024;

/// From this size on an append does not copy the whole string.
const PIECES_FROM: usize = 4 * 1024;

/// What a key holds.
#[derive(Debug)]
pub enum Value {
    /// A string that is an integer.
    Int(Integer),
    /// Any other short string: what is behind the key in the entry's block.
    Text,
    /// A long string. Boxed to keep every value at two words.
    Long(Box<Long>),
    /// A list, never empty while it is in the keyspace.
    List(Box<List>),
    /// Nothing: the key is being deleted together with others.
    Gone,
}

const _: () = assert!(size_of::<Value>() == 16);

impl Value {
    /// The name that `TYPE` answers.
    pub fn type_name(&self) -> &'static str {
        if self.is_string() { "string" } else { "list" }
    }

    /// Whether it is a string, numbers included.
    pub fn is_string(&self) -> bool {
        !matches!(self, Self::List(_))
    }

    /// The list, if it is one.
    pub fn as_list(&self) -> Option<&List> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    /// Bytes of the heap that the value takes besides the entry's block.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Int(_) | Self::Text | Self::Gone => 0,
            Self::Long(long) => boxed_bytes::<Long>(long) + long.heap_bytes(),
            Self::List(list) => boxed_bytes::<List>(list) + list.heap_bytes(),
        }
    }
}

/// An integer that a writer changes in place.
#[derive(Debug)]
pub struct Integer(Word);

impl Integer {
    /// An integer of `n`.
    pub fn new(n: i64) -> Self {
        Self(Word::new(n as u64))
    }

    /// The integer now.
    pub fn get(&self) -> i64 {
        self.0.get() as i64
    }

    /// Puts `n` in its place. For the writer who has the lock of the key's shard.
    pub fn set(&self, n: i64) {
        self.0.set(n as u64);
    }
}

/// A long string in pieces. One that was set is one piece; appends add others, and join those at the
/// end so that a piece is at least twice as long as the next: a byte is copied a logarithmic number of
/// times, however short the appends are.
#[derive(Debug)]
pub struct Long(Vec<Bytes>);

impl Long {
    /// A copy of `text`.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn try_new(text: &[u8]) -> Result<Self, TryReserveError> {
        let mut copy = Vec::new();
        copy.try_reserve_exact(text.len())?;
        copy.extend_from_slice(text);
        Ok(Self(vec![copy.into()]))
    }

    /// The string with `more` behind it.
    ///
    /// # Errors
    /// There is no memory for it. This one is as it was in every case.
    pub fn try_appended(&self, more: &[u8]) -> Result<Self, TryReserveError> {
        let mut kept = self.0.len();
        let mut joined = more.len();
        while kept > 0 && self.0[kept - 1].len() < 2 * joined {
            kept -= 1;
            joined += self.0[kept].len();
        }
        let mut last = Vec::new();
        last.try_reserve_exact(joined)?;
        self.0[kept..].iter().for_each(|piece| last.extend_from_slice(piece));
        last.extend_from_slice(more);
        let mut pieces = Vec::with_capacity(kept + 1);
        pieces.extend_from_slice(&self.0[..kept]);
        pieces.push(last.into());
        Ok(Self(pieces))
    }

    /// The pieces in order.
    pub fn pieces(&self) -> &[Bytes] {
        &self.0
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn heap_bytes(&self) -> usize {
        let pieces = self.0.iter().map(|piece| block_bytes(&**piece, piece.len()));
        block_bytes(&*self.0, self.0.capacity() * size_of::<Bytes>()) + pieces.sum::<usize>()
    }
}

/// Whether an append to a string makes it one of pieces.
pub fn appends_in_pieces(len: usize) -> bool {
    len >= PIECES_FROM
}

fn boxed_bytes<T>(boxed: &T) -> usize {
    block_bytes(boxed, size_of::<T>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_copy_little_and_share_the_rest() {
        let mut long = Long::try_new(&[b'x'; 100_000]).unwrap();
        let first = long.pieces()[0].as_ptr();
        let mut text = vec![b'x'; 100_000];
        let mut copied = 0;
        for n in 0..10_000usize {
            let more = n.to_string();
            text.extend_from_slice(more.as_bytes());
            long = long.try_appended(more.as_bytes()).unwrap();
            copied += long.pieces().last().map_or(0, Bytes::len);
        }
        assert_eq!(long.pieces().concat(), text);
        assert_eq!(long.pieces()[0].as_ptr(), first, "the long piece was never copied");
        assert!(long.pieces().len() < 20, "{} pieces", long.pieces().len());
        assert!(copied < 20 * 40_000, "{copied} bytes copied");
    }
}
