//! Everything at once, for as long as `FLAGSTONE_STRESS_SECONDS` says (20 by default): workers that
//! allocate, resize, free, hand blocks over and park, threads that come and go, a scavenger, a
//! purger and readers. Every block's contents are checked before it changes or goes, and the books
//! must close at the end.
//!
//! ```text
//! cargo test -p flagstone-slab --test stress -- --ignored
//! ```

#![allow(clippy::disallowed_types, reason = "loom does not run this file")]

use std::alloc::{GlobalAlloc, Layout};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flagstone_slab::stats::HeapSnapshot;
use flagstone_slab::{Flagstone, Heap};

#[global_allocator]
static ALLOCATOR: Flagstone = Flagstone::new();

const WORKERS: u64 = 6;
/// Blocks that wait in each place where workers leave them for others.
const PLACE: usize = 300;
const PLACES: usize = 4;

/// A block whose every word holds its seed and the word's number.
struct Block {
    start: *mut u64,
    layout: Layout,
    seed: u64,
}

// SAFETY: the block belongs to whoever has the value.
unsafe impl Send for Block {}

impl Block {
    fn new(layout: Layout, seed: u64, zeroed: bool) -> Self {
        // SAFETY: layouts of this test are not empty and hold whole words.
        let start = unsafe {
            if zeroed { ALLOCATOR.alloc_zeroed(layout) } else { ALLOCATOR.alloc(layout) }
        };
        assert!(!start.is_null() && start.addr().is_multiple_of(layout.align()), "{layout:?}");
        let block = Self { start: start.cast(), layout, seed };
        if zeroed {
            block.words().for_each(|i| assert_eq!(block.read(i), 0, "zeroed means zero"));
        }
        block.fill();
        block
    }

    /// The first and last words, and some of each page between.
    fn words(&self) -> impl Iterator<Item = usize> + use<> {
        let n = self.layout.size() / 8;
        (0..n.min(40)).chain((40..n).step_by(400)).chain(n.saturating_sub(8)..n)
    }

    fn read(&self, i: usize) -> u64 {
        // SAFETY: within the block.
        unsafe { self.start.add(i).read() }
    }

    fn fill(&self) {
        for i in self.words() {
            // SAFETY: within the block.
            unsafe { self.start.add(i).write(self.seed ^ i as u64) };
        }
    }

    fn check(&self) {
        for i in self.words() {
            assert_eq!(self.read(i), self.seed ^ i as u64, "word {i} of {:?}", self.layout);
        }
    }

    fn resize(&mut self, bytes: usize) {
        self.check();
        let kept = (self.layout.size().min(bytes) / 8).min(40);
        // SAFETY: the block has this layout.
        let start = unsafe { ALLOCATOR.realloc(self.start.cast(), self.layout, bytes) };
        assert!(!start.is_null());
        self.start = start.cast();
        self.layout = Layout::from_size_align(bytes, self.layout.align()).unwrap();
        assert!(start.addr().is_multiple_of(self.layout.align()));
        (0..kept).for_each(|i| assert_eq!(self.read(i), self.seed ^ i as u64, "kept word {i}"));
        self.fill();
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.check();
        // SAFETY: the block has this layout and goes once.
        unsafe { ALLOCATOR.dealloc(self.start.cast(), self.layout) };
    }
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % n
    }

    fn bytes(&mut self) -> usize {
        let magnitude = match self.below(200) {
            0 => 23,
            1..=3 => 20,
            4..=15 => 17,
            16..=60 => 13,
            _ => 9,
        };
        8 + 8 * self.below(1 << (magnitude - 3)) as usize
    }

    fn layout(&mut self) -> Layout {
        let shift = match self.below(100) {
            0 => self.below(24),
            1..=5 => self.below(14),
            _ => 3,
        };
        Layout::from_size_align(self.bytes(), 1 << shift).unwrap()
    }
}

struct Shared {
    stop: AtomicBool,
    places: [Mutex<Vec<Block>>; PLACES],
}

impl Shared {
    fn running(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// One worker's life: until the end, or for a number of steps.
    fn work(&self, seed: u64, steps: u64) {
        let mut random = Random(seed | 1);
        let mut mine: Vec<Block> = Vec::new();
        for step in 0..steps {
            if !self.running() {
                break;
            }
            let at = |random: &mut Random, n: usize| random.below(n as u64) as usize;
            match random.below(16) {
                0..=6 => {
                    let layout = random.layout();
                    let zeroed = random.below(4) == 0;
                    mine.push(Block::new(layout, seed.rotate_left(17) ^ step, zeroed));
                }
                7..=8 if !mine.is_empty() => {
                    let i = at(&mut random, mine.len());
                    let bytes = random.bytes();
                    mine[i].resize(bytes);
                }
                9..=11 if !mine.is_empty() => {
                    let i = at(&mut random, mine.len());
                    drop(mine.swap_remove(i));
                }
                12..=13 => {
                    // Leaves some, takes some: what it takes it frees, resizes or hands on.
                    let place = &self.places[at(&mut random, PLACES)];
                    let leave = mine.len() / 4;
                    let mut gone = mine.split_off(mine.len() - leave);
                    let mut place = place.lock().unwrap();
                    let n = place.len();
                    std::mem::swap(&mut gone, &mut place);
                    gone.truncate(n);
                    place.truncate(PLACE);
                    drop(place);
                    let keep = gone.len() / 2;
                    mine.extend(gone.into_iter().take(keep));
                }
                14 if random.below(50) == 0 => {
                    flagstone_slab::thread::park();
                    if random.below(4) == 0 {
                        thread::sleep(Duration::from_millis(random.below(4)));
                    }
                }
                15 if random.below(200) == 0 => flagstone_slab::thread::give_back(),
                15 if random.below(200) == 0 => flagstone_slab::thread::flush(),
                _ => {}
            }
            if mine.len() > 500 {
                mine.drain(..250);
            }
        }
    }
}

/// What every reader may rely on, whatever goes on meanwhile.
fn check_snapshot(before: &HeapSnapshot, after: &HeapSnapshot) {
    assert!(after.shards.len() >= before.shards.len());
    for (was, is) in before.shards.iter().zip(&after.shards) {
        assert!(is.allocs >= was.allocs && is.frees >= was.frees && is.leases >= was.leases);
    }
    for (was, is) in before.classes.iter().zip(&after.classes) {
        assert!(is.allocs >= was.allocs && is.frees >= was.frees);
        assert!(is.high_water >= was.high_water);
    }
    for lock in &after.locks {
        assert!(lock.contended <= lock.acquisitions, "{lock:?}");
    }
    assert!(after.fallback.frees <= after.fallback.allocs);
    // 1 GiB is far above what the test has at a time, and far below what a wrapped counter shows.
    let bytes = &after.bytes;
    for figure in [bytes.live, bytes.cached, bytes.mapped, bytes.fragmentation, bytes.metadata] {
        assert!(figure < 1 << 30, "{bytes:?}");
    }
}

#[test]
#[ignore = "runs for as long as FLAGSTONE_STRESS_SECONDS says, 20 s by default; run by name"]
fn everything_at_once() {
    let seconds = std::env::var("FLAGSTONE_STRESS_SECONDS");
    let seconds = seconds.map_or(20, |text| text.parse().expect("a number of seconds"));
    let heap = Heap::global();
    heap.set_decay(Duration::from_millis(20));
    let before = heap.snapshot();
    let shared =
        Shared { stop: AtomicBool::new(false), places: [const { Mutex::new(Vec::new()) }; PLACES] };
    thread::scope(|scope| {
        let shared = &shared;
        let mut threads = Vec::new();
        for me in 0..WORKERS {
            threads.push(scope.spawn(move || shared.work(0x9E37_79B9 * (me + 1), u64::MAX)));
        }
        // Threads that come and go, so that shards are adopted with all they hold.
        threads.push(scope.spawn(move || {
            let mut seed = 1;
            while shared.running() {
                let brief: Vec<_> = (0..4)
                    .map(|i| scope.spawn(move || shared.work(0xABCD_EF01 * (seed + i), 2_000)))
                    .collect();
                brief.into_iter().for_each(|thread| thread.join().unwrap());
                seed += 4;
            }
        }));
        threads.push(scope.spawn(move || {
            let mut last = heap.snapshot();
            while shared.running() {
                let report = heap.scavenge();
                assert!(report.shards_claimed + report.shards_leased > 0);
                let now = heap.snapshot();
                check_snapshot(&last, &now);
                last = now;
                heap.reset_window_high_water();
                thread::yield_now();
            }
        }));
        threads.push(scope.spawn(move || {
            while shared.running() {
                heap.purge();
                thread::sleep(Duration::from_millis(30));
            }
        }));
        let deadline = Instant::now() + Duration::from_secs(seconds);
        // A worker that has failed ends the run.
        while Instant::now() < deadline && threads.iter().all(|thread| !thread.is_finished()) {
            thread::sleep(Duration::from_millis(50));
        }
        shared.stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    drop(shared);
    // All other threads are gone, so everything posted can be reached; what one visit passes on,
    // the next one finds.
    for _ in 0..3 {
        heap.purge();
    }
    flagstone_slab::thread::flush();
    let after = heap.snapshot();
    let live = after.bytes.live.abs_diff(before.bytes.live);
    assert!(live < 256 << 10, "{live} bytes lost or doubled: {:?}", after.bytes);
    assert_eq!(after.bytes.residual(), 0, "{:?}", after.bytes);
    assert_eq!(after.fallback.allocs - after.fallback.frees, 0, "{:?}", after.fallback);
    assert!(after.segments.segments < 12, "{:?}", after.segments);
    assert_eq!(after.tiers.failures, before.tiers.failures);
    #[cfg(debug_assertions)]
    heap.debug_validate();
}
