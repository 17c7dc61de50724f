//! Values: integers, strings and lists.
//!
//! A string that is the canonical spelling of an `i64` is kept as the number: no block at all. Other
//! strings are exactly sized copies of what arrived, never slices of a read buffer, so that what a
//! value takes of the heap is what it says. Large strings are [`Bytes`]: a reply shares them with the
//! connection instead of copying under the lock.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use super::list::List;
use crate::allocator::block_bytes;
use crate::number::parse_i64;
use crate::resp::reply::Reply;

/// From this size on a string is shared with replies instead of being copied into them.
const SHARED_FROM: usize = 64 * 1024;

/// What a key holds.
#[derive(Debug)]
pub enum Value {
    /// A string that is an integer.
    Int(i64),
    /// Any other string below 64 KiB.
    Text(Vec<u8>),
    /// A string from 64 KiB on. Boxed to keep every value at three words.
    Shared(Box<Bytes>),
    /// A list, never empty while it is in the keyspace.
    List(Box<List>),
}

// Two keys out of three hold small values: the table's slots should not pay for the third.
const _: () = assert!(size_of::<Value>() == 24);

impl Value {
    /// A string value with a copy of `text`.
    pub fn string(text: &[u8]) -> Self {
        if let Some(n) = parse_i64(text) {
            return Self::Int(n);
        }
        Self::from_vec(text.to_vec())
    }

    /// The name that `TYPE` answers.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Int(_) | Self::Text(_) | Self::Shared(_) => "string",
            Self::List(_) => "list",
        }
    }

    /// Whether it is a string, numbers included.
    pub fn is_string(&self) -> bool {
        !matches!(self, Self::List(_))
    }

    /// The bytes of a string; `None` for another type.
    pub fn as_text(&self) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Int(n) => Some(Cow::Owned(itoa::Buffer::new().format(*n).into())),
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Shared(text) => Some(Cow::Borrowed(text)),
            Self::List(_) => None,
        }
    }

    /// The number that a string spells; `None` if it spells none or is of another type.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            Self::Text(text) => parse_i64(text),
            Self::Shared(_) | Self::List(_) => None,
        }
    }

    /// Bytes of a string; `None` for another type.
    pub fn text_len(&self) -> Option<usize> {
        match self {
            Self::Int(n) => Some(itoa::Buffer::new().format(*n).len()),
            Self::Text(text) => Some(text.len()),
            Self::Shared(text) => Some(text.len()),
            Self::List(_) => None,
        }
    }

    /// Appends to a string and returns its new length; `None` for another type.
    pub fn append(&mut self, more: &[u8]) -> Option<usize> {
        let mut text = match std::mem::replace(self, Self::Int(0)) {
            Self::Int(n) => {
                let mut digits = itoa::Buffer::new();
                let digits = digits.format(n).as_bytes();
                let mut text = Vec::with_capacity(digits.len() + more.len());
                text.extend_from_slice(digits);
                text
            }
            Self::Text(text) => text,
            Self::Shared(text) => {
                // A reply on its way shares the bytes: then they must be copied, else they are ours.
                let mut text = text.try_into_mut().unwrap_or_else(|text| {
                    let mut copy = BytesMut::with_capacity(text.len() + more.len());
                    copy.extend_from_slice(&text);
                    copy
                });
                text.extend_from_slice(more);
                let len = text.len();
                *self = Self::Shared(Box::new(text.freeze()));
                return Some(len);
            }
            list @ Self::List(_) => {
                *self = list;
                return None;
            }
        };
        text.extend_from_slice(more);
        let len = text.len();
        *self = Self::from_vec(text);
        Some(len)
    }

    /// The list, if it is one.
    pub fn as_list(&self) -> Option<&List> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    /// The list, if it is one.
    pub fn as_list_mut(&mut self) -> Option<&mut List> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    /// Whether nothing is in it, so that its key must go.
    pub fn is_spent(&self) -> bool {
        matches!(self, Self::List(list) if list.is_empty())
    }

    /// Elements that dropping the value frees one by one.
    pub fn drop_cost(&self) -> usize {
        match self {
            Self::List(list) => list.len(),
            _ => 1,
        }
    }

    /// Writes a string as the reply; false, and nothing written, for another type.
    pub fn write_text(&self, reply: &mut Reply<'_>) -> bool {
        match self {
            Self::Int(n) => reply.bulk_integer(*n),
            Self::Text(text) => reply.bulk(text),
            Self::Shared(text) => reply.bulk_shared(Bytes::clone(text)),
            Self::List(_) => return false,
        }
        true
    }

    /// Bytes of the heap that the value takes.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Int(_) => 0,
            Self::Text(text) => block_bytes(text.as_ptr(), text.capacity()),
            Self::Shared(text) => {
                let handle: &Bytes = text;
                block_bytes(std::ptr::from_ref(handle).cast(), size_of::<Bytes>())
                    + block_bytes(text.as_ptr(), text.len())
            }
            Self::List(list) => {
                let header: &List = list;
                block_bytes(std::ptr::from_ref(header).cast(), size_of::<List>())
                    + list.heap_bytes()
            }
        }
    }

    fn from_vec(text: Vec<u8>) -> Self {
        if text.len() < SHARED_FROM {
            Self::Text(text)
        } else {
            Self::Shared(Box::new(Bytes::from(text)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::list::End;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_take_no_block() {
        let value = Value::string(b"-42");
        assert!(matches!(value, Value::Int(-42)));
        assert_eq!(value.heap_bytes(), 0);
        assert_eq!(value.as_text().unwrap().as_ref(), b"-42");
        assert!(matches!(Value::string(b"042"), Value::Text(_)));
    }

    #[test]
    fn an_append_copies_only_what_a_reply_shares() {
        let mut value = Value::string(&vec![b'x'; SHARED_FROM]);
        let Value::Shared(shared) = &value else { panic!("not shared: {value:?}") };
        let in_flight = Bytes::clone(shared);
        assert_eq!(value.append(b"y"), Some(SHARED_FROM + 1));
        assert_eq!(in_flight.len(), SHARED_FROM);
        drop(in_flight);
        assert_eq!(value.append(b"z"), Some(SHARED_FROM + 2));
        assert!(value.as_text().unwrap().ends_with(b"xyz"));
    }

    #[test]
    fn a_list_refuses_string_operations_and_stays() {
        let mut list = List::new();
        list.push(End::Left, b"a");
        let mut value = Value::List(Box::new(list));
        assert_eq!(value.append(b"x"), None);
        assert_eq!(value.as_text(), None);
        assert_eq!(value.as_int(), None);
        assert_eq!(value.as_list().unwrap().len(), 1);
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
            let mut value = Value::string(pieces[0].as_bytes());
            for piece in &pieces[1..] {
                value.append(piece.as_bytes()).unwrap();
            }
            let whole = pieces.concat();
            prop_assert_eq!(value.as_text().unwrap().into_owned(), whole.as_bytes());
            prop_assert_eq!(value.text_len(), Some(whole.len()));
            prop_assert!(value.heap_bytes() >= whole.len() || matches!(value, Value::Int(_)));
        }
    }
}
