//! Guards of large blocks: set when a block is handed out, off while it is resized or freed; and where a block
//! ends, and that nothing is left of what it gives up.
//!
//! Owns no state: a record says whether its block has a guard, which is a matter of whoever has the block
//! (rule G1). Without the feature `hardened` nothing here does anything.

use std::ptr::{self, NonNull};

use super::{Fallback, block_in};
use crate::heap::Means;
use crate::layout::{Block, GUARDED};
use crate::lock::ContentionThreshold;
use crate::os;

impl Fallback {
    /// Changes a block's size without copying bytes: in place, or by moving its pages. `None` when
    /// neither can be done; the block is then as before.
    ///
    /// # Safety
    /// `block` is of this tier, of alignment `align`, and the caller has it.
    pub(crate) unsafe fn resize(
        &self,
        block: Block,
        align: usize,
        bytes: usize,
        means: &Means<'_>,
    ) -> Option<Block> {
        if !GUARDED {
            // SAFETY: by contract.
            return unsafe { self.resize_bare(block, align, bytes, means) };
        }
        // SAFETY: by contract; between the two nobody but the caller has the block.
        unsafe {
            if !self.unguard(block, means) {
                return None;
            }
            self.wipe_behind(block, bytes, means);
            let resized = self.resize_bare(block, align, bytes, means);
            self.guard(resized.unwrap_or(block), means);
            resized
        }
    }

    /// Sets the guard of a block, if that can be.
    ///
    /// # Safety
    /// The caller has the block, of this tier, which has no guard.
    pub(super) unsafe fn guard(&self, block: Block, means: &Means<'_>) {
        let node = block_in(&self.tier.lock(means.threshold).space, block);
        if let Some(guard) = node.guard() {
            // SAFETY: the block's range beyond what the block may use.
            node.set_guarded(unsafe { means.guards.raise(means.backing, guard) });
        }
    }

    /// Takes the guard of a block off, if it has one; returns false if the system refuses.
    ///
    /// # Safety
    /// The caller has the block, if it is one.
    pub(super) unsafe fn unguard(&self, block: Block, means: &Means<'_>) -> bool {
        let node = block_in(&self.tier.lock(means.threshold).space, block);
        let guard = if node.is_guarded() { node.guard() } else { None };
        let Some(guard) = guard else { return true };
        // SAFETY: set by `guard`, and the block was not resized since.
        let lowered = unsafe { means.guards.lower(means.backing, guard) };
        node.set_guarded(!lowered);
        lowered
    }

    /// With the feature `hardened`, wipes what a block gives up: all pages behind its first `bytes`, all of
    /// it if these are none. They go back to the system, for to fill them would bring those in that were
    /// never touched; where the backing refuses, they are filled all the same.
    ///
    /// # Safety
    /// The caller has the block, whose guard is off, and needs no more than those bytes of it.
    pub(super) unsafe fn wipe_behind(&self, block: Block, bytes: usize, means: &Means<'_>) {
        if !cfg!(feature = "hardened") {
            return;
        }
        let node = block_in(&self.tier.lock(means.threshold).space, block);
        let from = match bytes {
            0 => node.start(),
            kept => (block.addr() + kept).next_multiple_of(os::page_size()),
        };
        let len = node.end().saturating_sub(from);
        let Some(start) = NonNull::new(ptr::with_exposed_provenance_mut::<u8>(from)) else {
            return;
        };
        // SAFETY: whole pages of the block's range, which the caller does not need.
        unsafe {
            if len > 0 && !means.backing.purge(start, len) {
                start.write_bytes(0, len);
            }
        }
    }

    /// Bytes of the block in whose guard an address lies. Does not wait long: for a signal handler.
    pub(crate) fn guarded_block(&self, address: usize) -> Option<usize> {
        const TRIES: usize = 1_000;
        for _ in 0..TRIES {
            if let Some(tier) = self.tier.try_lock() {
                let node = tier.space.block_around(address)?;
                let within = node.is_guarded() && address >= node.usable_end();
                return within.then(|| node.requested());
            }
            std::thread::yield_now();
        }
        None
    }

    /// Bytes from an address to the end of the block around it; `None` if there is none.
    pub(crate) fn usable_size(
        &self,
        address: usize,
        threshold: &ContentionThreshold,
    ) -> Option<usize> {
        let tier = self.tier.lock(threshold);
        tier.space.block_around(address).map(|node| node.usable_end().saturating_sub(address))
    }
}
