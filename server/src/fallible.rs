//! Copies and collections that may be refused: of what clients choose the size of, nothing is allocated
//! without asking.

use std::collections::TryReserveError;

/// There is no memory for it; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

impl From<TryReserveError> for NoMemory {
    fn from(_: TryReserveError) -> Self {
        Self
    }
}

impl From<indexmap::TryReserveError> for NoMemory {
    fn from(_: indexmap::TryReserveError) -> Self {
        Self
    }
}

/// A copy of exactly its size.
///
/// # Errors
/// There is no memory for it.
pub fn try_boxed(bytes: &[u8]) -> Result<Box<[u8]>, NoMemory> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len())?;
    copy.extend_from_slice(bytes);
    // As long as its room: it stays where it is.
    Ok(copy.into_boxed_slice())
}

/// The items in a vector of exactly their number.
///
/// # Errors
/// There is no memory for it.
pub fn try_collected<T>(items: impl ExactSizeIterator<Item = T>) -> Result<Vec<T>, NoMemory> {
    let mut collected = Vec::new();
    collected.try_reserve_exact(items.len())?;
    // No more than there is room for, whatever the iterator says of its length.
    let room = collected.capacity();
    collected.extend(items.take(room));
    Ok(collected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_exact_and_what_nobody_has_is_refused() {
        assert_eq!(&*try_boxed(b"").unwrap(), b"");
        assert_eq!(&*try_boxed(b"abc").unwrap(), b"abc");
        let numbers = try_collected(0..3u32).unwrap();
        assert_eq!((numbers.as_slice(), numbers.capacity()), (&[0, 1, 2][..], 3));
        assert!(try_collected(std::iter::repeat_n(0u64, usize::MAX)).is_err());
    }
}
