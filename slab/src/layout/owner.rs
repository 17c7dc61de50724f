//! The owner word of a slab: who may touch it, and whether it is full.
//!
//! Owns one word per slab, kept apart from the slab's metadata so that threads that only ask "whose
//! is this?" share a cache line that changes rarely. The word is the address of the owning shard,
//! or a mark for the bucket of the slab's class, or nothing; in a bucket's word the lowest bit says
//! *full*: no free block, in no list. The fast free path compares the word with its shard: one
//! comparison turns away what is another shard's, a bucket's, or in no slab.
//!
//! Who writes it: the owner itself (full, not full, giving up), the pool when it hands a slab out,
//! a bucket under its lock. Readers without ownership take it as advice: a post to an owner that
//! has changed meanwhile is forwarded by whoever drains it.

use crate::sync::{AtomicUsize, Ordering};

const FULL: usize = 1;
const BUCKET: usize = 2;
/// Beside `BUCKET`.
const COMMON: usize = 4;

/// An owner word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(usize);

/// Who an owner word names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnerKind {
    /// Nobody: the slice is free, or it is not the first of its slab.
    None,
    /// The shard at this address.
    Shard(usize),
    /// The bucket of the slab's class.
    Bucket,
}

impl Owner {
    pub(crate) const NONE: Owner = Owner(0);
    pub(crate) const BUCKET: Owner = Owner(BUCKET);
    /// The bucket too, and blocks of the slab were lent to shards that use few of its class: their
    /// frees come one by one and go straight to the bucket, so that they are counted at once.
    pub(crate) const COMMON: Owner = Owner(BUCKET | COMMON);

    const COMMON_WORD: usize = Self::COMMON.0;

    /// The word of a shard, by its address, a multiple of 8.
    #[inline(always)]
    pub(crate) fn shard(address: usize) -> Self {
        debug_assert!(address != 0 && address & (FULL | BUCKET | COMMON) == 0);
        Self(address)
    }

    /// The same owner, marked full.
    pub(crate) fn full(self) -> Self {
        Self(self.0 | FULL)
    }

    /// The same owner, not marked full.
    pub(crate) fn not_full(self) -> Self {
        Self(self.0 & !FULL)
    }

    /// Whether the slab is a bucket's common one, full or not.
    pub(crate) fn is_common(self) -> bool {
        self.not_full() == Self::COMMON
    }

    /// Whether the slab is marked full.
    pub(crate) fn is_full(self) -> bool {
        self.0 & FULL != 0
    }

    /// Whether it names a shard and is not marked.
    #[inline(always)]
    pub(crate) fn is_shard(self) -> bool {
        self.0 > (BUCKET | COMMON | FULL) && self.0 & FULL == 0
    }

    /// Who that is.
    pub(crate) fn kind(self) -> OwnerKind {
        match self.0 & !FULL {
            0 => OwnerKind::None,
            BUCKET | Self::COMMON_WORD => OwnerKind::Bucket,
            address => OwnerKind::Shard(address),
        }
    }
}

/// The place of an owner word.
#[repr(transparent)]
pub(crate) struct OwnerCell(AtomicUsize);

impl OwnerCell {
    #[cfg(flagstone_loom)]
    pub(crate) fn new() -> Self {
        Self(AtomicUsize::new(Owner::NONE.0))
    }

    /// Relaxed: pairs with nothing. If the word names the reader, only the reader changes it. If it
    /// names somebody else it is advice: posting to a former owner is corrected by forwarding.
    #[inline(always)]
    pub(crate) fn get(&self) -> Owner {
        Owner(self.0.load(Ordering::Relaxed))
    }

    /// The owner only, or the pool while the slab is nobody's. Relaxed: what travels with
    /// ownership (lists, counts) is published by the lock or the lease it travels under.
    #[inline(always)]
    pub(crate) fn set(&self, owner: Owner) {
        self.0.store(owner.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_is_a_mark_on_any_owner_and_comes_off_again() {
        for owner in [Owner::NONE, Owner::BUCKET, Owner::COMMON, Owner::shard(0x7000_1000)] {
            assert!(!owner.is_full());
            assert!(owner.full().is_full());
            assert_ne!(owner.full(), owner);
            assert_eq!(owner.full().not_full(), owner);
            assert_eq!(owner.full().is_common(), owner == Owner::COMMON);
            assert_eq!(owner.full().kind(), owner.kind());
        }
        assert_eq!(Owner::shard(0x7000_1000).kind(), OwnerKind::Shard(0x7000_1000));
        assert_eq!(Owner::BUCKET.kind(), OwnerKind::Bucket);
        assert_eq!(Owner::COMMON.kind(), OwnerKind::Bucket);
        assert_eq!(Owner::NONE.kind(), OwnerKind::None);
    }
}
