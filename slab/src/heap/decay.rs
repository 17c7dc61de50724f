//! Decay on the way: slow paths give free memory back, so that no background thread is needed.
//!
//! Owns the clock of these passes and their limits. Protocol: a slow path that finds a pass due takes
//! it with one exchange on the clock; everybody else goes on. A pass is bounded in slices, in ranges
//! of partly used slabs and of the large space, and in shards visited, because it runs inside somebody's allocation or free;
//! if the bound ended it, the next slow path finds another one due at once.
//!
//! And each shard's own clock: a busy shard, which no pass may touch, gives back its empty slabs of idle
//! classes itself, as often.

use super::Heap;
use super::pool::DecayLimit;
use super::scavenge::RangeBudget;
use crate::shard::Shard;
use crate::sync::{AtomicU32, Ordering, const_off_loom};

/// Slices that one pass on the way gives back at most: 4 MiB.
const SLICES: u64 = 64;
/// Segments that it looks at.
const VISITS: usize = 32;
/// Ranges of partly used slabs that it purges.
const RANGES: usize = 32;
/// Passes on the way within one decay time, while none is ended by its bounds; and how often in that time
/// a busy shard gives back empty slabs.
const PASSES: u32 = 4;

/// When the last pass on the way was.
pub(crate) struct DecayClock(AtomicU32);

impl DecayClock {
    const_off_loom! {
        pub(crate) fn new() -> Self {
            Self(AtomicU32::new(0))
        }
    }

    /// Takes the pass that is due, if one is and nobody else took it. Relaxed: the word only says
    /// who goes; what a pass touches has locks and leases of its own.
    fn take(&self, now: u32, period: u32) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        now.wrapping_sub(last) > period
            && self.0.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Makes the next pass due at once.
    fn go_on(&self, now: u32, period: u32) {
        self.0.store(now.wrapping_sub(period).wrapping_sub(1), Ordering::Relaxed);
    }
}

impl Heap {
    /// A slow path passes by at a moment in coarse milliseconds: does what is due, within bounds.
    /// The caller holds no lock.
    pub(crate) fn decay_on_the_way(&self, now: u32) {
        let decay = self.decay_millis();
        let period = decay / PASSES;
        if self.decay_clock.take(now, period) && self.decay_pass(decay) {
            self.decay_clock.go_on(now, period);
        }
    }

    /// The holder of a shard passes by in search of a block of a class: gives empty slabs of the other
    /// classes to the pool, now and then, so that any class and any shard has the use of their pages.
    ///
    /// # Safety
    /// The caller has the shard.
    pub(crate) unsafe fn trim_on_the_way(&self, shard: &Shard, class: usize, now: u32) {
        if shard.trim_is_due(now, self.decay_millis() / PASSES) {
            // SAFETY: by contract.
            unsafe { self.trim(shard, class, now) };
        }
    }

    /// # Safety
    /// The caller has the shard.
    #[cold]
    #[inline(never)]
    unsafe fn trim(&self, shard: &Shard, busy: usize, now: u32) {
        for class in (0..self.table.len()).filter(|&class| class != busy) {
            // SAFETY: by contract; the shard gives the slab up.
            unsafe {
                while let Some(slab) = shard.take_empty(class) {
                    self.put_into_pool(slab, now);
                }
            }
        }
    }

    /// Returns whether there is more to do.
    #[cold]
    #[inline(never)]
    fn decay_pass(&self, decay: u32) -> bool {
        let limit = DecayLimit {
            age_millis: decay,
            retain_bytes: self.retain(),
            slices: SLICES,
            visits: VISITS,
        };
        let more_slices =
            self.pool.has_dirty() && self.pool.decay(limit, self.backing, &self.threshold).more;
        let mut ranges = RangeBudget::of(RANGES);
        let more_shards = self.relieve_one(decay, &mut ranges);
        let more_large = self.fallback.decay(decay, 1, &self.means()).more;
        more_slices || more_shards || more_large
    }

    /// The same limits without a bound, for scavengers.
    pub(crate) fn unbounded_decay(&self) -> DecayLimit {
        DecayLimit { retain_bytes: self.retain(), ..DecayLimit::all(self.decay_millis()) }
    }
}
