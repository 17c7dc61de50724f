//! Work on a heap that may run out of memory at any point: whatever fails, what is live keeps its
//! contents, and the heap goes on.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::thread;

use flagstone_slab::Heap;

/// A block, filled with its seed.
struct Block {
    start: NonNull<u8>,
    layout: Layout,
    seed: u8,
}

// SAFETY: a block is in one thread's hands at a time.
unsafe impl Send for Block {}

impl Block {
    /// Writes both ends, which is where a lost or moved piece shows.
    fn fill(&self) {
        for at in Self::ends(self.layout.size()) {
            // SAFETY: within the block, which is live.
            unsafe { self.start.add(at).write(self.seed) };
        }
    }

    fn ends(bytes: usize) -> impl Iterator<Item = usize> {
        (0..bytes.min(256)).chain(bytes.saturating_sub(256)..bytes)
    }

    /// Checks what is still there of a block that was cut or grown to `bytes`.
    fn check(&self, bytes: usize) {
        for at in Self::ends(self.layout.size()).filter(|&at| at < bytes) {
            // SAFETY: within the block, which is live.
            assert_eq!(unsafe { self.start.add(at).read() }, self.seed, "contents lost at {at}");
        }
    }

    fn free(self, heap: &Heap) {
        self.check(self.layout.size());
        // SAFETY: live, freed once.
        unsafe { heap.dealloc(self.start, self.layout) };
    }
}

/// Sizes of every tier: small, medium, of a slab each, large.
const SIZES: [usize; 7] = [24, 500, 9_000, 100_000, 300_000, 700_000, 2 << 20];

struct Worker<'h> {
    heap: &'h Heap,
    live: Vec<Block>,
    failed: usize,
}

impl Worker<'_> {
    fn alloc(&mut self, i: usize) {
        let align = [8, 8, 8, 256, 1 << 17][i % 5];
        let layout = Layout::from_size_align(SIZES[i % SIZES.len()], align).unwrap();
        let zeroed = i.is_multiple_of(3);
        let found =
            if zeroed { self.heap.try_alloc_zeroed(layout) } else { self.heap.try_alloc(layout) };
        match found {
            Ok(start) => {
                assert!(start.addr().get().is_multiple_of(align));
                if zeroed {
                    Block { start, layout, seed: 0 }.check(layout.size());
                }
                let block = Block { start, layout, seed: i as u8 };
                block.fill();
                self.live.push(block);
            }
            Err(error) => {
                assert_eq!(error.layout(), layout);
                self.failed += 1;
            }
        }
    }

    fn resize(&mut self, i: usize) {
        if self.live.is_empty() {
            return;
        }
        let at = i % self.live.len();
        let block = &mut self.live[at];
        let old = block.layout;
        let bytes = if i.is_multiple_of(2) { old.size() * 2 } else { old.size() / 2 + 1 };
        let new = Layout::from_size_align(bytes, old.align()).unwrap();
        // SAFETY: live with this layout; replaced if it moved.
        match unsafe { self.heap.try_realloc(block.start, old, new) } {
            Ok(start) => {
                block.start = start;
                block.check(bytes);
                block.layout = new;
                block.fill();
            }
            Err(_) => {
                block.check(old.size());
                self.failed += 1;
            }
        }
    }

    fn work(&mut self, steps: usize) {
        for i in 0..steps {
            self.alloc(i);
            if i % 5 == 4 {
                self.resize(i);
            }
            if i % 3 == 2 && !self.live.is_empty() {
                self.live.swap_remove(i % self.live.len()).free(self.heap);
            }
            match i % 40 {
                19 => drop(self.heap.scavenge()),
                29 => drop(self.heap.purge()),
                39 => flagstone_slab::thread::park(),
                _ => {}
            }
        }
    }
}

/// Allocates, resizes and frees blocks of every tier. Returns how many requests failed. At its end no
/// block is left.
pub fn churn_alone(heap: &Heap, steps: usize) -> usize {
    let mut here = Worker { heap, live: Vec::new(), failed: 0 };
    here.work(steps);
    here.live.into_iter().for_each(|block| block.free(heap));
    flagstone_slab::thread::give_back();
    here.failed
}

/// The same on two threads, one after the other, which free half of each other's blocks.
pub fn churn(heap: &Heap, steps: usize) -> usize {
    let mut here = Worker { heap, live: Vec::new(), failed: 0 };
    here.work(steps);
    let half = here.live.split_off(here.live.len() / 2);
    let there = thread::scope(|scope| {
        let other = scope.spawn(move || {
            let mut there = Worker { heap, live: Vec::new(), failed: 0 };
            half.into_iter().for_each(|block| block.free(heap));
            there.work(steps);
            flagstone_slab::thread::give_back();
            there
        });
        other.join().unwrap()
    });
    here.live.into_iter().chain(there.live).for_each(|block| block.free(heap));
    flagstone_slab::thread::give_back();
    here.failed + there.failed
}
