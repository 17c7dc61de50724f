//! The batch that crossbeam-epoch holds until its grace period is over.
//!
//! Three words, so that crossbeam keeps the deferred function inline: the domain's core, the first
//! node, and the totals packed into one. Running it reclaims every object, then counts them, then
//! leaves the era and the ledger: whoever reads zero pending finds the memory gone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;

use super::node::RetireNode;
use super::open::Taken;
use crate::domain::Core;
use crate::eras::Era;
use crate::reclaiming;

/// Totals of a batch in one word: its era (1 bit), its objects (16 bits), its bytes (47 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Totals(u64);

impl Totals {
    const ERA_BITS: u32 = 1;
    const BLOCKS_BITS: u32 = 16;
    const BYTES_BITS: u32 = u64::BITS - Self::ERA_BITS - Self::BLOCKS_BITS;
    const BLOCKS_SHIFT: u32 = Self::ERA_BITS;
    const BYTES_SHIFT: u32 = Self::ERA_BITS + Self::BLOCKS_BITS;

    /// Most objects that a batch can hold.
    pub(crate) const MAX_BLOCKS: u32 = (1 << Self::BLOCKS_BITS) - 1;
    /// Most bytes that a batch can hold.
    pub(crate) const MAX_BYTES: u64 = (1 << Self::BYTES_BITS) - 1;

    pub(crate) fn new(era: Era, blocks: u32, bytes: u64) -> Self {
        debug_assert!(blocks <= Self::MAX_BLOCKS && bytes <= Self::MAX_BYTES);
        Self(era.parity() | u64::from(blocks) << Self::BLOCKS_SHIFT | bytes << Self::BYTES_SHIFT)
    }

    pub(crate) fn era(self) -> Era {
        Era::of(self.0)
    }

    pub(crate) fn blocks(self) -> u64 {
        (self.0 >> Self::BLOCKS_SHIFT) & u64::from(Self::MAX_BLOCKS)
    }

    pub(crate) fn bytes(self) -> u64 {
        self.0 >> Self::BYTES_SHIFT
    }
}

/// A batch on its way through the collector. It must be [`reclaim`](Self::reclaim)ed: there is no
/// destructor, because nothing could tell it that the grace period is over.
#[derive(Debug)]
#[must_use]
pub(crate) struct SealedBatch {
    core: Arc<Core>,
    head: NonNull<RetireNode>,
    totals: Totals,
}

// crossbeam-epoch boxes deferred functions of more than three words.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<SealedBatch>() <= 3 * size_of::<usize>());

impl SealedBatch {
    pub(crate) fn new(core: &Arc<Core>, taken: Taken, era: Era) -> Self {
        Self {
            core: Arc::clone(core),
            head: taken.head,
            totals: Totals::new(era, taken.blocks, taken.bytes),
        }
    }

    /// Reclaims every object of the batch.
    ///
    /// # Safety
    /// The grace period of the batch is over (rule R1).
    pub(crate) unsafe fn reclaim(self) {
        let mut next = Some(self.head);
        reclaiming::within(self.core.id, || {
            run_all(
                &self.core,
                AssertUnwindSafe(|| {
                    let Some(node) = next else { return false };
                    // SAFETY: rule R4: each node of the list was linked once and is met once; the
                    // link is read before the object goes.
                    let (after, reclaim) = unsafe { RetireNode::read(node) };
                    next = after;
                    // SAFETY: rule R3, and the caller's promise.
                    unsafe { reclaim(node) };
                    true
                }),
            );
        });
        self.core.reclaimed(self.totals.era(), self.totals.blocks(), self.totals.bytes());
    }
}

/// Calls `step` until it says that nothing is left, through any panics, which are counted.
///
/// A panic must not leave: crossbeam-epoch would drop the rest of its bag unrun, other batches in it.
pub(crate) fn run_all(core: &Core, mut step: AssertUnwindSafe<impl FnMut() -> bool>) {
    while let Err(payload) = catch_unwind(AssertUnwindSafe(|| while (step.0)() {})) {
        core.reclaim_panicked();
        // A payload may panic in its own drop; that one is leaked.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(again);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn totals_come_back_as_they_went_in(
            era in 0..2u64, blocks in 0..=Totals::MAX_BLOCKS, bytes in 0..=Totals::MAX_BYTES,
        ) {
            let totals = Totals::new(Era::of(era), blocks, bytes);
            prop_assert_eq!(totals.era(), Era::of(era));
            prop_assert_eq!(totals.blocks(), u64::from(blocks));
            prop_assert_eq!(totals.bytes(), bytes);
        }
    }
}
