//! What must hold of a heap, whatever was done with it.
//!
//! Owns the live blocks and what is in them, the guards that threads hold, and the retired blocks that
//! these guards keep. Checked at every step: a block is aligned, large enough, overlaps no other, starts
//! as zeros when asked for; its contents stay until it is freed, over every resize, and under a guard
//! beyond that. Checked when nothing is on its way: the heap's books say what the model says, to the
//! byte.

use std::alloc::Layout;
use std::collections::{BTreeMap, BTreeSet};
use std::ptr::NonNull;

use flagstone_slab::{ClassTable, Heap, thread};

use super::{Deed, THREADS};

/// Bytes of live blocks, all together: past it a script only frees.
const LIVE_MAX: usize = 64 << 20;
/// Steps of the domain after which everything that no guard keeps has been reclaimed.
const GRACE_STEPS: usize = 1_000;

pub(super) struct Model<'h> {
    heap: &'h Heap,
    table: Option<ClassTable>,
    /// Whether the heap may run out of memory.
    limited: bool,
    live: BTreeMap<usize, Block>,
    live_bytes: usize,
    /// Guards that each thread holds.
    guards: [usize; THREADS as usize],
    retired: Vec<Retired>,
    seed: u8,
}

#[derive(Clone, Copy)]
struct Block {
    start: NonNull<u8>,
    layout: Layout,
    seed: u8,
}

// SAFETY: blocks are used by the thread that has the model.
unsafe impl Send for Block {}

/// A block given up that guards still keep.
struct Retired {
    block: Block,
    keepers: BTreeSet<usize>,
}

impl<'h> Model<'h> {
    pub(super) fn new(heap: &'h Heap, table: Option<ClassTable>, limited: bool) -> Self {
        Self {
            heap,
            table,
            limited,
            live: BTreeMap::new(),
            live_bytes: 0,
            guards: [0; THREADS as usize],
            retired: Vec::new(),
            seed: 0,
        }
    }

    /// Number of live blocks.
    pub(super) fn live(&self) -> usize {
        self.live.len()
    }

    /// Guards that a thread holds.
    pub(super) fn guards(&self, thread: usize) -> usize {
        self.guards[thread]
    }

    /// The thread is about to end, and its guards with it.
    pub(super) fn before_exit(&mut self, thread: usize) {
        self.guards[thread] = 0;
        self.release(thread);
    }

    /// Does something on the calling thread, which is number `me`.
    pub(super) fn run(&mut self, me: usize, deed: Deed) {
        match deed {
            Deed::Alloc { size, align, zeroed } => {
                self.alloc(layout(size.bytes(), align.bytes()), zeroed)
            }
            Deed::AllocMany { size, count } => {
                (0..count).for_each(|_| self.alloc(layout(size.bytes().min(2_000), 8), false));
            }
            Deed::Resize { which, size, align } => {
                self.resize(which, layout(size.bytes(), align.bytes()));
            }
            Deed::Free { which } => self.free(which),
            Deed::FreeMany { which, count } => {
                (0..count).for_each(|i| self.free(which.wrapping_add(u16::from(i))));
            }
            Deed::Retire { which } => self.retire(which),
            Deed::Check { which } => {
                if let Some(block) = self.pick(which).and_then(|at| self.live.get(&at)) {
                    block.check(block.layout.size());
                }
            }
            Deed::Enter => {
                self.heap.enter();
                self.guards[me] += 1;
            }
            Deed::Leave => {
                let held = self.guards[me];
                if held == 1 {
                    self.release(me);
                }
                assert_eq!(self.heap.leave().is_ok(), held > 0, "{held} guards");
                self.guards[me] = held.saturating_sub(1);
            }
            Deed::Advance => _ = self.heap.advance(),
            Deed::Collect => _ = self.heap.collect(),
            Deed::Park => thread::park(),
            Deed::GiveBack => {
                // With its place in the domain the thread gives up its guards.
                self.before_exit(me);
                thread::give_back();
            }
            Deed::Flush => thread::flush(),
            Deed::Scavenge => _ = self.heap.scavenge(),
            Deed::Purge => _ = self.heap.purge(),
            Deed::Snapshot => self.snapshot(),
            Deed::Exit => unreachable!("the crew ends threads"),
        }
        #[cfg(debug_assertions)]
        self.heap.debug_validate();
    }

    /// Reclaims what no guard keeps.
    pub(super) fn collect(&mut self) {
        self.retired.clear();
        for _ in 0..GRACE_STEPS {
            if self.heap.snapshot().bytes.retired == 0 {
                break;
            }
            self.heap.advance();
            self.heap.collect();
        }
        self.heap.scavenge();
    }

    /// Holds the heap's books against the model. Nothing is on its way and no guard is held.
    pub(super) fn check_books(&self) {
        let snapshot = self.heap.snapshot();
        let bytes = &snapshot.bytes;
        assert_eq!(bytes.residual(), 0, "{bytes:?}");
        assert_eq!(bytes.retired, 0, "{bytes:?}");
        assert_eq!(bytes.live, self.heap.live_bytes());
        assert_eq!(snapshot.deferred_blocks(), 0, "{:?}", snapshot.remote);
        assert_eq!(snapshot.remote.outbox_bytes, 0, "{:?}", snapshot.remote);
        let fallback = &snapshot.fallback;
        let large: Vec<usize> = self
            .live
            .values()
            .filter(|block| self.is_large(block.layout))
            .map(|block| block.layout.size())
            .collect();
        assert_eq!(fallback.allocs - fallback.frees, large.len() as u64, "{fallback:?}");
        assert_eq!(fallback.live_bytes, large.iter().sum::<usize>() as u64, "{fallback:?}");
        let in_classes: u64 = snapshot.classes.iter().map(|class| class.in_use).sum();
        assert_eq!(in_classes, (self.live.len() - large.len()) as u64);
        let usable: usize = self
            .live
            .values()
            .filter(|block| !self.is_large(block.layout))
            .map(|block| self.usable(block.start))
            .sum();
        assert_eq!(bytes.live, usable as u64 + fallback.live_bytes);
        for class in &snapshot.classes {
            assert_eq!(class.allocs - class.frees, class.in_use, "{class:?}");
            assert!(class.in_use <= class.high_water || class.high_water == 0, "{class:?}");
        }
    }

    fn snapshot(&self) {
        let snapshot = self.heap.snapshot();
        let bytes = &snapshot.bytes;
        assert_eq!(bytes.residual(), 0, "{bytes:?}");
        let asked: usize = self.live.values().map(|block| block.layout.size()).sum();
        assert!(bytes.live >= asked as u64, "{bytes:?}, asked for {asked}");
        // Active slabs count whole, with the parts of them that have no pages and are retained.
        let there = bytes.mapped + bytes.retained;
        assert!(bytes.active >= bytes.live && there >= bytes.active, "{bytes:?}");
    }

    fn alloc(&mut self, layout: Layout, zeroed: bool) {
        if self.live_bytes + layout.size() > LIVE_MAX {
            return;
        }
        let got =
            if zeroed { self.heap.try_alloc_zeroed(layout) } else { self.heap.try_alloc(layout) };
        match got {
            Ok(start) => {
                if zeroed {
                    // SAFETY: the block holds its layout.
                    let found =
                        unsafe { std::slice::from_raw_parts(start.as_ptr(), layout.size()) };
                    assert!(found.iter().all(|&byte| byte == 0), "not zeroed: {layout:?}");
                }
                self.insert(start, layout);
            }
            Err(error) => {
                assert!(self.limited, "{error}");
                assert_eq!(error.layout(), layout);
            }
        }
    }

    fn resize(&mut self, which: u16, new: Layout) {
        let Some(block) = self.take(which) else { return };
        let Block { start, layout: old, seed } = block;
        if self.live_bytes + new.size() > LIVE_MAX {
            self.put(block);
            return;
        }
        // SAFETY: the block is live with this layout; at its old place it is not used again.
        match unsafe { self.heap.try_realloc(start, old, new) } {
            Ok(start) => {
                Block { start, layout: old, seed }.check(old.size().min(new.size()));
                self.insert(start, new);
            }
            Err(error) => {
                assert!(self.limited, "{error}");
                block.check(old.size());
                self.put(block);
            }
        }
    }

    fn free(&mut self, which: u16) {
        let Some(block) = self.take(which) else { return };
        if self.heap.retires_frees() {
            self.keep(block);
        }
        // SAFETY: taken out of the model: given up once, with its layout.
        unsafe { self.heap.dealloc(block.start, block.layout) };
    }

    fn retire(&mut self, which: u16) {
        let Some(block) = self.take(which) else { return };
        self.keep(block);
        // SAFETY: taken out of the model: given up once.
        unsafe { self.heap.retire_here(block.start) };
    }

    /// Notes a block that the guards of this moment keep.
    fn keep(&mut self, block: Block) {
        let keepers: BTreeSet<usize> =
            (0..self.guards.len()).filter(|&thread| self.guards[thread] > 0).collect();
        if !keepers.is_empty() {
            self.retired.push(Retired { block, keepers });
        }
    }

    /// A thread is about to hold no guard any more: until now what it kept is as it was.
    fn release(&mut self, thread: usize) {
        for retired in &mut self.retired {
            if retired.keepers.remove(&thread) {
                retired.block.check(retired.block.layout.size());
            }
        }
        self.retired.retain(|retired| !retired.keepers.is_empty());
    }

    /// Takes a fresh block in and gives it contents of its own.
    fn insert(&mut self, start: NonNull<u8>, layout: Layout) {
        let from = start.addr().get();
        assert_eq!(from % layout.align(), 0, "{start:p} for {layout:?}");
        if layout.size() == 0 {
            return;
        }
        let usable = self.usable(start);
        assert!(usable >= layout.size(), "{usable} for {layout:?}");
        let overlaps = |other: &Block| {
            let at = other.start.addr().get();
            at < from + usable && from < at + other.layout.size()
        };
        let below = self.live.range(..=from).next_back().map(|(_, block)| block);
        let above = self.live.range(from..).next().map(|(_, block)| block);
        assert!(!below.into_iter().chain(above).any(overlaps), "{start:p} overlaps a live block");
        assert!(
            !self.retired.iter().any(|retired| overlaps(&retired.block)),
            "{start:p} was handed out under a guard that keeps it"
        );
        self.seed = self.seed.wrapping_add(37);
        let block = Block { start, layout, seed: self.seed };
        block.fill();
        self.put(block);
    }

    fn put(&mut self, block: Block) {
        self.live_bytes += block.layout.size();
        self.live.insert(block.start.addr().get(), block);
    }

    /// Takes a live block out, its contents checked.
    fn take(&mut self, which: u16) -> Option<Block> {
        let block = self.live.remove(&self.pick(which)?)?;
        block.check(block.layout.size());
        self.live_bytes -= block.layout.size();
        Some(block)
    }

    fn pick(&self, which: u16) -> Option<usize> {
        self.live.keys().nth(usize::from(which) % self.live.len().max(1)).copied()
    }

    /// Whether no class serves a layout.
    fn is_large(&self, layout: Layout) -> bool {
        let table = self.table.unwrap_or(ClassTable::standard());
        table.block_bytes_for(layout.size(), layout.align()).is_none()
    }

    fn usable(&self, start: NonNull<u8>) -> usize {
        self.heap.usable_size(start.as_ptr()).expect("a live block is the heap's")
    }
}

impl Block {
    fn fill(&self) {
        for at in offsets(self.layout.size()) {
            // SAFETY: within the block, which is live.
            unsafe { self.start.add(at).write(self.seed.wrapping_add(at as u8)) };
        }
    }

    /// Checks the first `bytes` bytes.
    fn check(&self, bytes: usize) {
        for at in offsets(self.layout.size()).take_while(|&at| at < bytes) {
            // SAFETY: within the block, which is live or kept.
            let found = unsafe { self.start.add(at).read() };
            assert_eq!(found, self.seed.wrapping_add(at as u8), "byte {at} of {:?}", self.layout);
        }
    }
}

/// Offsets that are written and checked, ascending: both ends densely, one for each page between.
fn offsets(bytes: usize) -> impl Iterator<Item = usize> {
    let tail = bytes.saturating_sub(64).max(64);
    (0..bytes.min(64)).chain((64..tail).step_by(4096)).chain(tail..bytes)
}

fn layout(bytes: usize, align: usize) -> Layout {
    Layout::from_size_align(bytes, align).expect("sizes and alignments are small")
}
