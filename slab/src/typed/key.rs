//! Keys: what names a value, in one word.
//!
//! A key is the index of a slot and the word that the slot held when the value was published (see
//! [`word`](super::word)). The index says where to look; the word says whose turn at the slot it was.
//! A published word is odd, so a key is never zero and `Option<Key>` is as small as a key.

use std::fmt;
use std::num::NonZeroU64;

/// Names a value in a [`Slab`](super::Slab) or a [`Pool`](super::Pool).
///
/// Keys come from insertions. Safe code cannot make one up, and a key whose value was removed is a miss
/// for ever after: no later value gets the same key. A key of another slab is a miss or names a value
/// there, as with any index; it never leads to memory that is not the slab's.
///
/// ```compile_fail,E0277
/// let key = flagstone_slab::typed::Key::from(1u64);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Key(NonZeroU64);

const _: () = assert!(size_of::<Option<Key>>() == size_of::<u64>());

impl Key {
    const INDEX_SHIFT: u32 = u32::BITS;

    /// A key for the slot at `index` under a published, odd `word`.
    #[inline]
    pub(super) fn new(index: u32, word: u32) -> Self {
        debug_assert!(word % 2 == 1, "only a published word makes a key");
        // The lowest bit is set as it is, in a published word.
        Self(NonZeroU64::MIN | (u64::from(index) << Self::INDEX_SHIFT | u64::from(word)))
    }

    /// Number of the slot, counted over the whole slab.
    #[inline]
    pub(super) fn index(self) -> u32 {
        (self.0.get() >> Self::INDEX_SHIFT) as u32
    }

    /// What the slot's word must be.
    #[inline]
    pub(super) fn word(self) -> u32 {
        self.0.get() as u32
    }

    /// The key as a number, for places that hold nothing else: a poll token, a C caller.
    #[inline]
    pub const fn to_bits(self) -> NonZeroU64 {
        self.0
    }

    /// The key that [`to_bits`](Self::to_bits) gave, or `None` for a number that no key has.
    ///
    /// # Safety
    /// `bits` came from `to_bits`. Nothing unsound happens if they did not: a forged key is a miss, or
    /// names a value that the caller was not given. That last is what this asks the caller to answer
    /// for; safe code is to find values only by keys that it was handed.
    #[inline]
    pub const unsafe fn from_bits(bits: u64) -> Option<Self> {
        match NonZeroU64::new(bits) {
            Some(bits) if bits.get() % 2 == 1 => Some(Self(bits)),
            _ => None,
        }
    }
}

/// Slot and turn, as `12#3`: the fourth value in slot 12.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.index(), self.word() / 2)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

#[cfg(all(test, not(flagstone_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(index: u32, word: u32) {
            let word = word | 1;
            let key = Key::new(index, word);
            prop_assert_eq!((key.index(), key.word()), (index, word));
            // SAFETY: they come from `to_bits`.
            prop_assert_eq!(unsafe { Key::from_bits(key.to_bits().get()) }, Some(key));
        }

        #[test]
        fn an_even_number_is_no_key(bits: u64) {
            // SAFETY: asks whether the number could be a key; the answer is not used as one.
            prop_assert_eq!(unsafe { Key::from_bits(bits & !1) }, None);
        }
    }

    #[test]
    fn keys_say_slot_and_turn() {
        assert_eq!(format!("{0} {0:?}", Key::new(12, 7)), "12#3 Key(12#3)");
    }
}
