//! The space: which range is a block, which is free, and what may be joined.
//!
//! Owns the trees and queues over the records. Protocol: the caller holds the fallback's lock. A
//! range is in exactly one state. Free ranges of one state and one system mapping are joined as soon as
//! they touch, so that two such neighbours never stand side by side. Ranges that are given back have no
//! record: nobody takes what lies there for ours.
//!
//! Placement: a block goes into the smallest populated range that holds it; else into the largest
//! populated one together with unpopulated ones beside it; else into the smallest unpopulated one.
//! A block that is being grown goes into the largest populated range instead, because it will want
//! the rest of it.

use std::ops::Range;

use super::GRANULE;
use super::extent::{Mapping, Node, Records, State};
use super::job::{Job, Jobs};
use super::queue::Queue;
use super::tree::{ByAddress, BySize, Tree};
use crate::os::debug_check;

/// Records that any one operation may need.
const RECORDS_MIN: usize = 4;
/// Ranges that one round of expiry looks at.
const EXPIRE_STEPS: usize = 64;
/// Free address space without pages that may stay however little is in use.
const CLEAN_MIN: u64 = 256 << 20;
/// What goes over the budget is purged in multiples of this: whole huge pages, few calls.
const PURGE_BYTES: usize = 2 << 20;
/// Free neighbours that a growing block looks at.
const GROW_STEPS: usize = 4;

/// Where a block should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Where it leaves the least behind.
    Best,
    /// Where it has room to grow.
    Growing,
    /// Where no page is populated: pages are about to be moved in.
    Clean,
}

/// A block that was taken.
pub(crate) struct Taken {
    pub(crate) node: Node,
    /// Which of its bytes may be other than zero, counted from its start.
    pub(crate) dirty: Range<usize>,
}

/// Bytes by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) used: u64,
    /// Free and perhaps populated, the hands of a purge included.
    pub(crate) dirty: u64,
    pub(crate) clean: u64,
}

/// The large space of one heap.
pub(crate) struct Space {
    all: Tree<ByAddress>,
    dirty: Tree<BySize>,
    clean: Tree<BySize>,
    dirty_queue: Queue,
    clean_queue: Queue,
    records: Records,
    figures: Figures,
    last_mapping: u32,
    /// Whether the last purge was granted; locked memory refuses, and is unmapped instead.
    purgeable: bool,
    /// Whether the backing takes parts of mappings back.
    splits: bool,
}

// SAFETY: the records belong to the space, and both to whoever holds the lock around it.
unsafe impl Send for Space {}

/// How a fresh range relates to others of the backing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A mapping for itself.
    Alone,
    /// One that grows together with others of this kind where they touch.
    Common,
    /// The same, among those for which huge pages were asked.
    CommonHuge,
}

impl Space {
    pub(crate) const fn new() -> Self {
        Self {
            all: Tree::new(),
            dirty: Tree::new(),
            clean: Tree::new(),
            dirty_queue: Queue::new(),
            clean_queue: Queue::new(),
            records: Records::new(),
            figures: Figures { used: 0, dirty: 0, clean: 0 },
            last_mapping: 0,
            purgeable: true,
            splits: true,
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        self.figures
    }

    /// Whether a chunk of records must be brought before the next operation that cuts ranges.
    pub(crate) fn wants_records(&self) -> bool {
        self.records.available() < RECORDS_MIN
    }

    /// The same before a fresh range is added and a block taken from it: the range needs a record too.
    pub(crate) fn wants_records_to_add(&self) -> bool {
        self.records.available() <= RECORDS_MIN
    }

    /// Takes a chunk for records.
    ///
    /// # Safety
    /// The range is writable, page-aligned, nobody else's, and stays as long as the space.
    pub(crate) unsafe fn add_records(&mut self, start: *mut u8, bytes: usize) {
        // SAFETY: by contract.
        unsafe { self.records.add_chunk(start, bytes) };
    }

    /// Adds a fresh range.
    pub(crate) fn add(&mut self, start: usize, bytes: usize, origin: Origin, now: u32) {
        let mapping = match origin {
            Origin::Common => Mapping(0),
            Origin::CommonHuge => Mapping(1),
            Origin::Alone => self.new_mapping(),
        };
        debug_check!(
            self.all.at_most(start + bytes - 1).is_none_or(|node| node.end() <= start),
            "a fresh range is in the books of the large space already"
        );
        if let Some(node) = self.records.make(start, bytes, mapping, State::Away) {
            self.all.insert(node);
            self.give(node, State::Clean, now);
        }
    }

    /// Notes whether the backing takes parts of mappings back. Else only whole ones are given back.
    pub(crate) fn set_splits(&mut self, splits: bool) {
        self.splits = splits;
    }

    /// For the end of the heap: takes a range out of the books, be it free or a block in use; a whole
    /// mapping where the backing takes no parts. The books are good for nothing else afterwards.
    pub(crate) fn abandon(&mut self) -> Option<(usize, usize)> {
        let first = self.all.at_least(0)?;
        let (start, mut end, mapping) = (first.start(), first.end(), first.mapping.get());
        self.all.remove(first);
        while !self.splits
            && let Some(next) = self.all.at_most(end)
            && next.start() == end
            && next.mapping.get() == mapping
        {
            end = next.end();
            self.all.remove(next);
        }
        Some((start, end - start))
    }

    /// For the end of the heap: takes a chunk of records out, after all ranges.
    pub(crate) fn abandon_records(&mut self) -> Option<(*mut u8, usize)> {
        self.records.abandon_chunk()
    }

    /// Notes whether purges are granted.
    pub(crate) fn set_purgeable(&mut self, purgeable: bool) {
        self.purgeable = purgeable;
    }

    /// The block around an address.
    pub(crate) fn block_around(&self, address: usize) -> Option<Node> {
        let node = self.all.at_most(address)?;
        (address < node.end() && node.state() == State::Used).then_some(node)
    }

    /// The block that starts at an address.
    pub(crate) fn block_at(&self, address: usize) -> Option<Node> {
        let node = self.all.at_most(address)?;
        (node.block().addr() == address && node.state() == State::Used).then_some(node)
    }

    /// Takes a range for a block of `bytes`, a multiple of the granule, aligned to `align`.
    pub(crate) fn take(&mut self, bytes: usize, align: usize, place: Place) -> Option<Taken> {
        if self.wants_records() {
            return None;
        }
        let room = bytes.checked_add(align.saturating_sub(GRANULE))?;
        let populated = match place {
            Place::Best => self.dirty.at_least(room),
            Place::Growing => self.dirty.last().filter(|node| node.bytes() >= room),
            Place::Clean => None,
        };
        if let Some(free) = populated {
            let node = self.carve(free, free.start().next_multiple_of(align), bytes)?;
            return Some(Taken { node, dirty: 0..bytes });
        }
        if place != Place::Clean
            && let Some(taken) = self.take_across(bytes, align)
        {
            return Some(taken);
        }
        let free = self.clean.at_least(room)?;
        // Systems map downwards: what is left in front joins the next mapping. A block that grows
        // needs it behind.
        let at = match place {
            Place::Best => (free.end() - bytes) & !(align - 1),
            Place::Growing | Place::Clean => free.start().next_multiple_of(align),
        };
        let node = self.carve(free, at, bytes)?;
        Some(Taken { node, dirty: 0..0 })
    }

    /// Takes the range at an address that has just been added.
    pub(crate) fn take_at(&mut self, start: usize, bytes: usize) -> Option<Taken> {
        let free = self.all.at_most(start)?;
        if self.wants_records() || free.state() != State::Clean || free.end() < start + bytes {
            return None;
        }
        let node = self.carve(free, start, bytes)?;
        Some(Taken { node, dirty: 0..0 })
    }

    /// Makes a block larger in its place; returns whether there was room.
    pub(crate) fn grow(&mut self, node: Node, bytes: usize) -> bool {
        let wanted = bytes - node.bytes();
        let (mut room, mut last) = (0, node);
        // Populated and unpopulated ranges take turns; more than a few are not worth the walk.
        for _ in 0..GROW_STEPS {
            match self.free_after(last) {
                Some(next) if room < wanted => {
                    room += next.bytes();
                    last = next;
                }
                _ => break,
            }
        }
        if room < wanted || self.wants_records() {
            return false;
        }
        self.figures.used += wanted as u64;
        self.absorb_after(node, wanted);
        true
    }

    /// Makes a block smaller; what it gives up is free. Returns whether that was done.
    pub(crate) fn shrink(&mut self, node: Node, bytes: usize, now: u32) -> bool {
        if self.wants_records() {
            return false;
        }
        if let Some(rest) = self.split(node, bytes) {
            self.figures.used -= rest.bytes() as u64;
            self.give(rest, State::Dirty, now);
        }
        true
    }

    /// Takes a block back.
    pub(crate) fn free(&mut self, node: Node, now: u32) {
        self.figures.used -= node.bytes() as u64;
        self.give(node, State::Dirty, now);
    }

    /// Takes the records of a block and of the place it is to move to out of the books, until
    /// [`moved`](Self::moved), [`stayed`](Self::stayed) or [`lost`](Self::lost). One of the two places
    /// is anybody's before the mover is back from the system call; a record of it would stand beside that
    /// of whoever maps it next.
    pub(crate) fn depart(&mut self, from: Node, to: Node) {
        self.all.remove(from);
        self.all.remove(to);
    }

    /// The block's pages are at `to` now, which is a mapping of its own; the system has taken the old
    /// place back.
    pub(crate) fn moved(&mut self, from: Node, to: Node) {
        to.mapping.set(self.new_mapping());
        self.all.insert(to);
        self.drop_record(from);
    }

    /// Both places are as before: `to` is free, and was never handed out.
    pub(crate) fn stayed(&mut self, from: Node, to: Node, now: u32) {
        self.all.insert(from);
        self.all.insert(to);
        self.figures.used -= to.bytes() as u64;
        self.give(to, State::Clean, now);
    }

    /// The block stays; `to` may be anybody's.
    pub(crate) fn lost(&mut self, from: Node, to: Node) {
        self.all.insert(from);
        self.drop_record(to);
    }

    fn drop_record(&mut self, departed: Node) {
        self.figures.used -= departed.bytes() as u64;
        self.records.give(departed);
    }

    /// Takes free ranges out that are to be given back, oldest first: those that have been free for
    /// `age` milliseconds, populated ones until `over` bytes fewer are populated, and unpopulated
    /// ones beyond as much as all others together.
    /// Returns how many jobs were written; [`settle`](Self::settle) ends those with a record.
    pub(crate) fn expire(&mut self, now: u32, age: u32, over: u64, jobs: &mut [Job]) -> usize {
        let mut over = usize::try_from(over).unwrap_or(usize::MAX);
        let mut jobs = Jobs::new(jobs);
        let expired = |node: &Node| now.wrapping_sub(node.since.get()) >= age;
        for _ in 0..EXPIRE_STEPS {
            if jobs.count == jobs.jobs.len() {
                break;
            }
            let spare = self.figures.clean > CLEAN_MIN.max(self.figures.used + self.figures.dirty);
            if let Some(node) = self.dirty_queue.oldest.filter(expired) {
                over = over.saturating_sub(node.bytes());
                self.release(node, now, &mut jobs);
            } else if over > 0
                && let Some(node) = self.dirty_queue.oldest
            {
                if self.purgeable {
                    let share = over.checked_next_multiple_of(PURGE_BYTES).unwrap_or(usize::MAX);
                    let part = self.take_back(node, share.min(node.bytes()));
                    over = over.saturating_sub(part.bytes());
                    self.purge(part, now, &mut jobs);
                } else {
                    over = over.saturating_sub(node.bytes());
                    self.release(node, now, &mut jobs);
                }
            } else if let Some(node) = self.clean_queue.oldest.filter(|n| spare || expired(n)) {
                self.release(node, now, &mut jobs);
            } else {
                break;
            }
        }
        jobs.count
    }

    /// Ends a purge.
    pub(crate) fn settle(&mut self, node: Node, purged: bool, now: u32) {
        self.figures.dirty -= node.bytes() as u64;
        self.give(node, if purged { State::Clean } else { State::Dirty }, now);
    }

    fn new_mapping(&mut self) -> Mapping {
        // After a turn, two mappings may have one number: at worst a block spans them and is copied.
        self.last_mapping = self.last_mapping.wrapping_add(1).max(2);
        Mapping(self.last_mapping)
    }

    /// Makes `bytes` of a free range at `at` a block; what is left on both sides stays free.
    fn carve(&mut self, free: Node, at: usize, bytes: usize) -> Option<Node> {
        let state = free.state();
        self.unlist(free);
        let node = if at > free.start() {
            let node = self.split(free, at - free.start());
            self.list(free, state);
            node?
        } else {
            free
        };
        if let Some(rest) = self.split(node, bytes) {
            self.list(rest, state);
        }
        node.state.set(State::Used);
        self.figures.used += node.bytes() as u64;
        Some(node)
    }

    /// Takes the largest populated range together with unpopulated ones beside it.
    fn take_across(&mut self, bytes: usize, align: usize) -> Option<Taken> {
        let populated = self.dirty.last()?;
        let (dirty_start, dirty_end) = (populated.start(), populated.end());
        let before = self.free_before(populated);
        let after = self.free_after(populated);
        // As much of what is behind as there is; the rest from in front.
        let latest = after.map_or(dirty_end, |after| after.end()).checked_sub(bytes)?;
        let start = latest.min(dirty_start) & !(align - 1);
        if start < before.map_or(dirty_start, |before| before.start()) {
            return None;
        }
        self.unlist(populated);
        let mut node = populated;
        if let Some(before) = before
            && start < dirty_start
        {
            node = self.take_back(before, dirty_start - start);
            self.merge(node, populated);
        }
        if node.bytes() < bytes {
            self.absorb_after(node, bytes - node.bytes());
        } else if let Some(rest) = self.split(node, bytes) {
            self.list(rest, State::Dirty);
        }
        node.state.set(State::Used);
        self.figures.used += bytes as u64;
        let dirty = dirty_start - start..dirty_end.min(start + bytes) - start;
        Some(Taken { node, dirty })
    }

    /// Appends `bytes` of the free ranges behind, of which there are as many.
    fn absorb_after(&mut self, node: Node, bytes: usize) {
        let mut wanted = bytes;
        while wanted > 0
            && let Some(next) = self.free_after(node)
        {
            let part = self.take_front(next, wanted.min(next.bytes()));
            wanted -= part.bytes();
            self.merge(node, part);
        }
    }

    /// Takes the first `bytes` of a free range out.
    fn take_front(&mut self, free: Node, bytes: usize) -> Node {
        let state = free.state();
        self.unlist(free);
        if let Some(rest) = self.split(free, bytes) {
            self.list(rest, state);
        }
        free
    }

    /// Takes the last `bytes` of a free range out; all of it where a record is wanting.
    fn take_back(&mut self, free: Node, bytes: usize) -> Node {
        let state = free.state();
        self.unlist(free);
        match self.split(free, free.bytes() - bytes) {
            Some(rest) if rest.bytes() == bytes && bytes > 0 => {
                self.list(free, state);
                rest
            }
            _ => free,
        }
    }

    /// Cuts a range after its first `bytes`; the rest has a record of its own then. `None` when
    /// there is no rest, or no record.
    fn split(&mut self, node: Node, bytes: usize) -> Option<Node> {
        let whole = node.bytes();
        if bytes == 0 || bytes >= whole {
            return None;
        }
        let start = node.start() + bytes;
        let rest = self.records.make(start, whole - bytes, node.mapping.get(), State::Away)?;
        rest.since.set(node.since.get());
        node.bytes.set(bytes);
        self.all.insert(rest);
        Some(rest)
    }

    /// Joins a range to the one before it. Neither is in a tree by size or in a queue.
    fn merge(&mut self, node: Node, behind: Node) {
        self.all.remove(behind);
        node.bytes.set(node.bytes() + behind.bytes());
        self.records.give(behind);
    }

    /// The free range that begins where this one ends, if the two may be joined.
    fn free_after(&self, node: Node) -> Option<Node> {
        let next = self.all.at_most(node.end())?;
        (next.start() == node.end() && may_join(node, next)).then_some(next)
    }

    /// The free range that ends where this one begins, if the two may be joined.
    fn free_before(&self, node: Node) -> Option<Node> {
        let before = self.all.at_most(node.start().checked_sub(1)?)?;
        (before.end() == node.start() && may_join(node, before)).then_some(before)
    }

    /// Makes a range free and joins it with its neighbours of the same state; of any state where nothing but
    /// whole mappings can go back, so that they do.
    fn give(&mut self, node: Node, mut state: State, now: u32) {
        node.since.set(now);
        let mut whole = node;
        let any = !self.splits && !self.purgeable;
        let joins = |free: &Node, state| any || free.state() == state;
        let before = self.free_before(node).filter(|before| joins(before, state));
        let after = self.free_after(node).filter(|after| joins(after, state));
        for free in [before, after].into_iter().flatten() {
            if free.state() == State::Dirty {
                state = State::Dirty;
            }
            self.unlist(free);
        }
        if let Some(before) = before {
            before.since.set(mean_since(before, node, now));
            self.merge(before, node);
            whole = before;
        }
        if let Some(after) = after {
            whole.since.set(mean_since(whole, after, now));
            self.merge(whole, after);
        }
        self.list(whole, state);
    }

    /// Puts a range among the free ones, last in its queue.
    fn list(&mut self, node: Node, state: State) {
        node.state.set(state);
        if state == State::Dirty {
            self.figures.dirty += node.bytes() as u64;
            self.dirty.insert(node);
            self.dirty_queue.push(node);
        } else {
            self.figures.clean += node.bytes() as u64;
            self.clean.insert(node);
            self.clean_queue.push(node);
        }
    }

    /// Takes a range from among the free ones.
    fn unlist(&mut self, node: Node) {
        if node.state() == State::Dirty {
            self.figures.dirty -= node.bytes() as u64;
            self.dirty.remove(node);
            self.dirty_queue.remove(node);
        } else {
            self.figures.clean -= node.bytes() as u64;
            self.clean.remove(node);
            self.clean_queue.remove(node);
        }
        node.state.set(State::Away);
    }

    /// Gives a free range back to the system, address space and all.
    fn release(&mut self, node: Node, now: u32, jobs: &mut Jobs<'_>) {
        let state = node.state();
        self.unlist(node);
        if self.may_leave(node) {
            jobs.push(Job { start: node.start(), bytes: node.bytes(), purged: None });
            self.all.remove(node);
            return self.records.give(node);
        }
        if state == State::Dirty {
            return self.purge(node, now, jobs);
        }
        self.list(node, state);
        // Nothing to be had from it until its mapping is free as a whole.
        self.clean_queue.remove(node);
    }

    /// Whether the backing takes a range back: any, or only one that is a whole mapping.
    fn may_leave(&self, node: Node) -> bool {
        if self.splits {
            return true;
        }
        let same = |other: Node| other.mapping.get() == node.mapping.get();
        let touches_before = node.start().checked_sub(1).and_then(|last| {
            self.all.at_most(last).filter(|before| before.end() == node.start() && same(before))
        });
        let touches_after =
            self.all.at_most(node.end()).filter(|after| after.start() == node.end() && same(after));
        touches_before.is_none() && touches_after.is_none()
    }

    /// Gives the pages of a range back that is in no list.
    fn purge(&mut self, node: Node, now: u32, jobs: &mut Jobs<'_>) {
        if !self.purgeable {
            // It stays, and is looked at again after all others.
            node.since.set(now);
            return self.list(node, State::Dirty);
        }
        self.figures.dirty += node.bytes() as u64;
        jobs.push(Job { start: node.start(), bytes: node.bytes(), purged: Some(node) });
    }
}

/// Whether a range may be joined with a neighbour: the neighbour is free, and no seam is between
/// them.
fn may_join(node: Node, neighbour: Node) -> bool {
    neighbour.is_free() && neighbour.mapping.get() == node.mapping.get()
}

/// The moment that two joined ranges count as free since: the mean of their ages by bytes, so that a
/// small range that comes and goes does not keep a large one young.
fn mean_since(one: Node, other: Node, now: u32) -> u32 {
    let weighted =
        |node: Node| u128::from(now.wrapping_sub(node.since.get())) * node.bytes() as u128;
    let age = (weighted(one) + weighted(other)) / (one.bytes() + other.bytes()) as u128;
    now.wrapping_sub(age as u32)
}

#[cfg(test)]
#[path = "space_tests.rs"]
mod tests;
