//! A large block whose pages move, against a thread that maps where it was, or where it did not get.
//!
//! The real tier of large blocks over a backing of four units of address space, in which nothing lies.
//! One thread grows a block, which has to move; the other takes a block that fits where the first was,
//! asks for its size, and gives it back. The move succeeds, or fails and loses its target.
//!
//! control: move_departs_late: in the books of the large space already
#![cfg(flagstone_loom)]

use std::ptr::NonNull;
use std::sync::Mutex;

use flagstone_loom_tests::{model, spawn};
use flagstone_slab::model::LargeBlocks;
use flagstone_slab::port::{Backing, OsPages, Remapped};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};

const UNIT: usize = 4 << 20;
const UNITS: usize = 4;
/// Where no program has anything.
const BASE: usize = 1 << 46;

/// Memory for records, kept from one execution to the next.
static RECORDS: Mutex<Vec<usize>> = Mutex::new(Vec::new());

struct Units {
    taken: Mutex<[bool; UNITS]>,
    records: Mutex<Vec<usize>>,
    moves: Remapped,
    /// Where the move gave a place up, and whether somebody got that.
    given_up: Mutex<(usize, bool)>,
    /// The system's own order, and where another thread may come between.
    system: AtomicUsize,
}

impl Units {
    fn new(moves: Remapped) -> Self {
        let (taken, records) = (Mutex::new([false; UNITS]), Mutex::new(Vec::new()));
        let given_up = Mutex::new((0, false));
        Self { taken, records, moves, given_up, system: AtomicUsize::new(0) }
    }

    fn give(&self, start: NonNull<u8>, bytes: usize) {
        let first = (start.addr().get() - BASE) / UNIT;
        for unit in &mut self.taken.lock().unwrap()[first..first + bytes / UNIT] {
            assert!(std::mem::take(unit), "a unit went back twice");
        }
    }
}

// SAFETY: a unit is one user's at a time, and the model touches none; records get memory of the system,
// zeroed.
unsafe impl Backing for Units {
    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        self.system.fetch_add(1, Ordering::AcqRel);
        if align < UNIT {
            let kept = RECORDS
                .lock()
                .unwrap()
                .pop()
                .and_then(|at| NonNull::new(std::ptr::with_exposed_provenance_mut::<u8>(at)));
            let start = kept.or_else(|| OsPages.map(bytes, align))?;
            // SAFETY: nobody's.
            unsafe { start.write_bytes(0, bytes) };
            self.records.lock().unwrap().push(start.as_ptr().expose_provenance());
            return Some(start);
        }
        let mut taken = self.taken.lock().unwrap();
        let wanted = bytes / UNIT;
        let first = (0..=UNITS - wanted).find(|&at| taken[at..at + wanted].iter().all(|t| !t))?;
        taken[first..first + wanted].fill(true);
        let start = BASE + first * UNIT;
        let mut given_up = self.given_up.lock().unwrap();
        given_up.1 |= given_up.0 == start;
        NonNull::new(std::ptr::with_exposed_provenance_mut(start))
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
        self.system.fetch_add(1, Ordering::AcqRel);
        self.give(start, bytes);
    }

    unsafe fn purge(&self, _: NonNull<u8>, _: usize) -> bool {
        true
    }

    unsafe fn remap(&self, from: NonNull<u8>, old: usize, to: NonNull<u8>, new: usize) -> Remapped {
        self.system.fetch_add(1, Ordering::AcqRel);
        let (start, bytes) = if self.moves == Remapped::Moved { (from, old) } else { (to, new) };
        self.give(start, bytes);
        self.given_up.lock().unwrap().0 = start.addr().get();
        self.moves
    }
}

impl Drop for Units {
    fn drop(&mut self) {
        RECORDS.lock().unwrap().append(self.records.get_mut().unwrap());
    }
}

fn a_move(name: &str, moves: Remapped) {
    model(name, move || {
        let blocks = Arc::new(LargeBlocks::new(Units::new(moves)));
        let block = blocks.alloc(UNIT);
        let other = {
            let blocks = Arc::clone(&blocks);
            // As large as what the move leaves or loses.
            let bytes = if moves == Remapped::Moved { UNIT } else { 2 * UNIT };
            spawn(move || {
                let other = blocks.alloc(bytes);
                if !other.is_null() {
                    assert_eq!(blocks.block_bytes(other), Some(bytes), "another's record");
                    // SAFETY: taken above, given back once.
                    unsafe { blocks.free(other) };
                }
            })
        };
        // SAFETY: the block is this thread's.
        let grown = unsafe { blocks.grow(block, 2 * UNIT) };
        let place = if grown.is_null() { block } else { grown };
        let bytes = if grown.is_null() { UNIT } else { 2 * UNIT };
        assert_eq!(blocks.block_bytes(place), Some(bytes), "the block has its record");
        other.join().unwrap();
        assert_eq!(blocks.block_bytes(place), Some(bytes), "and keeps it");
        // SAFETY: as above; freed once.
        unsafe { blocks.free(place) };
        assert_eq!(*blocks.backing().taken.lock().unwrap(), [false; UNITS], "all went back");
        // The case that matters: the other thread had a place that the move gave up.
        blocks.backing().given_up.lock().unwrap().1
    });
}

#[test]
fn what_a_move_left_is_whose_it_is_next() {
    a_move("slab_large, moved", Remapped::Moved);
}

#[test]
fn what_a_move_lost_is_whose_it_is_next() {
    a_move("slab_large, failed", Remapped::Failed);
}
