//! The pool's orders against a plain model: vectors of masks, searched by walking.

use std::alloc::Layout;

use proptest::prelude::*;

use super::*;
use crate::heap::Heap;
use crate::layout::{HeapId, SEGMENT_BYTES, run_mask};

/// Segment heads over zeroed memory of their own, given back at the end.
struct Heads(Vec<(*mut u8, &'static Segment)>);

impl Heads {
    fn new(n: usize) -> Self {
        // Room beyond the head is never touched; the alignment is what makes it a head.
        let layout = Layout::from_size_align(64 << 10, SEGMENT_BYTES).unwrap();
        let heads = (0..n).map(|_| {
            let base = Heap::global().alloc_fallback_zeroed(layout);
            assert!(!base.is_null());
            // SAFETY: a zeroed range that covers a head, aligned like a segment, this test's alone.
            (base, unsafe { &*Segment::set_up(base, HeapId::GLOBAL) })
        });
        Self(heads.collect())
    }
}

impl Drop for Heads {
    fn drop(&mut self) {
        for (base, _) in &self.0 {
            // SAFETY: allocated above, freed once.
            unsafe { Heap::global().free_slow(*base) };
        }
    }
}

impl Segments {
    /// Every segment is in the lists that its masks name, and in no other.
    fn validate(&self, heads: &[(*mut u8, &'static Segment)]) {
        let mut listed = 0;
        for (bin, list) in self.by_room.iter().enumerate() {
            assert_eq!(self.filled & 1 << bin != 0, !list.first.is_null(), "bin {bin}");
            listed += walk(list, by_room, |segment| {
                let free = segment.free.get();
                let room = longest_run(free, LONG) + usize::from(segment.common.get()) * LONG;
                let room = if free == ALL_FREE { WHOLE } else { room };
                assert_eq!((room, segment.bin.get() as usize), (bin, bin));
            });
        }
        let heads = heads.iter().map(|(_, segment)| segment);
        assert_eq!(listed, heads.clone().filter(|s| s.free.get() != 0).count());
        assert_eq!(self.whole as usize, heads.clone().filter(|s| s.free.get() == ALL_FREE).count());
        let aging = walk(&self.by_age, by_age, |segment| assert_ne!(segment.dirty.get(), 0));
        assert_eq!(aging, self.aging);
        assert_eq!(aging, heads.clone().filter(|s| s.dirty.get() != 0).count());
        assert!(heads.clone().all(|s| s.dirty.get() & !s.free.get() == 0));
    }
}

fn walk(list: &List, links: fn(&Segment) -> &Links, mut each: impl FnMut(&Segment)) -> usize {
    let (mut n, mut at, mut before) = (0, list.first, ptr::null());
    // SAFETY: the test's heads outlive the lists.
    while let Some(segment) = unsafe { at.as_ref() } {
        assert_eq!(links(segment).prev.get(), before);
        each(segment);
        (n, before, at) = (n + 1, at, links(segment).next.get());
        assert!(n < 1_000, "a list has a cycle");
    }
    assert_eq!(list.last, before);
    n
}

#[derive(Clone, Debug)]
enum Step {
    /// A slab of so many slices.
    Take(usize),
    /// The slab of this number, modulo those out, comes back.
    Give(usize),
    /// Time passes.
    Wait(u32),
    /// A pass with a limit of slices; the kernel refuses every slice whose number this divides.
    Decay { age: u32, slices: u64, refused: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..9).prop_map(Step::Take),
        1 => (9usize..64).prop_map(Step::Take),
        4 => any::<prop::sample::Index>().prop_map(|i| Step::Give(i.index(1 << 16))),
        1 => (0u32..50).prop_map(Step::Wait),
        2 => (0u32..60, 0u64..200, 1usize..9)
            .prop_map(|(age, slices, refused)| Step::Decay { age, slices, refused }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_run_is_found_when_there_is_one_and_nothing_is_lost(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let heads = Heads::new(4);
        let mut segments = Segments::new();
        let mut out: Vec<(&'static Segment, u64)> = Vec::new();
        let mut now = 0u32.wrapping_sub(1_000);
        for (_, segment) in &heads.0 {
            segments.insert(segment);
        }
        let mut gone: Vec<*const Segment> = Vec::new();
        for step in steps {
            match step {
                Step::Take(n) => {
                    let mapped = heads.0.iter().map(|(_, s)| *s);
                    let there = mapped.clone().any(|s| run_in(s.free.get(), n).is_some());
                    let common = n % 3 == 0;
                    let apart = segments.find(n, common, false);
                    if let Some((segment, _)) = apart {
                        let whole = segment.free.get() == ALL_FREE;
                        prop_assert!(whole || segment.common.get() == common);
                    }
                    let found = apart.or_else(|| segments.find(n, common, true));
                    prop_assert_eq!(found.is_some(), there);
                    if let Some((segment, first)) = found {
                        let mask = run_mask(first, n);
                        prop_assert_eq!(segment.free.get() & mask, mask);
                        segments.take(segment, mask, common);
                        out.push((segment, mask));
                    }
                }
                Step::Give(which) if !out.is_empty() => {
                    let (segment, mask) = out.swap_remove(which % out.len());
                    for slice in (0..64).filter(|&slice| mask & 1 << slice != 0) {
                        segment.freed_at[slice].set(now);
                    }
                    segments.give(segment, mask, mask);
                }
                Step::Give(_) => {}
                Step::Wait(millis) => now = now.wrapping_add(millis),
                Step::Decay { age, slices, refused } => {
                    let expired: u64 = heads.0.iter()
                        .map(|(_, s)| u64::from(s.expired(now, age).count_ones())).sum();
                    let mut pass = Pass { now, age, slices, visits: segments.aging(), surplus: true };
                    let mut taken = 0;
                    let mut back = Vec::new();
                    while let Some(next) = segments.take_expired(&mut pass) {
                        match next {
                            Expired::Whole(segment, _) => {
                                gone.push(segment);
                                taken += slices;
                                prop_assert_eq!(segment.free.get(), 0);
                            }
                            Expired::Slices(segment, mask) => {
                                taken += u64::from(mask.count_ones());
                                back.push((segment, mask));
                            }
                        }
                    }
                    if gone.is_empty() {
                        prop_assert_eq!(taken, expired.min(slices), "what has expired, to the limit");
                    }
                    for (segment, mask) in back {
                        let kept = (0..64).filter(|slice| slice % refused == 0)
                            .fold(0, |kept, slice| kept | mask & 1 << slice);
                        segments.give(segment, mask, kept);
                    }
                    // Unmapped segments come back fresh, so that the script has as many again.
                    for segment in gone.drain(..) {
                        // SAFETY: one of the heads.
                        let segment = unsafe { &*segment };
                        segment.free.set(ALL_FREE);
                        segments.insert(segment);
                    }
                }
            }
            segments.validate(&heads.0);
        }
    }
}
