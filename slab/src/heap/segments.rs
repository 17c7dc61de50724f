//! The pool's segments by room and by age: what to hand out next, and what to give back next.
//!
//! Owns two orders over the segments, both the pool lock holder's (rule P1).
//!
//! * *By room*: one list per length of the longest run of free slices, so that a run is found
//!   without asking segments that have none. The least sufficient list is asked first, which leaves
//!   long runs whole and lets segments with little in use run empty. Buckets' common slabs have
//!   segments of their own: they live as long as the longest-lived of many threads' first blocks, and
//!   should not keep other segments. A segment without a slab is in a list of its own, asked last.
//! * *By age*: the segments with dirty slices, those first whose slices wait longest. A decay pass
//!   takes from the front; a segment whose slices are younger than that goes to the end, so that a busy
//!   segment never hides the others behind it. A search looks at the end first: what was freed
//!   last has its pages and probably its cache lines.

use std::ptr;

use crate::layout::{ALL_FREE, Links, Segment, longest_run, run_in};
use crate::os::debug_check;
use crate::sync::weakened;

/// Runs this long share a list; nearly every class wants less.
const LONG: usize = 16;
/// The list of segments without a slab: after those of private slabs' segments by room, and those of
/// common slabs' ones.
const WHOLE: usize = 2 * LONG + 1;
/// Segments without a slab that stay mapped.
pub(super) const SPARE_SEGMENTS: u64 = if cfg!(flagstone_loom) { 0 } else { 1 };
/// Segments looked at for a run of dirty slices before any run will do.
const DIRTY_TRIES: usize = 4;

/// The segments with free slices.
pub(super) struct Segments {
    by_room: [List; WHOLE + 1],
    /// A bit for each list that is not empty.
    filled: u64,
    /// Segments with dirty slices, those first that waited longest.
    by_age: List,
    /// Segments in `by_age`.
    aging: usize,
    /// Segments without a slab and without a purge under way.
    whole: u64,
    /// Segments that were taken out while a walker was inside; see `walked`.
    waiting: *const Segment,
}

// SAFETY: the pointers name segments of this pool, whose guarded fields the lock's holder owns.
unsafe impl Send for Segments {}

/// What to do with slices that have waited long enough.
#[derive(Clone, Copy)]
pub(super) enum Expired {
    /// Purge these; they are in no mask meanwhile.
    Slices(&'static Segment, u64),
    /// Unmap the segment, which is in no list any more; so many of its slices are populated.
    Whole(&'static Segment, u64),
}

/// A decay pass: how far it may go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    /// When it began, in coarse milliseconds.
    pub(super) now: u32,
    /// How long a slice must have been free, in milliseconds.
    pub(super) age: u32,
    /// Slices that may still be given back.
    pub(super) slices: u64,
    /// Segments that may still be looked at.
    pub(super) visits: usize,
    /// Whether to look for a segment too many that holds nothing and has no pages.
    pub(super) surplus: bool,
}

struct List {
    first: *const Segment,
    last: *const Segment,
}

impl Segments {
    pub(super) const fn new() -> Self {
        Self {
            by_room: [const { List::new() }; WHOLE + 1],
            filled: 0,
            by_age: List::new(),
            aging: 0,
            whole: 0,
            waiting: ptr::null(),
        }
    }

    /// The segments that wait for walkers to leave, linked by their `waiting`.
    pub(super) fn waiting(&mut self) -> &mut *const Segment {
        &mut self.waiting
    }

    /// Segments with dirty slices.
    pub(super) fn aging(&self) -> usize {
        self.aging
    }

    /// Takes a fresh segment in, all of whose slices are free and clean.
    pub(super) fn insert(&mut self, segment: &'static Segment) {
        self.place(segment, 0);
    }

    /// `n` free slices side by side for a private or a common slab: populated ones among those freed
    /// last, else the first of a segment with little more room than that. Only `anywhere` does it
    /// mix the two kinds in a segment.
    pub(super) fn find(
        &self,
        n: usize,
        common: bool,
        anywhere: bool,
    ) -> Option<(&'static Segment, usize)> {
        let mut at = self.by_age.last;
        for _ in 0..DIRTY_TRIES {
            // SAFETY: listed segments are mapped, and their links are the lock holder's (rule P1).
            let Some(segment) = (unsafe { at.as_ref() }) else { break };
            let whole = segment.bin.get() as usize == WHOLE;
            if (anywhere || whole || segment.common.get() == common)
                && let Some(first) = run_in(segment.dirty.get(), n)
            {
                return Some((segment, first));
            }
            at = segment.by_age.prev.get();
        }
        let fits = (u64::MAX >> (63 - LONG)) & (u64::MAX << n.min(LONG));
        let both = [fits, fits << LONG];
        let wanted = if anywhere { both[0] | both[1] } else { both[usize::from(common)] };
        let mut bins = self.filled & (wanted | 1 << WHOLE);
        while bins != 0 {
            let mut at = self.by_room[bins.trailing_zeros() as usize].first;
            // The first will do, but for runs above `LONG`.
            // SAFETY: as above.
            while let Some(segment) = unsafe { at.as_ref() } {
                let run = run_in(segment.dirty.get(), n);
                if let Some(first) = run.or_else(|| run_in(segment.free.get(), n)) {
                    return Some((segment, first));
                }
                at = segment.by_room.next.get();
            }
            bins &= bins - 1;
        }
        None
    }

    /// Takes free slices out for a slab; returns how many of them were dirty.
    pub(super) fn take(&mut self, segment: &'static Segment, mask: u64, common: bool) -> u64 {
        if segment.bin.get() as usize == WHOLE {
            segment.common.set(common);
        }
        let dirty = segment.dirty.get() & mask;
        self.set_masks(segment, segment.free.get() & !mask, segment.dirty.get() & !mask);
        u64::from(dirty.count_ones())
    }

    /// Takes slices back, those in `dirty` populated.
    pub(super) fn give(&mut self, segment: &'static Segment, mask: u64, dirty: u64) {
        debug_check!(
            segment.free.get() & mask == 0 || weakened("pool_purges_what_it_lists"),
            "slices were freed twice"
        );
        self.set_masks(segment, segment.free.get() | mask, segment.dirty.get() | dirty);
    }

    /// The next slices that the pass may give back, or `None` when it has been everywhere or may
    /// give back no more.
    pub(super) fn take_expired(&mut self, pass: &mut Pass) -> Option<Expired> {
        while pass.visits > 0 && pass.slices > 0 {
            // SAFETY: as in `find`.
            let segment = unsafe { self.by_age.first.as_ref() }?;
            pass.visits -= 1;
            let dirty = segment.dirty.get();
            let expired = segment.expired(pass.now, pass.age);
            let whole = segment.bin.get() as usize == WHOLE;
            let too_many = whole && self.whole > SPARE_SEGMENTS;
            let too_many = too_many || weakened("pool_unmaps_in_use");
            let populated = u64::from(dirty.count_ones());
            // Else its slices go as far as the pass may, and the rest of it with a later one.
            if too_many && expired == dirty && populated <= pass.slices {
                pass.slices -= populated;
                if !weakened("pool_unmaps_listed") {
                    self.remove(segment);
                }
                return Some(Expired::Whole(segment, populated));
            }
            let expired = lowest_bits(expired, pass.slices);
            // To the end, whatever stays dirty: each segment has its turn once in a pass.
            self.by_age.remove(segment, by_age);
            self.by_age.push_last(segment, by_age);
            if expired != 0 {
                pass.slices -= u64::from(expired.count_ones());
                if !weakened("pool_purges_what_it_lists") {
                    self.set_masks(segment, segment.free.get() & !expired, dirty & !expired);
                }
                return Some(Expired::Slices(segment, expired));
            }
        }
        self.take_surplus(pass)
    }

    /// A segment too many whose slices were purged one by one: while another pass had the spare
    /// one's slices, say. So seldom that one in a pass will do.
    fn take_surplus(&mut self, pass: &mut Pass) -> Option<Expired> {
        if !std::mem::take(&mut pass.surplus) || self.whole <= SPARE_SEGMENTS {
            return None;
        }
        // SAFETY: as in `find`.
        let segment = unsafe { self.by_room[WHOLE].last.as_ref() }?;
        if segment.dirty.get() != 0 {
            return None;
        }
        self.remove(segment);
        Some(Expired::Whole(segment, 0))
    }

    /// Takes a segment out for good.
    fn remove(&mut self, segment: &'static Segment) {
        self.set_masks(segment, 0, 0);
    }

    /// Changes both masks, and the lists with them.
    fn set_masks(&mut self, segment: &'static Segment, free: u64, dirty: u64) {
        match (segment.dirty.replace(dirty) != 0, dirty != 0) {
            (false, true) => {
                self.by_age.push_last(segment, by_age);
                self.aging += 1;
            }
            (true, false) => {
                self.by_age.remove(segment, by_age);
                self.aging -= 1;
            }
            _ => {}
        }
        segment.free.set(free);
        self.place(segment, segment.bin.get() as usize);
    }

    /// Moves a segment from the list it is in, 0 for none, to the one for its room.
    fn place(&mut self, segment: &'static Segment, from: usize) {
        let free = segment.free.get();
        let to = match longest_run(free, LONG) {
            _ if free == ALL_FREE => WHOLE,
            0 => 0,
            room => room + if segment.common.get() { LONG } else { 0 },
        };
        if from == to {
            return;
        }
        if from != 0 {
            self.by_room[from].remove(segment, by_room);
            if self.by_room[from].first.is_null() {
                self.filled &= !(1 << from);
            }
            self.whole -= u64::from(from == WHOLE);
        }
        segment.bin.set(to as u8);
        if to != 0 {
            self.by_room[to].push_first(segment, by_room);
            self.filled |= 1 << to;
            self.whole += u64::from(to == WHOLE);
        }
    }
}

fn by_room(segment: &Segment) -> &Links {
    &segment.by_room
}

fn by_age(segment: &Segment) -> &Links {
    &segment.by_age
}

/// The `n` lowest set bits.
fn lowest_bits(mask: u64, n: u64) -> u64 {
    if u64::from(mask.count_ones()) <= n {
        return mask;
    }
    let mut rest = mask;
    for _ in 0..n {
        rest &= rest - 1;
    }
    mask & !rest
}

impl List {
    const fn new() -> Self {
        Self { first: ptr::null(), last: ptr::null() }
    }

    fn push_first(&mut self, segment: &'static Segment, links: fn(&Segment) -> &Links) {
        links(segment).prev.set(ptr::null());
        links(segment).next.set(self.first);
        // SAFETY: listed segments are mapped, and their links are the lock holder's (rule P1).
        match unsafe { self.first.as_ref() } {
            Some(next) => links(next).prev.set(segment),
            None => self.last = segment,
        }
        self.first = segment;
    }

    fn push_last(&mut self, segment: &'static Segment, links: fn(&Segment) -> &Links) {
        links(segment).next.set(ptr::null());
        links(segment).prev.set(self.last);
        // SAFETY: as in `push_first`.
        match unsafe { self.last.as_ref() } {
            Some(prev) => links(prev).next.set(segment),
            None => self.first = segment,
        }
        self.last = segment;
    }

    fn remove(&mut self, segment: &Segment, links: fn(&Segment) -> &Links) {
        let (next, prev) = (links(segment).next.get(), links(segment).prev.get());
        // SAFETY: as in `push_first`.
        unsafe {
            match prev.as_ref() {
                Some(prev) => links(prev).next.set(next),
                None => self.first = next,
            }
            match next.as_ref() {
                Some(next) => links(next).prev.set(prev),
                None => self.last = prev,
            }
        }
    }
}

#[cfg(all(test, not(flagstone_loom)))]
#[path = "segments_tests.rs"]
mod tests;
