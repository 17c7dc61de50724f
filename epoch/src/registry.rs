//! The records of a domain's participants: one each, reused, never freed before the domain.
//!
//! Owns an append-only list of [`Record`]s. A participant claims a free record or appends one, and
//! gives it back when it is dropped; the counters in it go on where the last owner left them, so sums
//! over all records never run backwards. Readers walk the list without a lock. Who touches which
//! field when is in `docs/invariants/epoch.md` (rules P1 to P5).

use std::alloc::Layout;
use std::panic::Location;
use std::sync::{Arc, OnceLock};

use crate::stats::Counter;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, weakened};

/// What others may know of one participant.
///
/// The owner's fields are written on every outermost guard and every retire; they come first, so that
/// they share a cache line that only the owner writes.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Record {
    /// Whether the owner holds a guard, where it took it, and the low bits of how many it has taken: a
    /// [`Stay`]. One word, because the collector's next read-modify-write waits for every store before
    /// it: a guard writes this once when it begins and once when it ends.
    stay: AtomicU64,
    /// How many outermost guards it had taken when it last noted that.
    noted: AtomicU64,
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
    /// The observer's notes (rule P5): the last `seq` seen, when and in which epoch it was first seen,
    /// and the last one reported as a stall.
    observed_seq: AtomicU64,
    observed_at: AtomicU64,
    observed_epoch: AtomicU64,
    reported_seq: AtomicU64,
    /// Number of the record in its domain.
    number: usize,
    /// Name of the owner's thread. Locked to be replaced or copied, never longer.
    thread: Mutex<Arc<str>>,
}

/// A guard that is held, as seen from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// Its number among the owner's outermost guards.
    pub(crate) seq: u64,
    /// Where it was taken.
    pub(crate) place: &'static Location<'static>,
}

/// Outermost guards between two notes of their number, and two looks at the age of the open batch.
const PINS_PER_NOTE: u16 = 64;

/// Where an owner is, in one word: the address of the place where it took its outermost guard (48 bits,
/// zero while it holds none; the lowest says that it was an enter), and how many it took, modulo 2^16.
///
/// 48 bits hold the address of any static: kernels map above that only where a program asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stay(u64);

impl Stay {
    const COUNT_BITS: u32 = u16::BITS;
    const PLACE_BITS: u32 = u64::BITS - Self::COUNT_BITS;
    const PLACE_MASK: u64 = (1 << Self::PLACE_BITS) - 1;
    const RAW: u64 = 1;

    const OUTSIDE: Stay = Stay(0);

    #[inline]
    fn enter(self, place: &'static Location<'static>, raw: bool) -> Self {
        const { assert!(align_of::<Location<'static>>() > Self::RAW as usize) };
        debug_assert!(!self.is_inside());
        let address = std::ptr::from_ref(place).expose_provenance() as u64;
        debug_assert!(address <= Self::PLACE_MASK);
        let next = self.0.wrapping_add(1 << Self::PLACE_BITS);
        Self(next | address | if raw { Self::RAW } else { 0 })
    }

    #[inline]
    fn leave(self) -> Self {
        Self(self.0 & !Self::PLACE_MASK)
    }

    fn without_raw(self) -> Self {
        Self(self.0 & !Self::RAW)
    }

    /// True under a guard or an enter.
    #[inline]
    pub(crate) fn is_inside(self) -> bool {
        self.0 & Self::PLACE_MASK != 0
    }

    /// True if the outermost was an enter that was not left yet.
    #[inline]
    pub(crate) fn is_raw(self) -> bool {
        self.0 & Self::RAW != 0
    }

    #[inline]
    fn count(self) -> u16 {
        (self.0 >> Self::PLACE_BITS) as u16
    }

    /// The whole count, by one that is less than 2^15 away.
    fn count_near(self, near: u64) -> u64 {
        near.wrapping_add_signed(i64::from(self.count().wrapping_sub(near as u16) as i16))
    }

    fn place(self) -> Option<&'static Location<'static>> {
        let address = self.0 & Self::PLACE_MASK & !Self::RAW;
        let place = std::ptr::with_exposed_provenance::<Location<'static>>(address as usize);
        // SAFETY: rule P1. `enter` puts the addresses of `'static` places there only, and exposes them.
        unsafe { place.as_ref() }
    }
}

impl Record {
    fn new(number: usize, thread: Arc<str>) -> Self {
        Self {
            stay: AtomicU64::new(Stay::OUTSIDE.0),
            noted: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            retired_blocks: Counter::new(),
            retired_bytes: Counter::new(),
            handed_blocks: Counter::new(),
            handed_bytes: Counter::new(),
            opened_at: AtomicU64::new(0),
            claimed: AtomicBool::new(true),
            observed_seq: AtomicU64::new(0),
            observed_at: AtomicU64::new(0),
            observed_epoch: AtomicU64::new(0),
            reported_seq: AtomicU64::new(0),
            number,
            thread: Mutex::new(thread),
        }
    }

    /// A record that no participant owns, for those who take turns under a lock.
    pub(crate) fn unclaimed() -> Self {
        let record = Self::new(usize::MAX, Arc::from("unregistered"));
        record.claimed.store(false, Ordering::Relaxed);
        record
    }

    // --- the owner's side (rule P1) ---

    /// Where the owner itself is.
    #[inline]
    pub(crate) fn stay(&self) -> Stay {
        Stay(self.stay.load(Ordering::Relaxed))
    }

    /// The owner takes an outermost guard or, if `raw`, an outermost enter at `place`. Returns true once
    /// in a while: then [`note_pins`](Self::note_pins) is due.
    #[inline]
    pub fn entered(&self, place: &'static Location<'static>, raw: bool) -> bool {
        self.entered_from(self.stay(), place, raw)
    }

    /// The same for an owner who has just asked where it is.
    #[inline]
    pub(crate) fn entered_from(
        &self,
        stay: Stay,
        place: &'static Location<'static>,
        raw: bool,
    ) -> bool {
        let stay = stay.enter(place, raw);
        // Relaxed: the word stands for itself, and a place is a static.
        self.stay.store(stay.0, Ordering::Relaxed);
        stay.count().is_multiple_of(PINS_PER_NOTE)
    }

    /// The owner has left its outermost enter, and goes on inside under a guard.
    pub(crate) fn no_longer_raw(&self) {
        self.stay.store(self.stay().without_raw().0, Ordering::Relaxed);
    }

    /// The owner left its last guard.
    #[inline]
    pub fn left(&self) {
        self.left_from(self.stay());
    }

    /// The same for an owner who has just asked where it is.
    #[inline]
    pub(crate) fn left_from(&self, stay: Stay) {
        self.stay.store(stay.leave().0, Ordering::Relaxed);
    }

    /// Brings `noted` up to date. The owner calls it at least every 2^15 guards.
    pub fn note_pins(&self) {
        self.noted.store(self.pins(), Ordering::Relaxed);
    }

    /// The owner retired one object: `blocks` and `bytes` are the new totals, which the owner knows.
    #[inline]
    pub(crate) fn retired_up_to(&self, blocks: u64, bytes: u64) {
        self.retired_blocks.set(blocks);
        self.retired_bytes.set(bytes);
    }

    /// The owner retired one object of `bytes`.
    #[cfg(any(test, flagstone_loom))]
    pub fn retired(&self, bytes: u64) {
        let (blocks, before) = self.retired_so_far();
        self.retired_up_to(blocks.wrapping_add(1), before.wrapping_add(bytes));
    }

    /// The owner's open batch got its first object at `now`.
    pub fn opened(&self, now: u64) {
        self.opened_at.store(now.max(1), Ordering::Relaxed);
    }

    /// The owner's open batch got no object after all.
    pub(crate) fn not_opened(&self) {
        self.opened_at.store(0, Ordering::Relaxed);
    }

    /// The owner handed its open batch over, after the batch entered its era.
    pub fn handed(&self, blocks: u64, bytes: u64) {
        self.opened_at.store(0, Ordering::Relaxed);
        self.asked.store(false, Ordering::Relaxed);
        self.handed_bytes.add(bytes);
        // Last, with release: pairs with the acquire in `handed_blocks`.
        if weakened("handed_relaxed") {
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
        debug_assert!(!self.stay().is_inside(), "released inside a guard");
        debug_assert_eq!(self.open(), (0, 0), "released with an open batch");
        let ordering = if weakened("record_release_relaxed") {
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
        self.pins_and_stay().0
    }

    /// Objects and bytes retired so far.
    #[inline]
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
        let (seq, stay) = self.pins_and_stay();
        Some(Held { seq, place: stay.place()? })
    }

    /// The number of outermost guards so far, and the word of the last.
    fn pins_and_stay(&self) -> (u64, Stay) {
        let mut stay = self.stay();
        loop {
            // Acquire: keeps the second look at `stay` after this.
            let noted = self.noted.load(Ordering::Acquire);
            let again = self.stay();
            // If the word stood still around the look at `noted`, the two are at most as far apart as
            // the owner lets them get, and the low bits tell which way and how far.
            if again == stay {
                return (stay.count_near(noted), stay);
            }
            stay = again;
        }
    }

    /// Name of the owner's thread.
    pub(crate) fn thread(&self) -> Arc<str> {
        Arc::clone(&self.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    // --- the observer's side (rule P5) ---

    /// Notes what is held at `now`, in `epoch`, and returns since when it has been seen held, in
    /// nanoseconds.
    pub(crate) fn observe(&self, held: Held, now: u64, epoch: u64) -> u64 {
        if self.observed_seq.load(Ordering::Relaxed) == held.seq {
            return self.observed_at.load(Ordering::Relaxed);
        }
        self.observed_at.store(now, Ordering::Relaxed);
        self.observed_epoch.store(epoch, Ordering::Relaxed);
        // Release: pairs with the acquire in `observed_since`.
        self.observed_seq.store(held.seq, Ordering::Release);
        now
    }

    /// Since when, and since which epoch, `held` has been seen held, if an observer has noted it.
    pub(crate) fn observed_since(&self, held: Held) -> Option<(u64, u64)> {
        // Acquire: pairs with the release in `observe`, which writes the time and the epoch first.
        (self.observed_seq.load(Ordering::Acquire) == held.seq).then(|| {
            let epoch = self.observed_epoch.load(Ordering::Relaxed);
            (self.observed_at.load(Ordering::Relaxed), epoch)
        })
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

/// What a new record takes: itself behind a count, its place in the list, the name of its thread.
pub(crate) fn layouts(thread: &str) -> [Layout; 3] {
    // An `Arc` has two counts in front of its value.
    let counted = |value: Layout| match Layout::new::<[usize; 2]>().extend(value) {
        Ok((layout, _)) => layout.pad_to_align(),
        Err(_) => value,
    };
    [counted(Layout::new::<Record>()), Layout::new::<Node>(), counted(Layout::for_value(thread))]
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
    use proptest::prelude::*;

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
        record.entered(place, false);
        let held = record.held().expect("inside");
        assert_eq!((held.seq, held.place), (1, place));
        assert_eq!(record.observe(held, 7, 1), 7);
        assert_eq!(record.observe(held, 9, 2), 7, "seen held since 7");
        assert_eq!(record.observed_since(held), Some((7, 1)));
        assert!(record.first_report(held));
        assert!(!record.first_report(held));
        record.left();
        assert!(record.held().is_none());
        assert_eq!(record.pins(), 1);
        record.entered(place, true);
        let next = record.held().expect("inside again");
        assert_eq!((next.seq, next.place), (2, place));
        assert_eq!(record.observe(next, 11, 3), 11, "another guard");
        assert!(record.first_report(next));
    }

    #[test]
    fn guards_are_counted_past_the_bits_of_the_word() {
        let registry = Registry::new();
        let record = registry.claim("a");
        for n in 1..=200_000 {
            if record.entered(Location::caller(), false) {
                record.note_pins();
            }
            record.left();
            assert_eq!(record.pins(), n);
        }
    }

    proptest! {
        #[test]
        fn a_stay_gives_back_what_went_in(
            before: u16, noted: u64, raw: bool, off in -0x7fff..0x7fff_i64,
        ) {
            let place = Location::caller();
            let outside = Stay(u64::from(before) << Stay::PLACE_BITS);
            let inside = outside.enter(place, raw);
            prop_assert!(inside.is_inside() && !outside.is_inside());
            prop_assert_eq!(inside.is_raw(), raw);
            prop_assert_eq!(inside.place(), Some(place));
            prop_assert_eq!(inside.without_raw().place(), Some(place));
            prop_assert_eq!(inside.count(), before.wrapping_add(1));
            prop_assert_eq!(inside.leave(), Stay(u64::from(inside.count()) << Stay::PLACE_BITS));
            let count = noted.wrapping_add_signed(off);
            let stay = Stay(count << Stay::PLACE_BITS);
            prop_assert_eq!(stay.count_near(noted), count);
        }
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
