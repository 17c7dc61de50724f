//! The fallback tier: requests above the largest class or with stricter alignment, each a range of
//! the large space.
//!
//! Owns the space, what it costs in system calls, and the tier's counters (requirement D8). Protocol:
//! the lock guards the books; system calls run outside it (rule L1), on ranges that only the caller
//! has: a block, or a range that the books call *away*. Free ranges stay populated for the decay time
//! within a budget (see [`large`](crate::large)); every call gives back what is over, a bounded amount.
//!
//! A block's record lies apart from it, so a block starts with its first byte, and freeing an address
//! that is not a block's start is found out whatever memory is there. [`guarded`]: pages behind a block
//! that nobody may touch.

mod guarded;

use std::alloc::Layout;
use std::ptr::{self, NonNull};

use super::Means;
use crate::counter::Counter;
use crate::large::{Budget, Extent, GRANULE, Job, Node, Origin, Place, Space, Taken, UNIT};
use crate::layout::{Block, GUARDED, Kind, SegmentMap};
use crate::lock::{ContentionThreshold, CountedLock, Held};
use crate::os::{self, fatal, poison};
use crate::port::Remapped;
use crate::stats::{FALLBACK_BOUNDS, FallbackSnapshot, LockSite, LockSnapshot};
use crate::sync::{const_off_loom, weakened};

/// The fallback tier of one heap.
pub(crate) struct Fallback {
    tier: CountedLock<Tier>,
    counts: Counts,
}

/// What the lock guards.
pub(crate) struct Tier {
    space: Space,
    budget: Budget,
    /// Whether the backing may be asked to move pages.
    moves: Moves,
}

/// What is known about moving pages.
enum Moves {
    /// Worth a try; so often it went wrong and cost an address range.
    Possible { failed: u32 },
    /// The backing cannot, or it went wrong too often.
    No,
}

/// Failed moves after which no more is tried.
const MOVES_FAILED_MAX: u32 = 8;

/// The tier's lock, held.
pub(crate) type FallbackLock<'a> = Held<'a, Tier>;

/// Written under the lock, read by anyone.
struct Counts {
    allocs: Counter,
    frees: Counter,
    resizes: Counter,
    remaps: Counter,
    failures: Counter,
    live_bytes: Counter,
    mapped_bytes: Counter,
    cached_bytes: Counter,
    retained_bytes: Counter,
    record_bytes: Counter,
    purged_bytes: Counter,
    histogram: [Counter; FALLBACK_BOUNDS],
}

/// What a decay pass gave back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LargeDecayed {
    pub(crate) bytes: u64,
    /// What the backing refused to purge.
    pub(crate) refused_bytes: u64,
    /// Whether there may be more to give back.
    pub(crate) more: bool,
}

/// Ranges given back in one go between two holds of the lock.
const JOBS: usize = 16;
/// Bytes of a block from which on huge pages suit it.
const HUGE_MIN: usize = UNIT;
/// Bytes of a chunk of records.
const RECORD_CHUNK: usize = GRANULE;

impl Fallback {
    const_off_loom! {
        pub(crate) fn new() -> Self {
            Self {
                tier: CountedLock::new(Tier {
                    space: Space::new(),
                    budget: Budget::new(),
                    moves: Moves::Possible { failed: 0 },
                }),
                counts: Counts {
                    allocs: Counter::new(),
                    frees: Counter::new(),
                    resizes: Counter::new(),
                    remaps: Counter::new(),
                    failures: Counter::new(),
                    live_bytes: Counter::new(),
                    mapped_bytes: Counter::new(),
                    cached_bytes: Counter::new(),
                    retained_bytes: Counter::new(),
                    record_bytes: Counter::new(),
                    purged_bytes: Counter::new(),
                    histogram: [const { Counter::new() }; FALLBACK_BOUNDS],
                },
            }
        }
    }

    /// Holds the lock without timing the hold: over a fork.
    pub(crate) fn hold(&self, threshold: &ContentionThreshold) -> FallbackLock<'_> {
        self.tier.lock(threshold).untimed()
    }

    /// A block, or null.
    pub(crate) fn alloc(&self, layout: Layout, place: Place, means: &Means<'_>) -> Block {
        match self.obtain(layout, place, layout.size() >= HUGE_MIN, means) {
            Some(taken) => self.hand_out(&taken, layout, means),
            None => self.refuse(means),
        }
    }

    /// A zeroed block, or null.
    pub(crate) fn alloc_zeroed(&self, layout: Layout, means: &Means<'_>) -> Block {
        let Some(taken) = self.obtain(layout, Place::Best, false, means) else {
            return self.refuse(means);
        };
        let block = self.hand_out(&taken, layout, means);
        let lead = taken.node.lead();
        let (from, to) = (taken.dirty.start.max(lead), taken.dirty.end.min(lead + layout.size()));
        if from < to {
            // By hand and not by a purge: filling populated pages costs a fifth of faulting them.
            // SAFETY: the range lies in the block, which nobody else has yet.
            unsafe { block.add(from - lead).write_bytes(0, to - from) };
        }
        block
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// `block` is of this tier and in use, if it is this heap's at all; the caller gives it up.
    pub(crate) unsafe fn free(&self, block: Block, means: &Means<'_>) {
        // SAFETY: by contract.
        if GUARDED && !unsafe { self.unguard(block, means) } {
            // A block for good: rather than memory that cannot be written to.
            return;
        }
        // SAFETY: by contract, and its guard is off.
        unsafe { self.wipe_behind(block, 0, means) };
        let mut tier = self.tier.lock(means.threshold);
        let node = block_in(&tier.space, block);
        poison::close(node.pointer(), node.bytes());
        self.counts.frees.add_after(1);
        self.counts.live_bytes.sub(node.requested() as u64);
        tier.space.free(node, os::coarse_millis());
        self.finish(tier, means);
    }

    /// [`resize`](Self::resize) for a block whose guard is off.
    ///
    /// # Safety
    /// As there.
    unsafe fn resize_bare(
        &self,
        block: Block,
        align: usize,
        bytes: usize,
        means: &Means<'_>,
    ) -> Option<Block> {
        let mut tier = self.tier.lock(means.threshold);
        let node = block_in(&tier.space, block);
        let wanted = Extent::room_for(node.lead(), bytes)?.checked_next_multiple_of(GRANULE)?;
        let held = node.bytes();
        let in_place = match wanted.cmp(&held) {
            std::cmp::Ordering::Less => tier.space.shrink(node, wanted, os::coarse_millis()),
            std::cmp::Ordering::Equal => true,
            std::cmp::Ordering::Greater => tier.space.grow(node, wanted),
        };
        if in_place || wanted < node.bytes() {
            poison::close(node.pointer(), held);
            poison::open(node.pointer(), node.bytes());
            self.count_resize(node, node, bytes);
            self.finish(tier, means);
            return Some(block);
        }
        let movable = matches!(tier.moves, Moves::Possible { .. });
        drop(tier);
        if !movable {
            return None;
        }
        // SAFETY: by contract.
        unsafe { self.move_to_larger(node, align, bytes, means) }
    }

    /// # Safety
    /// The caller has the block of `from`, and `bytes` is more than it holds.
    unsafe fn move_to_larger(
        &self,
        from: Node,
        align: usize,
        bytes: usize,
        means: &Means<'_>,
    ) -> Option<Block> {
        let layout = Layout::from_size_align(bytes.checked_add(from.lead())?, align).ok()?;
        let huge = bytes >= HUGE_MIN;
        let to = self.obtain(layout, Place::Clean, huge, means)?.node;
        to.seat_as(from);
        let (old, new) = (NonNull::new(from.pointer())?, NonNull::new(to.pointer())?);
        let (old_bytes, new_bytes) = (from.bytes(), to.bytes());
        // Before the pages move: from then on the old place is anybody's, and entries and records
        // theirs; and so is the new one, should the system give up half way (rule E3).
        let late = weakened("move_departs_late");
        if !late {
            self.tier.lock(means.threshold).space.depart(from, to);
        }
        mark(from.start(), old_bytes, Kind::Foreign);
        mark(to.start(), new_bytes, Kind::Foreign);
        poison::open(new.as_ptr(), new_bytes);
        // SAFETY: the block is the caller's, the new range ours alone.
        let outcome = unsafe { means.backing.remap(old, old_bytes, new, new_bytes) };
        let ours = Kind::Large(means.id);
        let mut tier = self.tier.lock(means.threshold);
        if late {
            tier.space.depart(from, to);
        }
        match outcome {
            Remapped::Moved => {
                // The mapping brought its advice along, from when the block was small, say.
                if huge && let Some(advice) = means.huge_pages.advice(true) {
                    drop(tier);
                    // SAFETY: the block's new place, which is the caller's.
                    unsafe { means.backing.advise_huge(new, new_bytes, advice) };
                    tier = self.tier.lock(means.threshold);
                }
                mark(to.start(), new_bytes, ours);
                self.count_resize(from, to, bytes);
                self.counts.remaps.add(1);
                tier.space.moved(from, to);
            }
            Remapped::Unsupported => {
                mark(from.start(), old_bytes, ours);
                mark(to.start(), new_bytes, ours);
                tier.moves = Moves::No;
                poison::close(new.as_ptr(), new_bytes);
                tier.space.stayed(from, to, os::coarse_millis());
            }
            Remapped::Failed => {
                mark(from.start(), old_bytes, ours);
                tier.space.lost(from, to);
                tier.moves = match tier.moves {
                    Moves::Possible { failed } if failed < MOVES_FAILED_MAX => {
                        Moves::Possible { failed: failed + 1 }
                    }
                    _ => Moves::No,
                };
            }
        }
        self.finish(tier, means);
        matches!(outcome, Remapped::Moved).then(|| to.block())
    }

    /// Counts a resize that had to copy.
    pub(crate) fn count_copied_resize(&self, threshold: &ContentionThreshold) {
        let _held = self.tier.lock(threshold);
        self.counts.resizes.add(1);
    }

    /// Gives free ranges back that have been free for an age, in a number of rounds at most.
    pub(crate) fn decay(&self, age_millis: u32, rounds: usize, means: &Means<'_>) -> LargeDecayed {
        let mut decayed = LargeDecayed::default();
        let began = os::coarse_millis();
        for _ in 0..rounds {
            let tier = self.tier.lock(means.threshold);
            // What others free meanwhile is theirs to give back: so the rounds have an end.
            let age = age_millis.max(os::coarse_millis().wrapping_sub(began));
            let round = self.give_back(tier, age, 0, means);
            decayed.bytes += round.bytes;
            decayed.refused_bytes += round.refused_bytes;
            decayed.more = round.more && round.bytes > 0;
            if !decayed.more {
                break;
            }
        }
        decayed
    }

    /// Gives everything back, blocks in use or not.
    ///
    /// # Safety
    /// Nobody uses the heap or its blocks any more.
    pub(crate) unsafe fn end(&self, means: &Means<'_>) {
        loop {
            // One by one, so that no lock is held over a system call.
            let range = self.tier.lock(means.threshold).space.abandon();
            let Some((start, bytes)) = range else { break };
            // Units that it shares with others too: all of them go.
            let units = start & !(UNIT - 1)..start + bytes;
            units.step_by(UNIT).for_each(|unit| SegmentMap::set(unit, Kind::Foreign));
            if let Some(at) = NonNull::new(ptr::with_exposed_provenance_mut(start)) {
                poison::open(at.as_ptr(), bytes);
                // SAFETY: taken out of the books, and by contract nobody's.
                unsafe { means.backing.unmap(at, bytes) };
            }
        }
        loop {
            let chunk = self.tier.lock(means.threshold).space.abandon_records();
            let Some((at, bytes)) = chunk else { break };
            if let Some(at) = NonNull::new(at) {
                // SAFETY: mapped for records, of which none is used any more.
                unsafe { means.backing.unmap(at, bytes) };
            }
        }
    }

    /// Bytes that were requested of the block at `address`.
    pub(crate) fn requested_size(
        &self,
        address: usize,
        threshold: &ContentionThreshold,
    ) -> Option<usize> {
        let tier = self.tier.lock(threshold);
        tier.space.block_around(address).map(|node| node.requested())
    }

    /// Bytes of records.
    pub(crate) fn record_bytes(&self) -> u64 {
        self.counts.record_bytes.get()
    }

    /// The counters, without the lock.
    pub(crate) fn snapshot(&self) -> FallbackSnapshot {
        let counts = &self.counts;
        // Frees before allocs: a reader never sees more freed than allocated.
        let frees = counts.frees.get_before();
        let mut histogram = [0; FALLBACK_BOUNDS];
        for (to, from) in histogram.iter_mut().zip(&counts.histogram) {
            *to = from.get();
        }
        FallbackSnapshot {
            allocs: counts.allocs.get(),
            frees,
            resizes: counts.resizes.get(),
            remaps: counts.remaps.get(),
            failures: counts.failures.get(),
            live_bytes: counts.live_bytes.get(),
            mapped_bytes: counts.mapped_bytes.get(),
            cached_bytes: counts.cached_bytes.get(),
            retained_bytes: counts.retained_bytes.get(),
            purged_bytes: counts.purged_bytes.get(),
            histogram,
        }
    }

    pub(crate) fn lock_snapshot(&self) -> LockSnapshot {
        self.tier.snapshot(LockSite::Fallback)
    }

    /// A range of the space for a layout. It is in the books as a block, and nobody's yet. `huge`
    /// says that huge pages suit the block.
    fn obtain(&self, layout: Layout, place: Place, huge: bool, means: &Means<'_>) -> Option<Taken> {
        let bytes = Extent::room_for(0, layout.size())?.checked_next_multiple_of(GRANULE)?;
        let align = layout.align();
        for attempt in 0..2 {
            let wants_records = {
                let mut tier = self.tier.lock(means.threshold);
                if let Some(taken) = tier.space.take(bytes, align, place) {
                    return Some(taken);
                }
                tier.space.wants_records_to_add()
            };
            if wants_records && !self.bring_records(means) {
                return None;
            }
            if let Some(taken) = self.map((bytes, align), place, huge, means) {
                return Some(taken);
            }
            // Address space and pages may be short because of what is kept free.
            let spared = attempt == 0 && self.decay(0, DECAY_ROUNDS, means).bytes > 0;
            if !spared && !wants_records {
                return None;
            }
        }
        None
    }

    /// Maps room for a block, and takes the block from it or from wherever there is room by then.
    fn map(
        &self,
        (bytes, align): (usize, usize),
        place: Place,
        huge: bool,
        means: &Means<'_>,
    ) -> Option<Taken> {
        let span = bytes.checked_next_multiple_of(UNIT)?;
        let base = means.backing.map(span, align.max(UNIT))?;
        let start = base.as_ptr().expose_provenance();
        if !SegmentMap::covers(start, span) {
            // SAFETY: just mapped, nobody else knows of it.
            unsafe { means.backing.unmap(base, span) };
            return None;
        }
        mark(start, span, Kind::Large(means.id));
        let advice = means.huge_pages.advice(huge);
        if let Some(huge) = advice {
            // SAFETY: just mapped.
            unsafe { means.backing.advise_huge(base, span, huge) };
        }
        let origin = match (means.backing.joins(), advice) {
            (false, _) => Origin::Alone,
            (true, Some(true)) => Origin::CommonHuge,
            (true, _) => Origin::Common,
        };
        let mut tier = self.tier.lock(means.threshold);
        let now = os::coarse_millis();
        if !tier.space.wants_records_to_add() {
            tier.space.set_splits(means.backing.can_split());
            if !means.backing.can_split() {
                // Rule E3: a free range beside what moves would pass for a mapping of its own.
                tier.moves = Moves::No;
            }
            tier.space.add(start, span, origin, now);
            poison::close(base.as_ptr(), span);
            let taken = tier.space.take(bytes, align, place);
            let taken = taken.or_else(|| tier.space.take_at(start, bytes));
            self.publish(&tier);
            return taken;
        }
        drop(tier);
        // Other threads have used the records up: as if there were no memory, but for another try.
        mark(start, span, Kind::Foreign);
        // SAFETY: as above.
        unsafe { means.backing.unmap(base, span) };
        None
    }

    /// Brings a chunk of records; returns whether there are enough now.
    fn bring_records(&self, means: &Means<'_>) -> bool {
        let Some(chunk) = means.backing.map(RECORD_CHUNK, os::page_size()) else { return false };
        let mut tier = self.tier.lock(means.threshold);
        if tier.space.wants_records_to_add() {
            // SAFETY: a fresh mapping, given to the space for good.
            unsafe { tier.space.add_records(chunk.as_ptr(), RECORD_CHUNK) };
            self.counts.record_bytes.add(RECORD_CHUNK as u64);
            return true;
        }
        drop(tier);
        // SAFETY: just mapped, nobody else knows of it.
        unsafe { means.backing.unmap(chunk, RECORD_CHUNK) };
        true
    }

    fn hand_out(&self, taken: &Taken, layout: Layout, means: &Means<'_>) -> Block {
        let tier = self.tier.lock(means.threshold);
        let node = taken.node;
        node.seat(layout.size(), layout.align());
        self.counts.allocs.add(1);
        self.counts.histogram[histogram_index(layout.size())].add(1);
        self.counts.live_bytes.add(layout.size() as u64);
        let block = node.block();
        poison::open(node.pointer(), node.bytes());
        self.finish(tier, means);
        if GUARDED {
            // SAFETY: nobody else has the block yet.
            unsafe { self.guard(block, means) };
        }
        block
    }

    fn refuse(&self, means: &Means<'_>) -> Block {
        let _held = self.tier.lock(means.threshold);
        self.counts.failures.add(1);
        ptr::null_mut()
    }

    /// Counts a resize from one range to another, or within one. The lock is held.
    fn count_resize(&self, from: Node, to: Node, bytes: usize) {
        let live = &self.counts.live_bytes;
        self.counts.resizes.add(1);
        live.set(live.get() + bytes as u64 - from.requested() as u64);
        to.set_requested(bytes);
    }

    /// Ends an operation: gives back what is free for too long or over the budget.
    fn finish(&self, mut tier: Held<'_, Tier>, means: &Means<'_>) {
        let figures = tier.space.figures();
        tier.budget.note(figures.used, os::coarse_millis(), means.decay_millis);
        let over = figures.dirty.saturating_sub(tier.budget.allows(figures.used));
        self.give_back(tier, means.decay_millis, over, means);
    }

    /// Gives back a bounded number of ranges.
    fn give_back(
        &self,
        mut tier: Held<'_, Tier>,
        age_millis: u32,
        over: u64,
        means: &Means<'_>,
    ) -> LargeDecayed {
        let mut jobs = [Job::NONE; JOBS];
        let count = tier.space.expire(os::coarse_millis(), age_millis, over, &mut jobs);
        self.publish(&tier);
        drop(tier);
        if count == 0 {
            return LargeDecayed::default();
        }
        let mut decayed = LargeDecayed { more: true, ..LargeDecayed::default() };
        let mut purged = [false; JOBS];
        for (job, done) in jobs[..count].iter().zip(&mut purged) {
            let Some(start) = NonNull::new(ptr::with_exposed_provenance_mut(job.start)) else {
                continue;
            };
            // SAFETY: the range is away or has left the books: it is ours alone, and free.
            unsafe {
                if job.purged.is_some() {
                    *done = means.backing.purge(start, job.bytes);
                } else {
                    mark(job.start, job.bytes, Kind::Foreign);
                    poison::open(start.as_ptr(), job.bytes);
                    means.backing.unmap(start, job.bytes);
                    *done = true;
                }
            }
            let sum = if *done { &mut decayed.bytes } else { &mut decayed.refused_bytes };
            *sum += job.bytes as u64;
        }
        let mut tier = self.tier.lock(means.threshold);
        let now = os::coarse_millis();
        tier.space.set_purgeable(decayed.refused_bytes == 0);
        for (job, done) in jobs[..count].iter().zip(purged) {
            if let Some(node) = job.purged {
                tier.space.settle(node, done, now);
            }
        }
        self.counts.purged_bytes.add(decayed.bytes);
        self.publish(&tier);
        decayed
    }

    /// Shows the space's figures to readers. The lock is held.
    fn publish(&self, tier: &Tier) {
        let figures = tier.space.figures();
        self.counts.mapped_bytes.set(figures.used);
        self.counts.cached_bytes.set(figures.dirty);
        self.counts.retained_bytes.set(figures.clean);
    }
}

/// Rounds that give back all there is: no heap has as many times [`JOBS`] free ranges.
pub(crate) const DECAY_ROUNDS: usize = 1 << 20;

/// The record of a block; aborts where there is none.
fn block_in(space: &Space, block: Block) -> Node {
    match space.block_at(block.addr()) {
        Some(node) => node,
        None => fatal(format_args!(
            "free or resize of {block:p}, which is not the start of a large block in use"
        )),
    }
}

/// Writes the segment map's entries of the units that lie in a range as a whole.
fn mark(start: usize, bytes: usize, kind: Kind) {
    let end = (start + bytes) & !(UNIT - 1);
    for unit in (start.next_multiple_of(UNIT)..end).step_by(UNIT) {
        SegmentMap::set(unit, kind);
    }
}

/// The histogram count of a request: bounds 64, 128, ... and overflow.
fn histogram_index(bytes: usize) -> usize {
    let above_64 = bytes.max(1).div_ceil(64).next_power_of_two().trailing_zeros() as usize;
    above_64.min(FALLBACK_BOUNDS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    // requirement: D8
    #[test]
    fn the_histogram_counts_each_size_under_the_first_bound_that_holds_it() {
        for bytes in [1, 63, 64, 65, 128, 129, 8192, 8193, 1 << 20, (1 << 20) + 1, 64 << 25] {
            let i = histogram_index(bytes);
            match FallbackSnapshot::bound(i) {
                Some(bound) => assert!(bytes as u64 <= bound, "{bytes} above bound {bound}"),
                None => assert!(bytes as u64 > FallbackSnapshot::bound(i - 1).unwrap_or(0)),
            }
            if i > 0 {
                assert!(bytes as u64 > FallbackSnapshot::bound(i - 1).unwrap_or(u64::MAX));
            }
        }
    }
}
