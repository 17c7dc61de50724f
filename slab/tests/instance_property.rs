//! Instances of any class table under any sequence of operations, against a model of live blocks: no
//! two overlap, each is aligned, keeps its contents, starts as zeros when asked for; the books are
//! exact, and the end gives everything back.

mod common;

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::Arc;
use std::thread;

use flagstone_slab::port::{OsPages, System, Tracing};
use flagstone_slab::{ClassTable, Heap};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Alloc { bytes: usize, align: usize, zeroed: bool },
    Resize { which: usize, bytes: usize, align: usize },
    Free { which: usize },
    FreeElsewhere { which: usize, count: usize },
    Park,
    GiveBack,
    Scavenge,
    Purge,
}

#[derive(Clone, Copy, Debug)]
enum Shards {
    OnDemand,
    Fixed(usize),
}

fn table() -> impl Strategy<Value = ClassTable> {
    let sizes = prop_oneof![
        3 => prop::collection::btree_set(2usize..=64, 1..12),
        2 => prop::collection::btree_set(2usize..=4096, 1..30),
        1 => prop::collection::btree_set(2usize..=ClassTable::LARGEST / 8, 1..ClassTable::MOST),
    ];
    let random = sizes.prop_map(|words| {
        let sizes: Vec<usize> = words.into_iter().map(|words| words * 8).collect();
        ClassTable::new(&sizes).expect("ascending multiples of 8")
    });
    prop_oneof![
        4 => random,
        1 => Just(ClassTable::SMALL_POOL),
        1 => Just(ClassTable::SMALL_OBJECTS),
        1 => Just(ClassTable::standard()),
    ]
}

fn bytes() -> impl Strategy<Value = usize> {
    prop_oneof![
        1 => Just(0usize),
        8 => 1usize..300,
        4 => 300usize..5_000,
        2 => 5_000usize..100_000,
        1 => 100_000usize..(1 << 20),
    ]
}

fn align() -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => (0u32..5).prop_map(|shift| 1usize << shift),
        2 => (5u32..18).prop_map(|shift| 1 << shift),
        1 => (18u32..24).prop_map(|shift| 1 << shift),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (bytes(), align(), any::<bool>())
            .prop_map(|(bytes, align, zeroed)| Step::Alloc { bytes, align, zeroed }),
        6 => (any::<usize>(), bytes(), align())
            .prop_map(|(which, bytes, align)| Step::Resize { which, bytes, align }),
        5 => any::<usize>().prop_map(|which| Step::Free { which }),
        1 => (any::<usize>(), 1usize..30)
            .prop_map(|(which, count)| Step::FreeElsewhere { which, count }),
        1 => Just(Step::Park),
        1 => Just(Step::GiveBack),
        1 => Just(Step::Scavenge),
        1 => Just(Step::Purge),
    ]
}

struct Block {
    layout: Layout,
    seed: u8,
    start: NonNull<u8>,
}

// SAFETY: a block is in one thread's hands at a time.
unsafe impl Send for Block {}

impl Block {
    /// Fills the block from `from` on with what belongs there.
    fn fill(&self, from: usize) {
        for at in from..self.layout.size() {
            // SAFETY: within the block, which is live.
            unsafe { self.start.add(at).write(self.seed.wrapping_add(at as u8)) };
        }
    }

    /// Checks the first `bytes` bytes.
    fn check(&self, bytes: usize) {
        for at in 0..bytes {
            // SAFETY: as above.
            let found = unsafe { self.start.add(at).read() };
            assert_eq!(found, self.seed.wrapping_add(at as u8), "byte {at} of {:?}", self.layout);
        }
    }
}

struct Model<'h> {
    heap: &'h Heap,
    /// By number, so that blocks of no bytes, whose addresses mean nothing, are in it too.
    live: BTreeMap<u64, Block>,
    next: u64,
}

impl Model<'_> {
    fn add(&mut self, start: NonNull<u8>, layout: Layout) {
        assert!(start.addr().get().is_multiple_of(layout.align()), "{start:p} for {layout:?}");
        let (from, to) = (start.addr().get(), start.addr().get() + layout.size());
        for other in self.live.values().filter(|other| other.layout.size() > 0) {
            let at = other.start.addr().get();
            assert!(to <= at || at + other.layout.size() <= from || layout.size() == 0, "overlap");
        }
        let block = Block { layout, seed: self.next as u8, start };
        block.fill(0);
        self.live.insert(self.next, block);
        self.next += 1;
    }

    fn take(&mut self, which: usize) -> Option<Block> {
        let number = *self.live.keys().nth(which % self.live.len().max(1))?;
        self.live.remove(&number)
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Alloc { bytes, align, zeroed } => {
                let layout = Layout::from_size_align(bytes, align).unwrap();
                let start = if zeroed {
                    let start = self.heap.try_alloc_zeroed(layout).unwrap();
                    // SAFETY: the block holds its layout.
                    assert!((0..bytes).all(|at| unsafe { start.add(at).read() } == 0));
                    start
                } else {
                    self.heap.try_alloc(layout).unwrap()
                };
                self.add(start, layout);
            }
            Step::Resize { which, bytes, align } => {
                let Some(block) = self.take(which) else { return };
                let layout = Layout::from_size_align(bytes, align).unwrap();
                // SAFETY: the block is live with this layout and not used again.
                let start =
                    unsafe { self.heap.try_realloc(block.start, block.layout, layout) }.unwrap();
                let moved = Block { layout, seed: block.seed, start };
                moved.check(bytes.min(block.layout.size()));
                self.add(start, layout);
            }
            Step::Free { which } => {
                let Some(block) = self.take(which) else { return };
                self.free(block);
            }
            Step::FreeElsewhere { which, count } => {
                let blocks: Vec<Block> =
                    (0..count).map_while(|i| self.take(which.wrapping_add(i))).collect();
                thread::scope(|scope| {
                    let heap = self.heap;
                    scope.spawn(move || {
                        for block in blocks {
                            block.check(block.layout.size());
                            // SAFETY: taken out of the model, freed once.
                            unsafe { heap.dealloc(block.start, block.layout) };
                        }
                        flagstone_slab::thread::give_back();
                    });
                });
            }
            Step::Park => flagstone_slab::thread::park(),
            Step::GiveBack => flagstone_slab::thread::give_back(),
            Step::Scavenge => {
                self.heap.scavenge();
            }
            Step::Purge => {
                self.heap.purge();
            }
        }
    }

    fn free(&self, block: Block) {
        block.check(block.layout.size());
        // SAFETY: taken out of the model, freed once.
        unsafe { self.heap.dealloc(block.start, block.layout) };
    }

    fn end(mut self) {
        while let Some((_, block)) = self.live.pop_first() {
            self.free(block);
        }
        flagstone_slab::thread::flush();
        let snapshot = self.heap.snapshot();
        assert_eq!(snapshot.bytes.live, 0);
        assert_eq!(snapshot.bytes.residual(), 0);
        #[cfg(debug_assertions)]
        self.heap.debug_validate();
    }
}

proptest! {
    #![proptest_config(common::cases(if cfg!(miri) { 4 } else { 48 }))]

    // requirement: D2, D3, D5
    #[test]
    fn any_heap_does_as_the_model_says_and_gives_everything_back(
        table in table(),
        shards in prop_oneof![Just(Shards::OnDemand), (0usize..3).prop_map(Shards::Fixed)],
        steps in prop::collection::vec(step(), 1..160),
        of_the_system: bool,
        forgotten in 0usize..4,
    ) {
        // Two backings: one that moves pages and takes parts back, one that does neither.
        let pages = Arc::new(Tracing::new(OsPages));
        let system = Arc::new(Tracing::new(System::SYSTEM));
        let mut builder = Heap::builder().class_table(table);
        builder = match shards {
            Shards::OnDemand => builder,
            Shards::Fixed(count) => builder.shards(count),
        };
        let run = |heap: &Heap| {
            let mut model = Model { heap, live: BTreeMap::new(), next: 0 };
            for step in steps {
                model.run(step);
            }
            // What is still out when the heap goes, goes with it.
            for _ in 0..forgotten {
                model.heap.try_alloc(Layout::from_size_align(100 << forgotten, 8).unwrap()).unwrap();
            }
            if forgotten == 0 {
                model.end();
            }
        };
        if of_the_system {
            run(&builder.backing(Arc::clone(&system)).build().unwrap());
        } else {
            run(&builder.backing(Arc::clone(&pages)).build().unwrap());
        }
        pages.assert_nothing_outstanding();
        system.assert_nothing_outstanding();
    }
}
