//! Entries: a key, its value and its deadline, as a slot of the slab that all databases share.
//!
//! Readers hold a guard and a reference. What may change under them is a word each: the deadline, an
//! integer, the bounds of a list, and the link to a change of several keys ([`Pending`]) that the entry
//! is a part of. Everything else is as it was when the entry was made; another value is another entry.

use std::borrow::Cow;
use std::collections::TryReserveError;
use std::sync::Arc;

use flagstone::typed::{AtomicKey, Key as SlotKey, Slab};

use super::block::Block;
use super::expiry::Millis;
use super::list::List;
use super::shard::Key;
use super::value::{Integer, Long, SHARED_FROM, Value, appends_in_pieces};
use crate::number::parse_i64;
use crate::resp::reply::Reply;
use crate::sync::{Flag, Word};

/// What a key holds and until when.
#[derive(Debug)]
pub struct Entry {
    hash: u64,
    /// The key, and behind it the text of a short string.
    block: Block,
    key_len: u32,
    value: Value,
    /// 0: no deadline.
    expires_at: Word,
    /// The change that the entry is a part of, until that is over.
    pub(super) pending: AtomicKey,
}

// With the slot's own eight bytes, ten words.
const _: () = assert!(size_of::<Entry>() == 72);

/// A change of several keys that is seen as a whole or not at all: every entry of it leads here until it
/// is over.
#[derive(Debug)]
pub struct Pending {
    /// Raised when the change is to be seen.
    pub(super) done: Arc<Flag>,
    /// What the key held before.
    pub(super) before: Option<SlotKey>,
}

impl Entry {
    /// A string under `key`, with a deadline or without one.
    ///
    /// # Errors
    /// There is no memory for a copy.
    pub fn try_string(
        key: &Key<'_>,
        text: &[u8],
        expires_at: Option<Millis>,
    ) -> Result<Self, TryReserveError> {
        if let Some(n) = parse_i64(text) {
            return Self::try_with(key, &[], Value::Int(Integer::new(n)), expires_at);
        }
        if text.len() < SHARED_FROM {
            return Self::try_with(key, &[text], Value::Text, expires_at);
        }
        Self::try_with(key, &[], Value::Long(Box::new(Long::try_new(text)?)), expires_at)
    }

    /// An integer under `key`.
    pub fn integer(key: &Key<'_>, n: i64, expires_at: Option<Millis>) -> Self {
        Self::of(key, Block::of(&[key.bytes]), Value::Int(Integer::new(n)), expires_at)
    }

    /// A list under `key`, of which `name` is a copy.
    pub(super) fn list(key: &Key<'_>, name: Block, list: List, expires_at: Option<Millis>) -> Self {
        Self::of(key, name, Value::List(Box::new(list)), expires_at)
    }

    /// Nothing under `key`, see [`Value::Gone`].
    pub(super) fn gone(key: &Key<'_>) -> Self {
        Self::of(key, Block::of(&[key.bytes]), Value::Gone, None)
    }

    /// With `text` behind the key.
    fn try_with(
        key: &Key<'_>,
        text: &[&[u8]],
        value: Value,
        expires_at: Option<Millis>,
    ) -> Result<Self, TryReserveError> {
        let block = match *text {
            [] => Block::try_of(&[key.bytes]),
            [text] => Block::try_of(&[key.bytes, text]),
            _ => Block::try_of(&[&[key.bytes], text].concat()),
        };
        Ok(Self::of(key, block?, value, expires_at))
    }

    fn of(key: &Key<'_>, block: Block, value: Value, expires_at: Option<Millis>) -> Self {
        Self {
            hash: key.hash,
            block,
            key_len: u32::try_from(key.bytes.len()).expect("a key is shorter than 4 GiB"),
            value,
            expires_at: Word::new(expires_at.unwrap_or(0)),
            pending: AtomicKey::default(),
        }
    }

    /// The string with `more` behind it, under the same key; `None` for another type.
    ///
    /// # Errors
    /// There is no memory for it. This one is as it was.
    pub fn try_appended(
        &self,
        key: &Key<'_>,
        more: &[u8],
    ) -> Result<Option<Self>, TryReserveError> {
        let expires_at = self.expires_at();
        let long = |long: Long| Self::try_with(key, &[], Value::Long(Box::new(long)), expires_at);
        let longer = match &self.value {
            Value::Int(n) => {
                let mut digits = itoa::Buffer::new();
                let digits = digits.format(n.get()).as_bytes();
                // No number has more digits than that.
                let number =
                    if more.len() < 32 { parse_i64(&[digits, more].concat()) } else { None };
                if let Some(n) = number {
                    Self::try_with(key, &[], Value::Int(Integer::new(n)), expires_at)
                } else if appends_in_pieces(more.len()) {
                    long(Long::try_new(digits)?.try_appended(more)?)
                } else {
                    Self::try_with(key, &[digits, more], Value::Text, expires_at)
                }
            }
            Value::Text if appends_in_pieces(self.text_block().len() + more.len()) => {
                long(Long::try_new(self.text_block())?.try_appended(more)?)
            }
            Value::Text => Self::try_with(key, &[self.text_block(), more], Value::Text, expires_at),
            Value::Long(text) => long(text.try_appended(more)?),
            Value::List(_) | Value::Gone => return Ok(None),
        };
        longer.map(Some)
    }

    /// Whether the key is being deleted, see [`Value::Gone`].
    #[inline]
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.value, Value::Gone)
    }

    /// The key.
    pub fn name(&self) -> &[u8] {
        &self.block.bytes()[..self.key_len as usize]
    }

    /// The key's hash.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The value.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// When the key expires, if it does.
    pub fn expires_at(&self) -> Option<Millis> {
        Some(self.expires_at.get()).filter(|at| *at != 0)
    }

    /// Whether its time is over.
    pub fn is_expired(&self, now: Millis) -> bool {
        self.expires_at().is_some_and(|at| at <= now)
    }

    /// Gives the key a deadline, or none. For the writer who has the lock of its shard.
    pub(super) fn set_expires_at(&self, at: Option<Millis>) {
        self.expires_at.set(at.unwrap_or(0));
    }

    /// Whether it is the entry of `key`.
    pub(super) fn is_of(&self, key: &Key<'_>) -> bool {
        self.hash == key.hash && self.name() == key.bytes
    }

    /// The bytes of a string; `None` for another type.
    pub fn as_text(&self) -> Option<Cow<'_, [u8]>> {
        match &self.value {
            Value::Int(n) => Some(Cow::Owned(itoa::Buffer::new().format(n.get()).into())),
            Value::Text => Some(Cow::Borrowed(self.text_block())),
            Value::Long(long) => match long.pieces() {
                [whole] => Some(Cow::Borrowed(whole)),
                pieces => Some(Cow::Owned(pieces.concat())),
            },
            Value::List(_) | Value::Gone => None,
        }
    }

    /// The number that a string spells; `None` if it spells none or is of another type.
    pub fn as_int(&self) -> Option<i64> {
        match &self.value {
            Value::Int(n) => Some(n.get()),
            // Appends may have spelt one.
            Value::Text => parse_i64(self.text_block()),
            Value::Long(_) | Value::List(_) | Value::Gone => None,
        }
    }

    /// Bytes of a string; `None` for another type.
    pub fn text_len(&self) -> Option<usize> {
        match &self.value {
            Value::Int(n) => Some(itoa::Buffer::new().format(n.get()).len()),
            Value::Text => Some(self.text_block().len()),
            Value::Long(long) => Some(long.len()),
            Value::List(_) | Value::Gone => None,
        }
    }

    /// Writes a string as the reply; false, and nothing written, for another type. Long strings are
    /// shared with the reply: the entry may be retired and freed while they are sent.
    pub fn write_text(&self, reply: &mut Reply<'_>) -> bool {
        match &self.value {
            Value::Int(n) => reply.bulk_integer(n.get()),
            Value::Text => reply.bulk(self.text_block()),
            Value::Long(long) => reply.bulk_pieces(long.pieces()),
            Value::List(_) | Value::Gone => return false,
        }
        true
    }

    /// Bytes of the heap that key and value take, the slot included.
    pub fn heap_bytes(&self) -> usize {
        Slab::<Self>::SLOT_BYTES + self.block_bytes() + self.value.heap_bytes()
    }

    /// Bytes of the block of key and text.
    pub(super) fn block_bytes(&self) -> usize {
        self.block.heap_bytes()
    }

    fn text_block(&self) -> &[u8] {
        &self.block.bytes()[self.key_len as usize..]
    }
}

#[cfg(test)]
mod tests {
    use super::super::list::End;
    use super::*;
    use proptest::prelude::*;

    const KEY: Key<'static> = Key { bytes: b"key", hash: 1 };

    fn string(text: &[u8]) -> Entry {
        Entry::try_string(&KEY, text, None).unwrap()
    }

    #[test]
    fn integers_take_no_block_of_their_own() {
        let entry = string(b"-42");
        assert_eq!(entry.as_int(), Some(-42));
        assert_eq!(entry.value().heap_bytes(), 0);
        assert_eq!(entry.as_text().unwrap().as_ref(), b"-42");
        assert!(matches!(string(b"042").value(), Value::Text));
        assert_eq!(string(b"042").as_int(), None);
    }

    #[test]
    fn an_append_leaves_what_a_reply_shares() {
        let entry = string(&vec![b'x'; SHARED_FROM]);
        let Value::Long(long) = entry.value() else { panic!("not long: {entry:?}") };
        let in_flight = long.pieces()[0].clone();
        let longer = entry.try_appended(&KEY, b"y").unwrap().unwrap();
        drop(entry);
        assert_eq!(in_flight.len(), SHARED_FROM);
        assert_eq!(longer.text_len(), Some(SHARED_FROM + 1));
        assert!(longer.as_text().unwrap().ends_with(b"xy"));
        let Value::Long(long) = longer.value() else { panic!("not long: {longer:?}") };
        assert_eq!(long.pieces()[0].as_ptr(), in_flight.as_ptr(), "shared, not copied");
    }

    #[test]
    fn a_list_refuses_string_operations_and_stays() {
        let list = List::try_of(End::Left, &mut [b"a".as_slice().into()]).unwrap().unwrap();
        let entry = Entry::list(&KEY, Block::of(&[KEY.bytes]), list, None);
        assert!(entry.try_appended(&KEY, b"x").unwrap().is_none());
        assert_eq!(entry.as_text(), None);
        assert_eq!(entry.as_int(), None);
        assert_eq!(entry.value().as_list().unwrap().view().len(), 1);
    }

    proptest! {
        #[test]
        fn appends_concatenate(pieces in prop::collection::vec(
            (0usize..5, 0usize..2000).prop_map(|(kind, n)| match kind {
                0 => "7".into(),
                1 => "-".repeat(n % 3),
                2 => "x".repeat(40_000),
                _ => "y".repeat(n),
            }), 1..6)) {
            let mut entry = string(pieces[0].as_bytes());
            for piece in &pieces[1..] {
                entry = entry.try_appended(&KEY, piece.as_bytes()).unwrap().unwrap();
            }
            let whole = pieces.concat();
            prop_assert_eq!(entry.as_text().unwrap().into_owned(), whole.as_bytes());
            prop_assert_eq!(entry.text_len(), Some(whole.len()));
            prop_assert_eq!(entry.name(), b"key");
            prop_assert!(entry.heap_bytes() >= whole.len() || whole.len() <= 22);
        }
    }
}
