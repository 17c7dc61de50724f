//! A segment unmapped against walkers of statistics.
//!
//! The real pool over a backing whose pages loom watches, as in `slab_pool`. Walkers read the head of
//! every segment that they find, while another thread gives a segment back. Whatever has to wait for
//! walkers is given back by the last of them, or by whoever let it wait: nothing waits for good.
//!
//! control: walk_no_fence: read of what is not mapped
//! control: walk_not_asked: read of what is not mapped
//! control: walk_end_fence: a segment waits for nobody
#![cfg(flagstone_loom)]

use flagstone_loom_tests::pages::Pages;
use flagstone_loom_tests::{model_within, spawn};
use flagstone_slab::model::SegmentCache;
use loom::sync::Arc;

fn walk(cache: &SegmentCache<Pages>) -> usize {
    let mut seen = 0;
    cache.walk(|head| {
        // The claim under test: the head is mapped while a walker is at it.
        cache.backing().read(head);
        seen += 1;
    });
    seen
}

#[test]
fn a_segment_is_unmapped_when_no_walker_is_at_it_and_then_it_is() {
    model_within(3, "slab_segment", || {
        let cache = Arc::new(SegmentCache::new(Pages::new(1)));
        let slab = cache.take().expect("room");
        // SAFETY: taken above.
        unsafe { cache.give(slab) };
        let walkers = [0, 1].map(|_| {
            let cache = Arc::clone(&cache);
            spawn(move || walk(&cache))
        });
        let taken_out = cache.decay();
        let at_once = cache.backing().mapped() == 0;
        let seen = walkers.map(|walker| walker.join().unwrap());
        assert_eq!(taken_out, 1);
        assert_eq!(cache.backing().mapped(), 0, "a segment waits for nobody");
        assert_eq!(walk(&cache), 0);
        // The cases that matter: a walker found it, and it went before all had left, or after.
        seen.contains(&1) && !at_once
    });
}
