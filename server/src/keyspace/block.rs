//! Bytes that lie in the entry itself as long as they are few: most keys with a counter or a short string
//! take no block of the heap at all, and a reader that compares them has no further line to wait for.

use std::collections::TryReserveError;
use std::convert::Infallible;

use crate::allocator::block_bytes;

/// Bytes that need no block of their own.
pub const INLINE: usize = 22;

/// A byte string that does not change.
#[derive(Clone, Debug)]
pub enum Block {
    /// Few bytes: their number, and they.
    Inline(u8, [u8; INLINE]),
    /// More.
    Heap(Box<[u8]>),
}

const _: () = assert!(size_of::<Block>() == 24);

impl Block {
    /// The bytes of `parts`, one after the other.
    pub fn of(parts: &[&[u8]]) -> Self {
        Self::with_room(parts, |len| Ok::<_, Infallible>(Vec::with_capacity(len)))
            .unwrap_or_else(|never| match never {})
    }

    /// The same.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn try_of(parts: &[&[u8]]) -> Result<Self, TryReserveError> {
        Self::with_room(parts, |len| {
            let mut room = Vec::new();
            room.try_reserve_exact(len).map(|()| room)
        })
    }

    fn with_room<E>(
        parts: &[&[u8]],
        room: impl FnOnce(usize) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        if len <= INLINE {
            let mut bytes = [0; INLINE];
            let mut at = 0;
            for part in parts {
                bytes[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
            return Ok(Self::Inline(len as u8, bytes));
        }
        let mut bytes = room(len)?;
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        Ok(Self::Heap(bytes.into()))
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Inline(len, bytes) => &bytes[..usize::from(*len)],
            Self::Heap(bytes) => bytes,
        }
    }

    /// Bytes of the heap that it takes.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Inline(..) => 0,
            Self::Heap(bytes) => block_bytes(&**bytes, bytes.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..4)) {
            let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let block = Block::of(&slices);
            let whole = parts.concat();
            prop_assert_eq!(block.bytes(), &whole);
            prop_assert_eq!(block.heap_bytes() == 0, whole.len() <= INLINE);
        }
    }
}
