//! Tests that look inside: words that run out, pages that come and go, where slots go.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use flagstone_epoch::{Domain, Participant};

use super::slot::Slot;
use super::word::SlotWord;
use super::*;

fn world<T: Send + 'static>(base: u32) -> (Domain, Participant, Slab<T>) {
    let domain = Domain::new();
    let participant = domain.register();
    let mut builder = Slab::builder().buckets(1);
    builder.base = base;
    let slab = builder.build(&domain);
    (domain, participant, slab)
}

/// Ends the grace period of everything removed.
fn settle(participant: &Participant) {
    participant.collect();
}

#[test]
fn a_slot_is_out_of_use_once_its_word_ends() {
    // Each slot has room for two more values.
    let (_domain, participant, slab) = world::<u64>(SlotWord::LAST - 4);
    let mut keys = std::collections::HashSet::new();
    let slots = Slot::<u64>::PER_PAGE;
    for round in 0..4 {
        let guard = participant.pin();
        let new: Vec<Key> = (0..slots as u64).map(|at| slab.insert(at, &guard)).collect();
        for key in &new {
            assert!(keys.insert(*key), "{key} was issued twice, in round {round}");
        }
        for key in new {
            assert!(slab.remove(key, &guard));
        }
        drop(guard);
        settle(&participant);
    }
    let stats = slab.stats();
    assert!(stats.worn > 0, "slots wore out");
    assert_eq!(stats.pending, 0);
    let guard = participant.pin();
    assert!(keys.iter().all(|key| slab.get(*key, &guard).is_none()));
}

#[test]
fn worn_pages_are_returned_and_their_numbers_never_used_again() {
    let (_domain, participant, slab) = world::<u64>(SlotWord::LAST - 2);
    let slots = Slot::<u64>::PER_PAGE * 3;
    let guard = participant.pin();
    let keys: Vec<Key> = (0..slots as u64).map(|at| slab.insert(at, &guard)).collect();
    keys.iter().for_each(|key| assert!(slab.remove(*key, &guard)));
    drop(guard);
    drop(participant);
    assert_eq!(slab.maintain().pages, 3, "no slot of them can be used again");
    assert_eq!(slab.stats().worn, slots as u64);
    assert_eq!((slab.stats().free, slab.stats().pages), (0, 0));
    assert!(slab.table.core.numbers().returned.is_empty());
}

#[test]
fn a_page_that_comes_again_does_not_know_old_keys() {
    let (_domain, participant, slab) = world::<u64>(0);
    let slots = Slot::<u64>::PER_PAGE as u64 * 2;
    let mut old = std::collections::HashSet::new();
    for round in 0..5 {
        let guard = participant.pin();
        let keys: Vec<Key> = (0..slots).map(|at| slab.insert(at, &guard)).collect();
        assert!(old.iter().all(|key| !slab.contains(*key, &guard)), "round {round}");
        for key in keys {
            assert!(slab.remove(key, &guard));
            assert!(old.insert(key), "{key} was issued twice, in round {round}");
        }
        drop(guard);
        slab.park(&participant);
        settle(&participant);
        slab.park(&participant);
        let returned = slab.maintain();
        assert!(returned.pages > 0, "round {round}: {:?}", slab.stats());
        assert_eq!(
            slab.stats().pages * Slot::<u64>::PAGE_BYTES,
            slab.stats().bytes - directories(&slab)
        );
    }
    let numbers = slab.table.core.numbers().next;
    assert!(numbers <= 4, "numbers are used again, not {numbers} of them");
}

fn directories<T>(slab: &Slab<T>) -> usize {
    slab.table.core.directory_bytes()
}

#[test]
fn every_slot_is_somewhere() {
    let (_domain, participant, slab) = world::<u64>(0);
    let mut live = Vec::new();
    for round in 0..50 {
        let guard = participant.pin();
        for at in 0..40 {
            live.push(slab.insert(at, &guard));
        }
        for _ in 0..(round % 7) * 10 {
            if let Some(key) = live.pop() {
                assert!(slab.remove(key, &guard));
            }
        }
    }
    settle(&participant);
    slab.park(&participant);
    let stats = slab.stats();
    assert_eq!(stats.len, live.len());
    assert_eq!(stats.slots, stats.len + stats.free + stats.pending as usize, "{stats:?}");
    assert_eq!(stats.pages * Slot::<u64>::PER_PAGE, stats.slots + stats.fresh, "{stats:?}");
}

#[test]
fn a_steady_stream_needs_no_more_memory() {
    let (domain, participant, slab) = world::<u64>(0);
    let run = |pairs: u64| {
        for at in 0..pairs {
            let guard = participant.pin();
            let key = slab.insert(at, &guard);
            assert!(slab.remove(key, &guard));
        }
    };
    let pairs = if cfg!(miri) { 200 } else { 20_000 };
    run(pairs);
    let before = slab.stats().pages;
    run(pairs * 4);
    let after = slab.stats().pages;
    assert!(
        after <= before + before / 2 + 2,
        "{before} pages, then {after}: {:?}",
        domain.snapshot()
    );
}

/// A page made while a trim has the free slots in its hands would be one too many, and with every trim there
/// would be more: few are ever free as a whole again.
#[test]
fn who_inserts_during_a_trim_waits_for_the_slots_and_makes_no_page() {
    let (domain, participant, slab) = world::<u64>(0);
    let guard = participant.pin();
    let slots = 2 * Slot::<u64>::PER_PAGE as u64;
    let keys: Vec<Key> = (0..slots).map(|at| slab.insert(at, &guard)).collect();
    keys.iter().for_each(|key| assert!(slab.remove(*key, &guard)));
    drop(guard);
    settle(&participant);
    let before = slab.stats();
    assert_eq!((before.pages, before.fresh), (2, 0));

    let core = &*slab.table.core;
    let inserts = || slab.insert(7, &domain.register().pin());
    // As a trim does it.
    let turn = core.trim.begin().expect("nobody else trims");
    let mut taken = core.buckets[0].take_all();
    std::thread::scope(|scope| {
        let inserted = scope.spawn(inserts);
        // Time to make a page; whoever waits for us does not need it.
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(slab.stats().pages, before.pages);
        while let Some(chunk) = taken {
            // SAFETY: rule T3: taken out above.
            taken = unsafe { chunk.as_ref() }.next.take();
            assert!(core.buckets[0].put(chunk).is_none(), "a chunk of slots is kept");
        }
        drop(turn);
        inserted.join().expect("no panic");
    });
    assert_eq!(slab.stats().pages, before.pages);
}

#[test]
fn a_guard_of_another_domain_is_refused() {
    let (_domain, participant, slab) = world::<u64>(0);
    let key = slab.insert(1, &participant.pin());
    let other = Domain::new().register();
    let refused = |what: &str, call: &dyn Fn()| {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
        assert!(caught.is_err(), "{what} took a guard of another domain");
    };
    refused("get", &|| assert!(slab.get(key, &other.pin()).is_none()));
    refused("insert", &|| assert_ne!(slab.insert(2, &other.pin()), key));
    refused("remove", &|| assert!(slab.remove(key, &other.pin())));
    refused("iter", &|| assert_eq!(slab.iter(&other.pin()).count(), 0));
    refused("vacant_entry", &|| drop(slab.vacant_entry(&other.pin())));
    refused("park", &|| slab.park(&other));
    assert_eq!(slab.get(key, &participant.pin()), Some(&1));
}

/// A value that uses the slab it is in when it is dropped.
struct Nested {
    next: Option<Key>,
    slab: Arc<Slab<Nested>>,
    domain: Domain,
}

thread_local! {
    /// The participant that nested drops use, on whatever thread they run.
    static HERE: RefCell<Option<Rc<Participant>>> = const { RefCell::new(None) };
}

impl Drop for Nested {
    fn drop(&mut self) {
        let Some(next) = self.next else { return };
        let here = HERE.with_borrow(Option::clone);
        let here = here.unwrap_or_else(|| Rc::new(self.domain.register()));
        let guard = here.pin();
        assert!(self.slab.remove(next, &guard));
        let value =
            Nested { next: None, slab: Arc::clone(&self.slab), domain: self.domain.clone() };
        let key = self.slab.insert(value, &guard);
        assert!(self.slab.remove(key, &guard));
    }
}

#[test]
fn drops_may_use_the_slab() {
    let domain = Domain::builder().batch_blocks(4).build().expect("in range");
    let slab = Arc::new(Slab::new(&domain));
    let participant = Rc::new(domain.register());
    HERE.set(Some(Rc::clone(&participant)));
    let count = if cfg!(miri) { 40 } else { 2_000 };
    let value = |next| Nested { next, slab: Arc::clone(&slab), domain: domain.clone() };
    let mut first = None;
    for _ in 0..count {
        first = Some(slab.insert(value(first), &participant.pin()));
        // Others come and go in between, so that drops run in the middle of removals.
        let other = slab.insert(value(None), &participant.pin());
        assert!(slab.remove(other, &participant.pin()));
    }
    assert!(slab.remove(first.expect("inserted"), &participant.pin()));
    for _ in 0..count * 4 {
        settle(&participant);
    }
    assert_eq!(slab.len(), 0, "the chain was removed link by link: {:?}", slab.stats());
    HERE.set(None);
    drop(participant);
}

#[test]
fn empty_chunks_do_not_pile_up_when_few_slots_are_removed_at_a_time() {
    let (_domain, participant, slab) = world::<u64>(0);
    let guard = participant.pin();
    let keys: Vec<Key> =
        (0..chunk::CAPACITY as u64 * 3).map(|at| slab.insert(at, &guard)).collect();
    drop(guard);
    for key in &keys {
        assert!(slab.remove(*key, &participant.pin()));
        // One removal for each batch.
        participant.flush();
        settle(&participant);
    }
    let bucket = &slab.table.core.buckets[0];
    let mut chunks = 0;
    while bucket.take().is_some_and(|chunk| {
        // SAFETY: taken out of the bucket just now.
        unsafe { chunk::Chunk::free(chunk) };
        true
    }) {
        chunks += 1;
    }
    assert!(chunks <= 4, "{chunks} chunks for three chunks' worth of slots");
}
