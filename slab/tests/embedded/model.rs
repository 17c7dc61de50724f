//! Any sequence of operations over any buffer, against a model of live blocks. What the heap refuses, there
//! is no room for: nowhere, by what the model knows of the buffer.

use std::alloc::Layout;
use std::ops::Range;
use std::ptr::NonNull;

use flagstone_slab::embedded::{EmbeddedHeap, EmbeddedStats};
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
    /// Bytes that the heap counts for it: a class's size, or whole grains.
    held: usize,
}

impl Block {
    fn span(&self) -> Range<usize> {
        let start = self.start.addr().get();
        start..start + self.held
    }
}

/// Bytes of a slab.
const SLICE: usize = 4096;
/// What ranges are multiples of.
const GRAIN: usize = 512;
/// What slabs serve is at most so large, and so aligned.
const SMALL: usize = 2048;
/// Classes whose blocks could be ranges, by their size.
const WHOLE_GRAINS: [usize; 3] = [512, 1024, 2048];

/// Where a request could be served, if anywhere the model is sure of. The heap serves it if there is a
/// block of its class or a larger one, a slice for another slab, or a range, once empty slabs have gone
/// back: so it may refuse what has no such place, and nothing else.
fn room_for(layout: Layout, live: &[Block], region: Range<usize>) -> Option<String> {
    let (bytes, align) = (layout.size(), layout.align());
    let is_small = bytes <= SMALL && align <= SMALL;
    let mut spans: Vec<_> = live.iter().filter(|block| block.held > 0).map(Block::span).collect();
    spans.sort_by_key(|span| span.start);
    // From a slice's bound, so that slices are runs of grains; what is not the region's is not free.
    let base = region.start & !(SLICE - 1);
    let grain_of = |address: usize| (address - base) / GRAIN;
    let address_of = |grain: usize| base + grain * GRAIN;
    let slice_of = |grain: usize| grain / (SLICE / GRAIN);
    let grains = grain_of(region.end);
    let mut free: Vec<bool> = (0..grains).map(|grain| address_of(grain) >= region.start).collect();
    // Slices that hold blocks which may be a slab's, and no range that shows them to be none.
    let mut slabs = vec![false; slice_of(grains) + 1];
    for span in &spans {
        let ours = grain_of(span.start)..grain_of(span.end - 1) + 1;
        let is_range = span.len().is_multiple_of(GRAIN) && !WHOLE_GRAINS.contains(&span.len());
        slabs[slice_of(ours.start)] |= !is_range;
        free[ours].fill(false);
    }
    for span in spans.iter().filter(|span| span.len() > SMALL) {
        slabs[slice_of(grain_of(span.start))..=slice_of(grain_of(span.end - 1))].fill(false);
    }
    let range = |need: usize, align: usize| {
        let mut run = None;
        (0..grains).find_map(|grain| {
            if !free[grain] || slabs[slice_of(grain)] {
                run = None;
                return None;
            }
            let place = address_of(*run.get_or_insert(grain)).next_multiple_of(align);
            (place + need <= address_of(grain + 1)).then(|| format!("{need} free at {place:#x}"))
        })
    };
    let found = range(bytes.next_multiple_of(GRAIN), align.max(GRAIN));
    if found.is_some() || !is_small {
        return found;
    }
    // One block of a slab tells of all of it.
    let slice = |span: &Range<usize>| span.start & !(SLICE - 1);
    range(SLICE, SLICE).or_else(|| {
        spans.chunk_by(|a, b| slice(a) == slice(b)).find_map(|slab| {
            let (slice, held) = (slice(&slab[0]), slab[0].len());
            if !slabs[slice_of(grain_of(slice))] || held < bytes || !held.is_multiple_of(align) {
                return None;
            }
            if held.is_multiple_of(GRAIN) {
                // Of this class or beside a range of grains: either way a free grain serves a grain.
                let mut grains = grain_of(slice)..(grain_of(slice) + SLICE / GRAIN).min(grains);
                let grain =
                    grains.find(|&grain| free[grain] && bytes <= GRAIN && align <= GRAIN)?;
                return Some(format!("a free grain at {:#x}", address_of(grain)));
            }
            let mut blocks = (0..SLICE / held).map(|at| slice + at * held);
            let is_live =
                |start: &usize| slab.binary_search_by_key(start, |span| span.start).is_ok();
            let block = blocks.find(|start| !is_live(start))?;
            Some(format!("a free block of {held} at {block:#x}"))
        })
    })
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

fn write(start: NonNull<u8>, layout: Layout, mark: u8, held: usize) -> Block {
    // SAFETY: just handed out with this layout.
    unsafe { start.write_bytes(mark, layout.size()) };
    assert!(held >= layout.size());
    Block { start, layout, mark, held }
}

/// The heap has refused a request: so it may only if there is no room.
fn check_refused(refused: Layout, before: EmbeddedStats, heap: &EmbeddedHeap, model: &Model<'_>) {
    let after = heap.stats();
    assert_eq!((after.live, after.failures), (before.live, before.failures + 1));
    let room = room_for(refused, &model.live, model.region(after));
    assert_eq!(room, None, "{refused:?} was refused: {after:?}");
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

/// What is in use of a buffer.
struct Model<'b> {
    live: Vec<Block>,
    buffer: &'b Buffer,
}

impl Model<'_> {
    /// The whole grains of the buffer that the heap's table leaves; it lies at the high end.
    fn region(&self, stats: EmbeddedStats) -> Range<usize> {
        let span = self.buffer.span();
        let end = span.end & !(GRAIN - 1);
        span.start.next_multiple_of(GRAIN)..end - stats.metadata
    }
}

fn run(heap: &EmbeddedHeap, buffer: &Buffer, steps: Vec<Step>) {
    let mut model = Model { live: Vec::new(), buffer };
    for (number, step) in steps.into_iter().enumerate() {
        let mark = number as u8;
        match step {
            Step::Alloc { bytes, align, zeroed } => {
                let layout = layout(bytes, 1 << align);
                let before = heap.stats();
                let got =
                    if zeroed { heap.try_alloc_zeroed(layout) } else { heap.try_alloc(layout) };
                let Ok(start) = got else {
                    check_refused(layout, before, heap, &model);
                    continue;
                };
                if zeroed {
                    // SAFETY: just handed out.
                    let seen = unsafe { std::slice::from_raw_parts(start.as_ptr(), bytes) };
                    assert!(seen.iter().all(|&byte| byte == 0));
                }
                let new = write(start, layout, mark, heap.stats().live - before.live);
                check_new(&new, &model.live, buffer);
                model.live.push(new);
            }
            Step::Resize { which, bytes, align } if !model.live.is_empty() => {
                let which = which % model.live.len();
                let (start, old) = (model.live[which].start, model.live[which].layout);
                let new = layout(bytes, 1 << align);
                let before = heap.stats();
                // SAFETY: a live block with its layout.
                match unsafe { heap.try_realloc(start, old, new) } {
                    Ok(moved) => {
                        let kept = old.size().min(new.size());
                        // SAFETY: the new block, of which so much was written.
                        let seen = unsafe { std::slice::from_raw_parts(moved.as_ptr(), kept) };
                        let was = model.live.swap_remove(which);
                        assert!(seen.iter().all(|&byte| byte == was.mark));
                        let new =
                            write(moved, new, mark, heap.stats().live + was.held - before.live);
                        check_new(&new, &model.live, buffer);
                        model.live.push(new);
                    }
                    Err(_) => {
                        assert!(
                            new.size() > old.size() || new.align() > old.align(),
                            "shrinking does not fail"
                        );
                        check_refused(new, before, heap, &model);
                    }
                }
            }
            Step::Free { which } if !model.live.is_empty() => {
                let block = model.live.swap_remove(which % model.live.len());
                assert!(contents(&block).iter().all(|&byte| byte == block.mark));
                // SAFETY: a live block with its layout.
                unsafe { heap.dealloc(block.start, block.layout) };
            }
            Step::Resize { .. } | Step::Free { .. } => {}
        }
        if number % 16 == 0 {
            heap.debug_validate();
            assert_eq!(heap.stats().live, model.live.iter().map(|block| block.held).sum::<usize>());
        }
    }
    for block in model.live.drain(..) {
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

/// What the model's word on refusals is worth: of a full heap it says that there is no room, and as soon as
/// a block of the size is back, whichever it is, that there is.
#[test]
fn the_model_knows_when_there_is_room() {
    for (bytes, align) in
        [(16, 8), (24, 8), (100, 4), (400, 16), (512, 512), (3_000, 8), (9_000, 8)]
    {
        let mut buffer = Buffer::new(64 << 10, 100);
        let heap = buffer.heap().expect("large enough");
        let mut model = Model { live: Vec::new(), buffer: &buffer };
        let layout = layout(bytes, align);
        let region = model.region(heap.stats());
        assert!(room_for(layout, &model.live, region.clone()).is_some());
        loop {
            let before = heap.stats();
            let Ok(start) = heap.try_alloc(layout) else { break };
            model.live.push(write(start, layout, 0, heap.stats().live - before.live));
        }
        assert_eq!(room_for(layout, &model.live, region.clone()), None, "{bytes}/{align}");
        for _ in 0..model.live.len().min(50) {
            // From all over the buffer: 37 has no factor in common with most numbers of blocks.
            let block = model.live.swap_remove(37 % model.live.len());
            let room = room_for(layout, &model.live, region.clone());
            assert!(room.is_some(), "{bytes}/{align}, {:x?} free", block.span());
            model.live.push(block);
        }
    }
}
