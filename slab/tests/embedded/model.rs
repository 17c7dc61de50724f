//! Any sequence of operations over any buffer, against a model of live blocks.

use std::alloc::Layout;
use std::ptr::NonNull;

use flagstone_slab::embedded::EmbeddedHeap;
use proptest::prelude::*;

use crate::buffer::{Buffer, layout};

#[derive(Clone, Debug)]
enum Step {
    Alloc { bytes: usize, align: u32, zeroed: bool },
    Resize { which: usize, bytes: usize, align: u32 },
    Free { which: usize },
}

struct Block {
    start: NonNull<u8>,
    layout: Layout,
    mark: u8,
}

fn bytes() -> impl Strategy<Value = usize> {
    prop_oneof![
        1 => Just(0usize),
        10 => 1usize..300,
        4 => 300usize..2_100,
        3 => 2_100usize..20_000,
        1 => 20_000usize..200_000,
    ]
}

fn align() -> impl Strategy<Value = u32> {
    prop_oneof![6 => 0u32..5, 1 => 5u32..14]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (bytes(), align(), any::<bool>())
            .prop_map(|(bytes, align, zeroed)| Step::Alloc { bytes, align, zeroed }),
        2 => (any::<usize>(), bytes(), align())
            .prop_map(|(which, bytes, align)| Step::Resize { which, bytes, align }),
        3 => any::<usize>().prop_map(|which| Step::Free { which }),
    ]
}

fn contents(block: &Block) -> &[u8] {
    // SAFETY: the block is in use, and was written when it was handed out.
    unsafe { std::slice::from_raw_parts(block.start.as_ptr(), block.layout.size()) }
}

fn write(start: NonNull<u8>, layout: Layout, mark: u8) -> Block {
    // SAFETY: just handed out with this layout.
    unsafe { start.write_bytes(mark, layout.size()) };
    Block { start, layout, mark }
}

fn check_new(new: &Block, live: &[Block], buffer: &Buffer) {
    assert!(new.start.addr().get().is_multiple_of(new.layout.align()));
    if new.layout.size() == 0 {
        return;
    }
    assert!(buffer.holds(new.start, new.layout.size()));
    let (start, bytes) = (new.start.addr().get(), new.layout.size());
    for other in live.iter().filter(|other| other.layout.size() > 0) {
        let (at, length) = (other.start.addr().get(), other.layout.size());
        assert!(start + bytes <= at || at + length <= start, "two blocks overlap");
    }
}

fn run(heap: &EmbeddedHeap, buffer: &Buffer, steps: Vec<Step>) {
    let mut live: Vec<Block> = Vec::new();
    for (number, step) in steps.into_iter().enumerate() {
        let mark = number as u8;
        match step {
            Step::Alloc { bytes, align, zeroed } => {
                let layout = layout(bytes, 1 << align);
                let before = heap.stats();
                let got =
                    if zeroed { heap.try_alloc_zeroed(layout) } else { heap.try_alloc(layout) };
                let Ok(start) = got else {
                    let after = heap.stats();
                    assert_eq!((after.live, after.failures), (before.live, before.failures + 1));
                    let small = bytes + (1 << align) <= 512;
                    assert!(!small || before.live > 0, "an empty heap has room for a small block");
                    continue;
                };
                if zeroed {
                    // SAFETY: just handed out.
                    let seen = unsafe { std::slice::from_raw_parts(start.as_ptr(), bytes) };
                    assert!(seen.iter().all(|&byte| byte == 0));
                }
                let new = write(start, layout, mark);
                check_new(&new, &live, buffer);
                live.push(new);
            }
            Step::Resize { which, bytes, align } if !live.is_empty() => {
                let which = which % live.len();
                let (start, old) = (live[which].start, live[which].layout);
                let new = layout(bytes, 1 << align);
                // SAFETY: a live block with its layout.
                match unsafe { heap.try_realloc(start, old, new) } {
                    Ok(moved) => {
                        let kept = old.size().min(new.size());
                        // SAFETY: the new block, of which so much was written.
                        let seen = unsafe { std::slice::from_raw_parts(moved.as_ptr(), kept) };
                        assert!(seen.iter().all(|&byte| byte == live[which].mark));
                        live.swap_remove(which);
                        let new = write(moved, new, mark);
                        check_new(&new, &live, buffer);
                        live.push(new);
                    }
                    Err(_) => assert!(
                        new.size() > old.size() || new.align() > old.align(),
                        "shrinking does not fail"
                    ),
                }
            }
            Step::Free { which } if !live.is_empty() => {
                let block = live.swap_remove(which % live.len());
                assert!(contents(&block).iter().all(|&byte| byte == block.mark));
                // SAFETY: a live block with its layout.
                unsafe { heap.dealloc(block.start, block.layout) };
            }
            Step::Resize { .. } | Step::Free { .. } => {}
        }
        if number % 16 == 0 {
            heap.debug_validate();
            assert!(heap.stats().live >= live.iter().map(|block| block.layout.size()).sum());
        }
    }
    for block in live.drain(..) {
        assert!(contents(&block).iter().all(|&byte| byte == block.mark));
        // SAFETY: as above.
        unsafe { heap.dealloc(block.start, block.layout) };
    }
    heap.debug_validate();
    let stats = heap.stats();
    assert_eq!((stats.live, stats.allocs), (0, stats.frees));
    buffer.check_guards();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn blocks_are_apart_aligned_and_keep_their_contents(
        kib in 64usize..=1024,
        odd in 0usize..4096,
        offset in 0usize..8192,
        steps in proptest::collection::vec(step(), 1..600),
    ) {
        // Most buffers small, so that most runs meet their end.
        let kib = 64 + (kib - 64) * (kib - 64) / 960;
        let mut buffer = Buffer::new((kib << 10) + odd, offset);
        let heap = buffer.heap().expect("large enough");
        run(&heap, &buffer, steps);
    }
}
