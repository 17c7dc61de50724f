//! The word of a typed slab's slot: found, removed once, used again, worn out.
//!
//! The real [`SlotWord`] around a cell that stands for the value. Readers enter as crossbeam-epoch's
//! pin orders it (publish, fence, read), and the grace period is reduced to what it promises: the
//! remover goes on once it has seen the reader outside.
//!
//! control: typed_get: Causality violation
//! control: typed_publish: Causality violation
//! control: typed_remove: the slot was given out 2 times
//! control: typed_wraps: values until the slot is worn
#![cfg(flagstone_loom)]

use flagstone_loom_tests::{Crossing, model, spawn};
use flagstone_slab::model::{Removal, SlotWord};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering, fence};

struct World {
    word: SlotWord,
    value: UnsafeCell<u32>,
    inside: AtomicBool,
    crossing: Crossing,
}

// SAFETY: `value` is what the protocol under test protects; loom checks every access to it.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    /// A slot with a value, and the word that its key has.
    fn new() -> (Arc<Self>, u32) {
        let world = World {
            word: SlotWord::new(0),
            value: UnsafeCell::new(0),
            inside: AtomicBool::new(false),
            crossing: Crossing::new(),
        };
        // SAFETY: nobody else has the world.
        world.value.with_mut(|value| unsafe { *value = 1 });
        let word = world.word.publish();
        (Arc::new(world), word)
    }

    /// Looks a key up under a guard, and reads the value if it is there.
    fn get(&self, word: u32) -> bool {
        self.inside.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.crossing.look();
        let found = self.word.is(word);
        if found {
            // SAFETY: the claim under test: it is there, whole, and stays while we are inside.
            self.value.with(|value| assert_eq!(unsafe { *value }, word, "another value"));
        }
        self.inside.store(false, Ordering::Release);
        found
    }

    /// True if nobody is inside who came before this call.
    fn grace(&self) -> bool {
        fence(Ordering::SeqCst);
        !self.inside.load(Ordering::Acquire)
    }

    /// Removes the value and puts another one in, if the slot can be had. Returns its word.
    fn replace(&self, word: u32) -> Option<u32> {
        if self.word.remove(word) != Removal::Removed || !self.grace() {
            return None;
        }
        let next = self.word.next();
        // SAFETY: the claim under test: nobody else sees the value.
        self.value.with_mut(|value| unsafe { *value = next });
        let published = self.word.publish();
        self.crossing.pass();
        assert_eq!(published, next, "the key is known before");
        Some(published)
    }
}

#[test]
fn a_reader_finds_a_whole_value_or_none() {
    model("typed_slot_get", || {
        let (world, first) = World::new();
        let reader = {
            let world = Arc::clone(&world);
            spawn(move || {
                // The old key, or the next one, as somebody told it who does not order it.
                world.get(first) || world.get(first + 2)
            })
        };
        let second = world.replace(first);
        let found = reader.join().unwrap();
        assert!(!world.word.is(first), "removed for good");
        second.is_some() && found
    });
}

#[test]
fn one_of_two_removers_gets_the_slot() {
    model("typed_slot_remove", || {
        let (world, first) = World::new();
        let other = {
            let world = Arc::clone(&world);
            spawn(move || world.word.remove(first))
        };
        let mine = world.word.remove(first);
        let theirs = other.join().unwrap();
        let got = [mine, theirs].iter().filter(|&&removal| removal == Removal::Removed).count();
        assert_eq!(got, 1, "the slot was given out {got} times");
        theirs == Removal::Removed
    });
}

#[test]
fn a_key_is_issued_once_and_then_the_slot_is_worn() {
    model("typed_slot_overflow", || {
        let (world, first) = World::new();
        let removed = Arc::new(AtomicBool::new(false));
        let reader = {
            let (world, removed) = (Arc::clone(&world), Arc::clone(&removed));
            spawn(move || {
                let gone = removed.load(Ordering::Acquire);
                assert!(!(gone && world.word.is(first)), "an old key finds a new value");
                gone
            })
        };
        // As many values as the word has room for, and one more try.
        let mut word = first;
        let mut values = 1;
        for _ in 0..SlotWord::LAST {
            let removal = world.word.remove(word);
            removed.store(true, Ordering::Release);
            match removal {
                Removal::Removed => {
                    word = world.word.publish();
                    values += 1;
                }
                Removal::RemovedLast => break,
                Removal::Missed => panic!("nobody else removes"),
            }
        }
        let looked_late = reader.join().unwrap();
        assert_eq!(values, SlotWord::LAST / 2, "values until the slot is worn");
        assert!(!world.word.is(first), "an old key finds a new value");
        looked_late
    });
}
