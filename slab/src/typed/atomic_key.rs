//! A place for a key that threads read while others write it: indexes over a slab without locks.
//!
//! Owns one word. Protocol: *store* is a release, after the value was inserted; *load* is an acquire, so
//! who finds a key finds its value, unless that was removed meanwhile. Who takes a key out of all places
//! first and removes its value then can tell readers what a miss means: the place has changed, look again.

use std::fmt;

use super::key::Key;
use crate::sync::{AtomicU64, Ordering};

/// An `Option<Key>` that may be loaded and stored by several threads at once.
///
/// Safe code cannot make a key up, so a structure that keeps its links in such places is memory-safe
/// whatever its author gets wrong: a stale key is a miss.
///
/// ```
/// use flagstone_epoch::Domain;
/// use flagstone_slab::typed::{AtomicKey, Slab};
///
/// let domain = Domain::new();
/// let slab = Slab::new(&domain);
/// let current = AtomicKey::default();
///
/// let participant = domain.register();
/// let guard = participant.pin();
/// current.store(Some(slab.insert("one", &guard)));
/// let old = current.swap(Some(slab.insert("two", &guard)));
/// assert!(slab.remove(old.unwrap(), &guard));
/// assert_eq!(current.load().and_then(|key| slab.get(key, &guard)), Some(&"two"));
/// ```
pub struct AtomicKey(AtomicU64);

impl AtomicKey {
    /// A place that holds `key`.
    pub fn new(key: Option<Key>) -> Self {
        Self(AtomicU64::new(bits(key)))
    }

    /// The key now. Acquire: pairs with the release in [`store`](Self::store) and
    /// [`swap`](Self::swap); who sees the key sees what its writer did before.
    #[inline]
    pub fn load(&self) -> Option<Key> {
        key(self.0.load(Ordering::Acquire))
    }

    /// Puts `key` in place of what was there. Release, see [`load`](Self::load).
    #[inline]
    pub fn store(&self, key: Option<Key>) {
        self.0.store(bits(key), Ordering::Release);
    }

    /// Puts `key` in place of what was there, and returns that. Acquire and release.
    #[inline]
    pub fn swap(&self, new: Option<Key>) -> Option<Key> {
        key(self.0.swap(bits(new), Ordering::AcqRel))
    }
}

impl Default for AtomicKey {
    /// A place without a key.
    fn default() -> Self {
        Self::new(None)
    }
}

impl fmt::Debug for AtomicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AtomicKey").field(&self.load()).finish()
    }
}

#[inline]
fn bits(key: Option<Key>) -> u64 {
    key.map_or(0, |key| key.to_bits().get())
}

#[inline]
fn key(bits: u64) -> Option<Key> {
    // SAFETY: what is in an `AtomicKey` came from `to_bits`, or is zero.
    unsafe { Key::from_bits(bits) }
}

#[cfg(all(test, not(flagstone_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let (one, two) = (Key::new(0, 1), Key::new(u32::MAX, u32::MAX));
        let place = AtomicKey::new(Some(one));
        assert_eq!(place.load(), Some(one));
        assert_eq!(place.swap(Some(two)), Some(one));
        assert_eq!(place.load(), Some(two));
        place.store(None);
        assert_eq!(place.load(), None);
        assert_eq!(AtomicKey::default().load(), None);
    }
}
