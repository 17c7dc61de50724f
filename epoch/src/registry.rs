//! The records of a domain's participants: one each, reused, never freed before the domain.
//!
//! Owns an append-only list of [`Record`]s. A participant claims a free record or appends one, and
//! gives it back when it is dropped; the counters in it go on where the last owner left them, so sums
//! over all records never run backwards. Readers walk the list without a lock. Who touches which
//! field when is in `docs/invariants/epoch.md` (rules P1 to P5).

use std::panic::Location;
use std::sync::{Arc, OnceLock};

use crate::stats::Counter;
use crate::sync::{AtomicBool, AtomicPtr, AtomicU64, Mutex, Ordering};

/// What others may know of one participant.
///
/// The owner's fields are written on every outermost guard and every retire; they come first, so that
/// they share a cache line that only the owner writes.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Record {
    /// Twice the number of outermost guards taken, less one while the last is held: odd = inside.
    seq: AtomicU64,
    /// Where that guard was taken.
    place: AtomicPtr<Location<'static>>,
    /// Others ask the owner to hand over its open batch.
    asked: AtomicBool,
    /// Objects and bytes retired.
    retired_blocks: Counter,
    retired_bytes: Counter,
    /// Objects and bytes in batches handed over; released, so that a barrier can count on them.
    handed_blocks: Counter,
    handed_bytes: Counter,
    /// When the open batch got its first object, in nanoseconds of the domain's clock; 0 = no batch.
    opened_at: AtomicU64,

    /// True while a participant owns the record.
    claimed: AtomicBool,
    /// The observer's notes (rule P5): the last `seq` seen, when it was first seen, and the last one
    /// reported as a stall.
    observed_seq: AtomicU64,
    observed_at: AtomicU64,
    reported_seq: AtomicU64,
    /// Number of the record in its domain.
    number: usize,
    /// Name of the owner's thread. Locked to be replaced or copied, never longer.
    thread: Mutex<Arc<str>>,
}

/// A guard that is held, as seen from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) seq: u64,
    pub(crate) place: &'static Location<'static>,
}

impl Record {
    fn new(number: usize, thread: Arc<str>) -> Self {
        Self {
            seq: AtomicU64::new(0),
            place: AtomicPtr::new(std::ptr::null_mut()),
            asked: AtomicBool::new(false),
            retired_blocks: Counter::new(),
            retired_bytes: Counter::new(),
            handed_blocks: Counter::new(),
            handed_bytes: Counter::new(),
            opened_at: AtomicU64::new(0),
            claimed: AtomicBool::new(true),
            observed_seq: AtomicU64::new(0),
            observed_at: AtomicU64::new(0),
            reported_seq: AtomicU64::new(0),
            number,
            thread: Mutex::new(thread),
        }
    }

    // --- the owner's side (rule P1) ---

    /// The owner took an outermost guard at `place`. Returns the number of such guards so far.
    #[inline]
    pub fn entered(&self, place: &'static Location<'static>) -> u64 {
        let seq = self.seq.load(Ordering::Relaxed).wrapping_add(1);
        debug_assert!(!seq.is_multiple_of(2), "the owner was inside already");
        // Release: pairs with the acquire in `held`; who reads this place also reads, afterwards, a
        // `seq` at least as new as the leave before it, and so cannot match it to an older guard.
        self.place.store(std::ptr::from_ref(place).cast_mut(), Ordering::Release);
        self.seq.store(seq, Ordering::Release);
        seq.div_ceil(2)
    }

    /// The owner left its outermost guard.
    #[inline]
    pub fn left(&self) {
        let seq = self.seq.load(Ordering::Relaxed).wrapping_add(1);
        debug_assert!(seq.is_multiple_of(2), "the owner was not inside");
        self.seq.store(seq, Ordering::Release);
    }

    /// The owner retired one object.
    #[inline]
    pub fn retired(&self, bytes: u64) {
        self.retired_blocks.add(1);
        self.retired_bytes.add(bytes);
    }

    /// The owner's open batch got its first object at `now`.
    pub fn opened(&self, now: u64) {
        self.opened_at.store(now.max(1), Ordering::Relaxed);
    }

    /// The owner handed its open batch over, after the batch entered its era.
    pub fn handed(&self, blocks: u64, bytes: u64) {
        self.opened_at.store(0, Ordering::Relaxed);
        self.asked.store(false, Ordering::Relaxed);
        self.handed_bytes.add(bytes);
        // Last, with release: pairs with the acquire in `handed_blocks`.
        if cfg!(flagstone_weaken = "handed_relaxed") {
            self.handed_blocks.add(blocks);
        } else {
            self.handed_blocks.add_release(blocks);
        }
    }

    /// True when somebody asked for the open batch.
    #[inline]
    pub fn is_asked(&self) -> bool {
        // Relaxed: a hint; the request carries no data.
        self.asked.load(Ordering::Relaxed)
    }

    /// There was no batch to hand over.
    pub(crate) fn answer_nothing(&self) {
        self.asked.store(false, Ordering::Relaxed);
    }

    /// Gives the record up. The owner has handed over its batch and holds no guard (rule P3).
    pub fn release(&self) {
        debug_assert!(
            self.seq.load(Ordering::Relaxed).is_multiple_of(2),
            "released inside a guard"
        );
        debug_assert_eq!(self.open(), (0, 0), "released with an open batch");
        let ordering = if cfg!(flagstone_weaken = "record_release_relaxed") {
            Ordering::Relaxed
        } else {
            // Release: pairs with the acquire in `try_claim`. The next owner adds to the counters
            // where this one stopped; without the pair it could start from older values.
            Ordering::Release
        };
        self.claimed.store(false, ordering);
    }

    fn try_claim(&self) -> bool {
        // The load first keeps a walk over claimed records free of writes.
        // Acquire: pairs with the release in `release`.
        !self.claimed.load(Ordering::Relaxed)
            && self
                .claimed
                .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }

    // --- everybody's side (rule P4) ---

    /// Asks the owner to hand over its open batch at its next leave or retire.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Number of the record in its domain.
    pub fn number(&self) -> usize {
        self.number
    }

    /// True while a participant owns the record.
    pub fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Relaxed)
    }

    /// Outermost guards taken so far.
    pub fn pins(&self) -> u64 {
        self.seq.load(Ordering::Relaxed).div_ceil(2)
    }

    /// Objects and bytes retired so far.
    pub fn retired_so_far(&self) -> (u64, u64) {
        (self.retired_blocks.get(), self.retired_bytes.get())
    }

    /// Objects handed over so far; their batches have entered their eras.
    pub fn handed_blocks(&self) -> u64 {
        self.handed_blocks.get_acquire()
    }

    /// Objects and bytes in the open batch: a difference of two counters, zero at least.
    pub fn open(&self) -> (u64, u64) {
        // Handed first: the owner retires before it hands over.
        let (handed, handed_bytes) = (self.handed_blocks.get_acquire(), self.handed_bytes.get());
        let (retired, retired_bytes) = self.retired_so_far();
        (retired.saturating_sub(handed), retired_bytes.saturating_sub(handed_bytes))
    }

    /// When the open batch was begun, if there is one.
    pub(crate) fn opened_at(&self) -> Option<u64> {
        Some(self.opened_at.load(Ordering::Relaxed)).filter(|&at| at != 0)
    }

    /// The guard that the owner holds, if it holds one.
    pub(crate) fn held(&self) -> Option<Held> {
        let seq = self.seq.load(Ordering::Acquire);
        if seq.is_multiple_of(2) {
            return None;
        }
        // Acquire: pairs with the release in `entered`.
        let place = self.place.load(Ordering::Acquire);
        if self.seq.load(Ordering::Relaxed) != seq {
            // Another guard by now: it is young, and the next look finds it.
            return None;
        }
        // SAFETY: rule P1. `entered` stores references to `'static` locations only, and one was
        // stored before `seq` first became odd.
        let place = unsafe { place.as_ref() }?;
        Some(Held { seq, place })
    }

    /// Name of the owner's thread.
    pub(crate) fn thread(&self) -> Arc<str> {
        Arc::clone(&self.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    // --- the observer's side (rule P5) ---

    /// Notes what is held at `now`, and returns since when it has been seen held, in nanoseconds.
    pub(crate) fn observe(&self, held: Held, now: u64) -> u64 {
        if self.observed_seq.load(Ordering::Relaxed) == held.seq {
            return self.observed_at.load(Ordering::Relaxed);
        }
        self.observed_at.store(now, Ordering::Relaxed);
        // Release: pairs with the acquire in `observed_since`.
        self.observed_seq.store(held.seq, Ordering::Release);
        now
    }

    /// Since when `held` has been seen held, if an observer has noted it.
    pub(crate) fn observed_since(&self, held: Held) -> Option<u64> {
        // Acquire: pairs with the release in `observe`, which writes the time first.
        (self.observed_seq.load(Ordering::Acquire) == held.seq)
            .then(|| self.observed_at.load(Ordering::Relaxed))
    }

    /// True once for each guard.
    pub(crate) fn first_report(&self, held: Held) -> bool {
        let first = self.reported_seq.load(Ordering::Relaxed) != held.seq;
        self.reported_seq.store(held.seq, Ordering::Relaxed);
        first
    }
}

/// The list of a domain's records.
#[derive(Debug, Default)]
pub struct Registry {
    head: Link,
}

type Link = OnceLock<Box<Node>>;

#[derive(Debug)]
struct Node {
    record: Arc<Record>,
    next: Link,
}

impl Registry {
    /// No records.
    pub fn new() -> Self {
        Self::default()
    }

    /// A record for a participant on the thread named `thread`: one given up earlier, or a new one.
    pub fn claim(&self, thread: &str) -> Arc<Record> {
        let mut link = &self.head;
        let mut number = 0;
        loop {
            if let Some(node) = link.get() {
                if node.record.try_claim() {
                    let mut name = node
                        .record
                        .thread
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    if &**name != thread {
                        *name = Arc::from(thread);
                    }
                    drop(name);
                    return Arc::clone(&node.record);
                }
                link = &node.next;
                number += 1;
                continue;
            }
            let record = Arc::new(Record::new(number, Arc::from(thread)));
            let node = Box::new(Node { record: Arc::clone(&record), next: OnceLock::new() });
            // Who loses the race for the end of the list walks on from the winner.
            if link.set(node).is_ok() {
                return record;
            }
        }
    }

    /// Every record, claimed or not, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        std::iter::successors(self.head.get(), |node| node.next.get()).map(|node| &*node.record)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // One after another: dropping the head alone would recurse down the list.
        let mut next = self.head.take();
        while let Some(mut node) = next {
            next = node.next.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_reused_and_counters_go_on() {
        let registry = Registry::new();
        let first = registry.claim("a");
        let second = registry.claim("b");
        assert_eq!((first.number(), second.number()), (0, 1));
        first.retired(10);
        first.handed(1, 10);
        first.release();
        let again = registry.claim("c");
        assert_eq!(again.number(), 0);
        assert_eq!(&*again.thread(), "c");
        again.retired(5);
        assert_eq!(again.retired_so_far(), (2, 15));
        assert_eq!(again.open(), (1, 5));
        assert_eq!(registry.iter().count(), 2);
    }

    #[test]
    fn a_held_guard_shows_where_it_was_taken() {
        let registry = Registry::new();
        let record = registry.claim("a");
        assert!(record.held().is_none());
        let place = Location::caller();
        assert_eq!(record.entered(place), 1);
        let held = record.held().expect("inside");
        assert_eq!(held.place, place);
        assert_eq!(record.observe(held, 7), 7);
        assert_eq!(record.observe(held, 9), 7, "seen held since 7");
        assert!(record.first_report(held));
        assert!(!record.first_report(held));
        record.left();
        assert!(record.held().is_none());
        assert_eq!(record.pins(), 1);
        assert_eq!(record.entered(place), 2);
        let next = record.held().expect("inside again");
        assert_eq!(record.observe(next, 11), 11, "another guard");
        assert!(record.first_report(next));
    }

    #[test]
    fn a_long_list_is_dropped_without_recursion() {
        let registry = Registry::new();
        let mut last = &registry.head;
        for number in 0..50_000 {
            let record = Arc::new(Record::new(number, Arc::from("x")));
            let node = Box::new(Node { record, next: OnceLock::new() });
            last = &last.get_or_init(|| node).next;
        }
        assert_eq!(registry.iter().count(), 50_000);
    }
}
