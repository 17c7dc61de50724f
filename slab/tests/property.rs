//! Any sequence of operations leaves the heap as a model of live blocks says: no two overlap, each
//! is aligned, keeps its contents, starts as zeros when asked for, and the books are exact.

mod common;

use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;

use flagstone_slab::{Flagstone, Heap};
use proptest::prelude::*;

/// What the tests allocate comes from here by calls; the test program itself uses the system's, so
/// that the heap's figures are the script's and nobody else's.
static HEAP: Flagstone = Flagstone::new();

/// The figures are the process's: one test at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// As many zeros as the largest block has bytes, to compare with at one go.
static ZEROS: [u8; 10 << 20] = [0; 10 << 20];

#[derive(Clone, Debug)]
enum Step {
    Alloc { bytes: usize, align: usize, zeroed: bool },
    Resize { which: usize, bytes: usize },
    Free { which: usize },
    FreeElsewhere { which: usize, count: usize },
    Park,
    GiveBack,
    Flush,
    Scavenge,
    Purge,
}

fn bytes() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 1usize..300,
        4 => 300usize..9_000,
        2 => 9_000usize..140_000,
        2 => 140_000usize..(530 << 10),
        1 => (500usize << 10)..(9 << 20),
        // Around the edges between classes, tiers, slices and segments.
        2 => (prop::sample::select(vec![128usize, 1 << 10, 4 << 10, 8 << 10, 64 << 10, 512 << 10, 4 << 20]), 0usize..3)
            .prop_map(|(edge, off)| edge + off - 1),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let align = prop_oneof![
        8 => (0u32..5).prop_map(|shift| 1 << shift),
        2 => (5u32..18).prop_map(|shift| 1 << shift),
        1 => (18u32..25).prop_map(|shift| 1 << shift),
    ];
    prop_oneof![
        10 => (bytes(), align, any::<bool>())
            .prop_map(|(bytes, align, zeroed)| Step::Alloc { bytes, align, zeroed }),
        5 => (any::<usize>(), bytes()).prop_map(|(which, bytes)| Step::Resize { which, bytes }),
        5 => any::<usize>().prop_map(|which| Step::Free { which }),
        1 => (any::<usize>(), 1usize..40)
            .prop_map(|(which, count)| Step::FreeElsewhere { which, count }),
        1 => Just(Step::Park),
        1 => Just(Step::GiveBack),
        1 => Just(Step::Flush),
        1 => Just(Step::Scavenge),
        1 => Just(Step::Purge),
    ]
}

struct Block {
    layout: Layout,
    seed: u8,
}

/// Live blocks by address.
#[derive(Default)]
struct Model {
    live: BTreeMap<usize, Block>,
    seed: u8,
}

fn at(address: usize) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(address)
}

/// Offsets that are written and checked: both ends densely, one per page between.
fn offsets(bytes: usize) -> impl Iterator<Item = usize> {
    (0..bytes.min(64)).chain((64..bytes).step_by(4096)).chain(bytes.saturating_sub(64)..bytes)
}

impl Model {
    fn pick(&self, which: usize) -> Option<usize> {
        let n = self.live.len();
        (n > 0).then(|| *self.live.keys().nth(which % n).unwrap())
    }

    /// Takes a block into the model: it must overlap no other, and gets contents of its own.
    fn insert(&mut self, block: *mut u8, layout: Layout) {
        let address = block.expose_provenance();
        assert_eq!(address % layout.align(), 0, "{layout:?}");
        let usable = Heap::global().usable_size(block).expect("the block is the heap's");
        assert!(usable >= layout.size(), "{usable} for {layout:?}");
        if let Some((&below, other)) = self.live.range(..=address).next_back() {
            assert!(below + other.layout.size() <= address, "overlaps the block below");
        }
        if let Some((&above, _)) = self.live.range(address..).next() {
            assert!(address + usable <= above, "overlaps the block above");
        }
        self.seed = self.seed.wrapping_add(37);
        for i in offsets(layout.size()) {
            // SAFETY: within the block.
            unsafe { block.add(i).write(self.seed.wrapping_add(i as u8)) };
        }
        self.live.insert(address, Block { layout, seed: self.seed });
    }

    /// Takes a block out of the model, its contents checked.
    fn remove(&mut self, address: usize) -> Layout {
        let block = self.live.remove(&address).unwrap();
        for i in offsets(block.layout.size()) {
            // SAFETY: within the block.
            let byte = unsafe { at(address).add(i).read() };
            assert_eq!(byte, block.seed.wrapping_add(i as u8), "byte {i} of {:?}", block.layout);
        }
        block.layout
    }

    fn run(&mut self, step: Step) {
        let heap = Heap::global();
        match step {
            Step::Alloc { bytes, align, zeroed } => {
                let layout = Layout::from_size_align(bytes, align).unwrap();
                // SAFETY: the layout is not empty; what is read was asked for.
                let block = unsafe {
                    if zeroed {
                        let block = HEAP.alloc_zeroed(layout);
                        let found = std::slice::from_raw_parts(block, bytes);
                        assert!(*found == ZEROS[..bytes], "zeroed means zero");
                        block
                    } else {
                        HEAP.alloc(layout)
                    }
                };
                assert!(!block.is_null());
                self.insert(block, layout);
            }
            Step::Resize { which, bytes } => {
                let Some(address) = self.pick(which) else { return };
                let old = self.live[&address].layout;
                let kept: Vec<usize> = offsets(old.size()).filter(|&i| i < bytes).collect();
                let seed = self.live[&address].seed;
                self.remove(address);
                // SAFETY: the block is live with this layout.
                let block = unsafe { HEAP.realloc(at(address), old, bytes) };
                assert!(!block.is_null());
                for i in kept {
                    // SAFETY: within the block.
                    let byte = unsafe { block.add(i).read() };
                    assert_eq!(byte, seed.wrapping_add(i as u8), "byte {i}, {old:?} to {bytes}");
                }
                self.insert(block, Layout::from_size_align(bytes, old.align()).unwrap());
            }
            Step::Free { which } => {
                let Some(address) = self.pick(which) else { return };
                let layout = self.remove(address);
                // SAFETY: the block is live with this layout, and freed once.
                unsafe { HEAP.dealloc(at(address), layout) };
            }
            Step::FreeElsewhere { which, count } => {
                let mut given = Vec::new();
                for i in 0..count {
                    let Some(address) = self.pick(which.wrapping_add(i)) else { break };
                    given.push((address, self.remove(address)));
                }
                let freer = move || {
                    for (address, layout) in given {
                        // SAFETY: as above.
                        unsafe { HEAP.dealloc(at(address), layout) };
                    }
                };
                thread::spawn(freer).join().unwrap();
            }
            Step::Park => flagstone_slab::thread::park(),
            Step::GiveBack => flagstone_slab::thread::give_back(),
            Step::Flush => flagstone_slab::thread::flush(),
            Step::Scavenge => _ = heap.scavenge(),
            Step::Purge => _ = heap.purge(),
        }
    }
}

/// Blocks in use and bytes of blocks of their own, as the heap counts them when nothing is on its
/// way.
fn counted() -> (u64, u64, u64) {
    let heap = Heap::global();
    // The first visit posts what a shard gathered, maybe to one that was visited before.
    flagstone_slab::thread::flush();
    heap.scavenge();
    heap.scavenge();
    flagstone_slab::thread::flush();
    let snapshot = heap.snapshot();
    assert_eq!(snapshot.bytes.residual(), 0, "{:?}", snapshot.bytes);
    assert_eq!(snapshot.bytes.live, heap.live_bytes());
    assert_eq!(snapshot.deferred_blocks(), 0, "{:?}", snapshot.remote);
    assert_eq!(snapshot.remote.outbox_bytes, 0);
    let in_use = snapshot.classes.iter().map(|class| class.in_use).sum();
    let fallback = &snapshot.fallback;
    (in_use, fallback.allocs - fallback.frees, fallback.live_bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_script_of_operations_leaves_what_the_model_says(
        steps in prop::collection::vec(step(), 1..250),
    ) {
        let _alone = common::alone(&ONE_AT_A_TIME);
        prop_assert_eq!(counted(), (0, 0, 0), "before the script");
        let mut model = Model::default();
        for step in steps {
            model.run(step);
            #[cfg(debug_assertions)]
            Heap::global().debug_validate();
        }
        let (blocks, apart, apart_bytes) = counted();
        prop_assert_eq!(blocks + apart, model.live.len() as u64);
        let by_model: usize = model
            .live
            .values()
            .map(|block| block.layout)
            .filter(|layout| layout.size() > 512 << 10 || layout.align() > 64 << 10)
            .map(|layout| layout.size())
            .sum();
        prop_assert_eq!(apart_bytes, by_model as u64);
        for address in model.live.keys().copied().collect::<Vec<_>>() {
            let layout = model.remove(address);
            // SAFETY: the block is live with this layout, and freed once.
            unsafe { HEAP.dealloc(at(address), layout) };
        }
        prop_assert_eq!(counted(), (0, 0, 0), "after the script");
    }
}
