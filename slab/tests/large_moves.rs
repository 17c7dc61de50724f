//! Moves of large blocks over backings that move, cannot move, or fail half way.
#![allow(clippy::disallowed_types, reason = "loom does not run this file")]

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flagstone_slab::Heap;
use flagstone_slab::port::{Backing, OsPages, Remapped, System, Tracing};

const MIB: usize = 1 << 20;

/// What a backing does when asked to move pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Willing,
    Unable,
    /// Takes the target away and then refuses, as kernels may.
    Failing,
}

/// Mappings that go back as a whole or not at all, and nobody may ask it to move any: the heap takes the
/// records of what moves out of its books, and could take what lies beside it for a mapping.
struct Whole(System);

// SAFETY: all memory comes from `System`, and goes back there.
unsafe impl Backing for Whole {
    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        self.0.map(bytes, align)
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller's contract.
        unsafe { self.0.unmap(start, bytes) }
    }

    unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's contract.
        unsafe { self.0.purge(start, bytes) }
    }

    unsafe fn remap(&self, _: NonNull<u8>, _: usize, _: NonNull<u8>, _: usize) -> Remapped {
        panic!("asked to move a part of a mapping");
    }

    fn can_split(&self) -> bool {
        false
    }
}

/// Pages of the system, and a record of what happened to requests for moves.
struct Moody {
    mood: Mood,
    asked: Mutex<Vec<Remapped>>,
    /// Targets that were taken away: nobody may give them back again.
    lost: Mutex<Vec<(usize, usize)>>,
}

impl Moody {
    fn new(mood: Mood) -> Self {
        Self { mood, asked: Mutex::new(Vec::with_capacity(64)), lost: Mutex::default() }
    }

    fn check_not_lost(&self, start: NonNull<u8>, bytes: usize) {
        let (start, end) = (start.addr().get(), start.addr().get() + bytes);
        for &(lost, lost_end) in self.lost.lock().unwrap().iter() {
            assert!(end <= lost || lost_end <= start, "a lost range is used");
        }
    }
}

// SAFETY: all memory comes from `OsPages`; a failed move keeps the promise of `Remapped::Failed`.
unsafe impl Backing for Moody {
    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let start = OsPages.map(bytes, align)?;
        let range = (start.addr().get(), start.addr().get() + bytes);
        // What the system hands out anew is not lost any more.
        self.lost.lock().unwrap().retain(|lost| lost.1 <= range.0 || range.1 <= lost.0);
        Some(start)
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
        self.check_not_lost(start, bytes);
        // SAFETY: the caller's contract.
        unsafe { OsPages.unmap(start, bytes) }
    }

    unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool {
        self.check_not_lost(start, bytes);
        // SAFETY: the caller's contract.
        unsafe { OsPages.purge(start, bytes) }
    }

    unsafe fn remap(&self, from: NonNull<u8>, old: usize, to: NonNull<u8>, new: usize) -> Remapped {
        let outcome = match self.mood {
            // SAFETY: the caller's contract.
            Mood::Willing => unsafe { OsPages.remap(from, old, to, new) },
            Mood::Unable => Remapped::Unsupported,
            Mood::Failing => {
                self.lost.lock().unwrap().push((to.addr().get(), to.addr().get() + new));
                // SAFETY: the caller's contract: nobody uses the target.
                unsafe { OsPages.unmap(to, new) };
                Remapped::Failed
            }
        };
        self.asked.lock().unwrap().push(outcome);
        outcome
    }

    fn joins(&self) -> bool {
        true
    }
}

/// Sets a flag when it goes, in a panic as well.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 16).unwrap()
}

/// Grows blocks in turn, each as often as `sizes` says, and checks what they hold. Returns what the
/// backing answered.
fn grow_in_turn(mood: Mood) -> Vec<Remapped> {
    let heap = Heap::builder().name("moves").backing(Moody::new(mood)).build();
    let heap = heap.unwrap_or_else(|error| panic!("{:?}", error.failure));
    let sizes = [600 << 10, 3 * MIB, 9 * MIB, 26 * MIB, 60 * MIB];
    for round in 0..3u8 {
        let mut blocks: Vec<NonNull<u8>> = (0..4).map(|_| heap.alloc(layout(sizes[0]))).collect();
        for (which, block) in blocks.iter().enumerate() {
            // SAFETY: the block holds as many bytes.
            unsafe { block.write_bytes(which as u8 + round * 16 + 1, sizes[0]) };
        }
        for step in sizes.windows(2) {
            for (which, block) in blocks.iter_mut().enumerate() {
                let seed = which as u8 + round * 16 + 1;
                // SAFETY: the block has the smaller layout; what is read and written lies in it.
                unsafe {
                    *block = heap.realloc(*block, layout(step[0]), layout(step[1]));
                    let held = std::slice::from_raw_parts(block.as_ptr(), step[0]);
                    assert!(held.iter().step_by(997).all(|&byte| byte == seed), "{mood:?}");
                    block.add(step[0]).write_bytes(seed, step[1] - step[0]);
                }
            }
            assert_eq!(heap.snapshot().bytes.residual(), 0, "{mood:?}");
        }
        for block in blocks {
            // SAFETY: the block has the last layout, and is freed once.
            unsafe { heap.dealloc(block, layout(sizes[sizes.len() - 1])) };
        }
        heap.purge();
        let fallback = heap.snapshot().fallback;
        assert_eq!((fallback.live_bytes, fallback.cached_bytes), (0, 0), "{mood:?}");
    }
    let backing = heap.into_backing();
    backing.asked.into_inner().unwrap()
}

/// A block grows while another thread gives back what lies free beside it in the same mapping.
// requirement: D5, G8
#[test]
fn a_mapping_that_is_whole_or_nothing_stays_while_a_block_of_it_grows() {
    let rest = (4 << 20) - 640 * 1024;
    for _ in 0..if cfg!(miri) { 1 } else { 40 } {
        let tracing = Tracing::new(Whole(System::SYSTEM));
        let heap = Heap::builder().decay(Duration::ZERO).backing(tracing).build();
        let heap = heap.unwrap_or_else(|error| panic!("{:?}", error.failure));
        let grown = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !grown.load(Ordering::Relaxed) {
                    heap.purge();
                }
            });
            let _end = SetAtEnd(&grown);
            let block = heap.alloc(layout(600_000));
            let beside = heap.alloc(layout(rest));
            // SAFETY: each block has the layout that is given, and is freed once.
            unsafe {
                heap.dealloc(beside, layout(rest));
                block.write_bytes(7, 600_000);
                let block = heap.realloc(block, layout(600_000), layout(5_000_000));
                let held = std::slice::from_raw_parts(block.as_ptr(), 600_000);
                assert!(held.iter().all(|&byte| byte == 7));
                heap.dealloc(block, layout(5_000_000));
            }
        });
        heap.into_backing().assert_nothing_outstanding();
    }
}

/// Used and unused parts of such a mapping go back together.
// requirement: D5
#[test]
fn a_mapping_that_is_whole_or_nothing_goes_back_once_nothing_of_it_is_in_use() {
    let heap = Heap::builder().decay(Duration::ZERO).backing(Whole(System::SYSTEM)).build();
    let heap = heap.unwrap_or_else(|error| panic!("{:?}", error.failure));
    let large = |mib| layout(mib * MIB);
    for (mib, two) in [(1, false), (7, false), (1, true), (4, true), (7, true)] {
        let block = heap.alloc(large(mib));
        let beside = two.then(|| heap.alloc(large(1)));
        let held = || heap.held_bytes().expect("counted") as usize;
        assert!(held() >= mib * MIB);
        // SAFETY: allocated above, with these layouts.
        unsafe {
            heap.dealloc(block, large(mib));
            if let Some(beside) = beside {
                heap.purge();
                heap.dealloc(beside, large(1));
            }
        }
        // The first may only be told that pages cannot be taken back one by one.
        heap.purge();
        heap.purge();
        assert!(held() < MIB, "{} held of {mib} MiB, beside another: {two}", held());
    }
}

// requirement: D5
#[test]
fn a_backing_that_cannot_move_is_asked_once_and_the_bytes_are_copied() {
    assert_eq!(grow_in_turn(Mood::Unable), [Remapped::Unsupported]);
}

#[test]
fn moves_that_fail_lose_their_target_only_and_are_given_up() {
    let asked = grow_in_turn(Mood::Failing);
    assert!(asked.iter().all(|&outcome| outcome == Remapped::Failed));
    assert!((1..=16).contains(&asked.len()), "asked {} times", asked.len());
}

#[cfg(target_os = "linux")]
#[test]
fn a_backing_that_moves_is_asked_each_time() {
    let asked = grow_in_turn(Mood::Willing);
    assert!(!asked.is_empty() && asked.iter().all(|&outcome| outcome == Remapped::Moved));
}
