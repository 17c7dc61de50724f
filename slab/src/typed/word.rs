//! The word of a slot: whether a value is there, and which one.
//!
//! Owns the state machine of one slot. The word counts up and never down. Odd: a value is published,
//! and its key carries this very word. Even: no value can be found here; the slot is fresh, its last
//! value waits for the end of its grace period, or the slot is free.
//!
//! ```text
//!   0 --publish--> 1 --remove--> 2 --publish--> 3 --remove--> 4 ...  LAST: worn, out of use for good
//! ```
//!
//! Protocol: *publish* is the holder's alone (rule T2), a store with release, after the value was
//! written. *Remove* is anybody's, a compare-exchange, so one of those who try gets the slot. A reader
//! compares once, with acquire. Because a key names one word and no word comes twice, a key is issued
//! once; a slot whose word cannot count further is not used again.

use crate::sync::{AtomicU32, Ordering, weakened};

/// The word of one slot.
#[derive(Debug)]
#[repr(transparent)]
pub struct SlotWord(AtomicU32);

/// What trying to remove gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Removal {
    /// The caller holds the slot, with the value still in it, which readers may still see.
    Removed,
    /// The same, and the slot has had its last value.
    RemovedLast,
    /// Another value is there, or none, or somebody else was faster.
    Missed,
}

impl SlotWord {
    /// The word of a slot that has worn out.
    pub const LAST: u32 = if cfg!(flagstone_loom) { 4 } else { u32::MAX - 1 };

    /// The word of a slot whose page starts at the even `base`.
    pub fn new(base: u32) -> Self {
        debug_assert!(base.is_multiple_of(2) && base < Self::LAST);
        Self(AtomicU32::new(base))
    }

    /// True if the value published under the odd `word` is there.
    #[inline]
    pub fn is(&self, word: u32) -> bool {
        let order = if weakened("typed_get") { Ordering::Relaxed } else { Ordering::Acquire };
        // Acquire: pairs with the release in `publish`. Equal, and we see the value; not equal, and
        // we do not look.
        self.0.load(order) == word
    }

    /// The word under which a value is published now, if one is.
    #[inline]
    pub fn published(&self) -> Option<u32> {
        // Acquire: as in `is`.
        Some(self.0.load(Ordering::Acquire)).filter(|word| word % 2 == 1)
    }

    /// The word that [`publish`](Self::publish) would give. The slot's holder only.
    #[inline]
    pub fn next(&self) -> u32 {
        // Relaxed: nobody changes the word of a slot that is held.
        let word = self.0.load(Ordering::Relaxed);
        debug_assert!(word.is_multiple_of(2), "the slot has a value");
        word + 1
    }

    /// Lets readers find the value. The slot's holder only, who holds it no longer.
    #[inline]
    pub fn publish(&self) -> u32 {
        let word = self.next();
        debug_assert!(word < Self::LAST || weakened("typed_wraps"));
        let order = if weakened("typed_publish") {
            Ordering::Relaxed
        } else {
            // Release: pairs with the acquire in `is`, `published` and `remove`.
            Ordering::Release
        };
        self.0.store(word, order);
        word
    }

    /// Takes the value published under `word` out of sight.
    #[inline]
    pub fn remove(&self, word: u32) -> Removal {
        // Wraps for a forged key only, whose word no slot has.
        let after = word.wrapping_add(1);
        if !self.exchange(word, after) {
            return Removal::Missed;
        }
        if after != Self::LAST {
            return Removal::Removed;
        }
        if weakened("typed_wraps") {
            // The control: the slot starts over.
            self.0.store(0, Ordering::Relaxed);
            return Removal::Removed;
        }
        Removal::RemovedLast
    }

    #[inline]
    fn exchange(&self, word: u32, after: u32) -> bool {
        if weakened("typed_remove") {
            // The control: a look and a store are not a removal.
            let there = self.0.load(Ordering::Acquire) == word;
            if there {
                self.0.store(after, Ordering::Relaxed);
            }
            return there;
        }
        // Acquire: pairs with the release in `publish`; who gets the slot will drop the value. That
        // readers are done with it by then is the grace period's matter, not this exchange's. Release:
        // pairs with the acquire in `is`; who finds the value gone sees what the remover did before,
        // such as putting another key in its place. Relaxed on failure: the caller leaves.
        self.0.compare_exchange(word, after, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The word as it is. For who has the whole page to itself.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(flagstone_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_slot_goes_from_value_to_value() {
        let word = SlotWord::new(0);
        assert_eq!(word.published(), None);
        let first = word.publish();
        assert!(word.is(first));
        assert_eq!(word.published(), Some(first));
        assert_eq!(word.remove(first + 2), Removal::Missed);
        assert_eq!(word.remove(first), Removal::Removed);
        assert_eq!(word.remove(first), Removal::Missed);
        assert!(!word.is(first));
        let second = word.publish();
        assert_ne!(first, second);
        assert_eq!(word.remove(first), Removal::Missed);
        assert!(word.is(second));
    }

    #[test]
    fn the_last_value_is_told() {
        let word = SlotWord::new(SlotWord::LAST - 4);
        let first = word.publish();
        assert_eq!(word.remove(first), Removal::Removed);
        let last = word.publish();
        assert_eq!(word.remove(last), Removal::RemovedLast);
        assert_eq!(word.get(), SlotWord::LAST);
        assert!(!word.is(first) && !word.is(last));
    }
}
