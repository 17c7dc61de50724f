//! What lies where a block was moved away from, before its mover has come back from the system call.
//!
//! The backing moves pages by hand, and lets another thread take the vacated place, use it and give it
//! back while the mover is still inside: what a scheduler may do, done each time.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use flagstone_slab::Heap;
use flagstone_slab::port::{Backing, OsPages, Remapped, Tracing};

const UNIT: usize = 4 << 20;
const UNITS: usize = 16;
const SMALL: usize = 2 * UNIT;
const LARGE: usize = 3 * UNIT;
/// Two records of one place are told apart by chance: one time in two it goes well.
const ROUNDS: usize = 16;

/// Units of address space, the lowest free ones first; smaller ranges come from the system.
struct Units {
    base: usize,
    taken: Mutex<[bool; UNITS]>,
    /// How moves end.
    outcome: Remapped,
    /// Asked in the midst of a move, and waited for.
    meddler: (SyncSender<bool>, Mutex<Receiver<()>>),
}

/// Sends the meddler home, in a panic as well.
struct Home(SyncSender<bool>);

impl Drop for Home {
    fn drop(&mut self) {
        // If it has gone already, so much the better.
        let _ = self.0.send(false);
    }
}

impl Units {
    fn mark(&self, start: NonNull<u8>, bytes: usize, taken: bool) {
        let first = (start.addr().get() - self.base) / UNIT;
        self.taken.lock().unwrap()[first..first + bytes / UNIT].fill(taken);
    }

    fn vacate(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: nobody uses the range any more; it lies in the units.
        assert!(unsafe { OsPages.purge(start, bytes) });
        self.mark(start, bytes, false);
    }
}

// SAFETY: units are one user's at a time, by `taken`, and zeroed before they are handed out; the rest is
// the system's.
unsafe impl Backing for Units {
    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        if align < UNIT {
            return OsPages.map(bytes, align);
        }
        let mut taken = self.taken.lock().unwrap();
        let wanted = bytes / UNIT;
        let first = (0..=UNITS - wanted).find(|&at| taken[at..at + wanted].iter().all(|t| !t))?;
        taken[first..first + wanted].fill(true);
        NonNull::new(std::ptr::with_exposed_provenance_mut(self.base + first * UNIT))
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
        if (self.base..self.base + UNITS * UNIT).contains(&start.addr().get()) {
            self.vacate(start, bytes);
        } else {
            // SAFETY: the caller's contract.
            unsafe { OsPages.unmap(start, bytes) };
        }
    }

    unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's contract.
        unsafe { OsPages.purge(start, bytes) }
    }

    unsafe fn remap(&self, from: NonNull<u8>, old: usize, to: NonNull<u8>, new: usize) -> Remapped {
        if self.outcome == Remapped::Moved {
            // SAFETY: both ranges were handed out here and do not overlap.
            unsafe { to.copy_from_nonoverlapping(from, old) };
            self.vacate(from, old);
        } else {
            self.vacate(to, new);
        }
        self.meddler.0.send(true).unwrap();
        self.meddler.1.lock().unwrap().recv().unwrap();
        self.outcome
    }

    fn can_split(&self) -> bool {
        false
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 16).unwrap()
}

/// Grows blocks one after the other while the other thread takes `meddled` bytes where there is room.
fn meddle(outcome: Remapped, meddled: usize) {
    let (ask, asked) = sync_channel(0);
    let home = Home(ask.clone());
    let (answer, answered) = sync_channel(0);
    let base = OsPages.map(UNITS * UNIT, UNIT).unwrap().as_ptr().expose_provenance();
    let taken = Mutex::new([false; UNITS]);
    let units = Units { base, taken, outcome, meddler: (ask, Mutex::new(answered)) };
    let backing = Arc::new(Tracing::new(units));
    let heap = Heap::builder().name("vacated").backing(Arc::clone(&backing)).build();
    let heap = heap.unwrap_or_else(|error| panic!("{:?}", error.failure));
    let shared = &*heap;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while asked.recv().unwrap() {
                let block = shared.alloc(layout(meddled));
                // SAFETY: the block is ours and holds as many bytes.
                unsafe {
                    block.write_bytes(0xEE, meddled);
                    shared.dealloc(block, layout(meddled));
                }
                answer.send(()).unwrap();
            }
        });
        let _home = home;
        for round in 0..ROUNDS {
            let block = heap.alloc(layout(SMALL));
            // SAFETY: the block holds as many bytes; it is used and freed with the layout it has.
            unsafe {
                block.write_bytes(round as u8, SMALL);
                let block = heap.realloc(block, layout(SMALL), layout(LARGE));
                assert_eq!(heap.snapshot().fallback.live_bytes, LARGE as u64);
                assert_eq!(heap.usable_size(block.as_ptr()), Some(LARGE));
                let held = std::slice::from_raw_parts(block.as_ptr(), SMALL);
                assert!(held.iter().step_by(997).all(|&byte| byte == round as u8), "contents");
                heap.dealloc(block, layout(LARGE));
            }
            heap.purge();
            assert_eq!(heap.snapshot().bytes.residual(), 0);
        }
    });
    heap.purge();
    assert_eq!(heap.snapshot().fallback.live_bytes, 0);
    drop(heap);
    backing.assert_nothing_outstanding();
}

#[test]
fn the_place_a_block_left_has_no_record_of_it() {
    meddle(Remapped::Moved, SMALL);
}

#[test]
fn the_place_a_failed_move_lost_has_no_record_of_it() {
    meddle(Remapped::Failed, LARGE);
}
