//! Blocks keep what is written into them: random allocations, resizes and frees over several
//! threads, each block filled with a pattern of its own and checked before it goes.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::mpsc;
use std::thread;

use flagstone_slab::{Flagstone, Heap};

#[global_allocator]
static ALLOCATOR: Flagstone = Flagstone::new();

/// A block with a pattern: byte `i` is `seed + i`.
struct Patterned {
    start: *mut u8,
    layout: Layout,
    seed: u8,
}

// SAFETY: the block belongs to whoever has the value.
unsafe impl Send for Patterned {}

impl Patterned {
    fn new(layout: Layout, seed: u8, zeroed: bool) -> Self {
        // SAFETY: layouts of these tests are not empty.
        let start = unsafe {
            if zeroed { ALLOCATOR.alloc_zeroed(layout) } else { ALLOCATOR.alloc(layout) }
        };
        assert!(!start.is_null());
        assert_eq!(start.addr() % layout.align(), 0, "{layout:?}");
        let usable = Heap::global().usable_size(start).expect("the block is the heap's");
        assert!(usable >= layout.size(), "{usable} for {layout:?}");
        let block = Self { start, layout, seed };
        if zeroed {
            assert!(block.offsets().all(|i| block.read(i) == 0), "zeroed means zero");
        }
        block.fill();
        block
    }

    /// The first and last 64 bytes, and one byte per page between.
    fn offsets(&self) -> impl Iterator<Item = usize> + use<> {
        let n = self.layout.size();
        (0..n.min(64)).chain((64..n).step_by(4096)).chain(n.saturating_sub(64)..n)
    }

    fn read(&self, i: usize) -> u8 {
        // SAFETY: `i` is below the size.
        unsafe { self.start.add(i).read() }
    }

    fn fill(&self) {
        for i in self.offsets() {
            // SAFETY: `i` is below the size.
            unsafe { self.start.add(i).write(self.seed.wrapping_add(i as u8)) };
        }
    }

    fn check(&self) {
        for i in self.offsets() {
            assert_eq!(
                self.read(i),
                self.seed.wrapping_add(i as u8),
                "byte {i} of {:?}",
                self.layout
            );
        }
    }

    fn resize(&mut self, bytes: usize) {
        self.check();
        let kept = bytes.min(self.layout.size()).min(64);
        // SAFETY: the block was made with this layout.
        let start = unsafe { ALLOCATOR.realloc(self.start, self.layout, bytes) };
        assert!(!start.is_null());
        self.start = start;
        self.layout = Layout::from_size_align(bytes, self.layout.align()).unwrap();
        assert_eq!(start.addr() % self.layout.align(), 0);
        for i in 0..kept {
            assert_eq!(self.read(i), self.seed.wrapping_add(i as u8), "kept across realloc");
        }
        self.fill();
    }
}

impl Drop for Patterned {
    fn drop(&mut self) {
        self.check();
        // SAFETY: made with this layout, freed once.
        unsafe { ALLOCATOR.dealloc(self.start, self.layout) };
    }
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    fn layout(&mut self) -> Layout {
        let magnitude = self.below(21);
        let bytes = 1 + self.below(1 << magnitude);
        let strict = self.below(20) == 0;
        let align = 1usize << self.below(if strict { 18 } else { 5 });
        Layout::from_size_align(bytes as usize, align).unwrap()
    }
}

#[test]
fn random_lifetimes_over_threads_keep_their_contents() {
    const THREADS: usize = 4;
    const STEPS: usize = 20_000;
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..THREADS).map(|_| mpsc::channel::<Patterned>()).unzip();
    thread::scope(|scope| {
        for (me, receiver) in receivers.into_iter().enumerate() {
            let senders = senders.clone();
            scope.spawn(move || {
                let mut random = Random(0x9E37_79B9 + me as u64);
                let mut blocks: Vec<Patterned> = Vec::new();
                for step in 0..STEPS {
                    match random.below(10) {
                        0..=3 => {
                            let layout = random.layout();
                            let zeroed = random.below(4) == 0;
                            blocks.push(Patterned::new(layout, step as u8, zeroed));
                        }
                        4..=5 if !blocks.is_empty() => {
                            let at = random.below(blocks.len() as u64) as usize;
                            let bytes = random.layout().size();
                            blocks[at].resize(bytes);
                        }
                        6 if !blocks.is_empty() => {
                            // Freed by another thread; late receivers drop what is left.
                            let at = random.below(blocks.len() as u64) as usize;
                            let to = random.below(THREADS as u64) as usize;
                            drop(senders[to].send(blocks.swap_remove(at)));
                        }
                        _ => {
                            if !blocks.is_empty() {
                                let at = random.below(blocks.len() as u64) as usize;
                                drop(blocks.swap_remove(at));
                            }
                            drop(receiver.try_recv());
                        }
                    }
                    if blocks.len() > 400 {
                        blocks.drain(..200);
                    }
                    if step % 5000 == 4999 {
                        flagstone_slab::thread::park();
                        Heap::global().scavenge();
                    }
                }
            });
        }
        drop(senders);
    });
}

#[test]
fn every_alignment_up_to_many_megabytes_is_kept() {
    for shift in 0..=24 {
        for bytes in [1, 24, 100, 4096, 70_000, 600_000, 5 << 20] {
            let layout = Layout::from_size_align(bytes, 1 << shift).unwrap();
            let mut block = Patterned::new(layout, shift as u8, shift % 2 == 0);
            block.resize(bytes * 3);
            block.resize(bytes.div_ceil(2));
        }
    }
}

#[test]
fn growing_vectors_keep_their_elements() {
    let mut all: Vec<Vec<usize>> = (0..8).map(|_| Vec::new()).collect();
    for i in 0..300_000 {
        for (v, vector) in all.iter_mut().enumerate() {
            vector.push(i * 8 + v);
        }
    }
    for (v, vector) in all.iter().enumerate() {
        assert!(vector.iter().enumerate().all(|(i, &x)| x == i * 8 + v));
    }
}
