//! The cache of segments: slabs taken, given back and taken again, while free slices are purged and
//! segments that hold nothing are unmapped.
//!
//! The real pool over a backing whose pages loom watches: whoever has a slab writes to its pages, a
//! purge and an unmapping write to what they give back. Two threads take a slab and give it back; a
//! third gives everything back that is free, twice. A pool keeps no spare segment here.
//!
//! control: pool_purges_what_it_lists: everything is given back
//! control: pool_unmaps_in_use: Causality violation
//! control: pool_unmaps_listed: write to what is not mapped
#![cfg(flagstone_loom)]

use flagstone_loom_tests::pages::Pages;
use flagstone_loom_tests::{model_within, spawn};
use flagstone_slab::model::SegmentCache;
use loom::sync::Arc;

/// Takes a slab, writes to it and gives it back; whether there was one.
fn use_slab(cache: &SegmentCache<Pages>) -> bool {
    let Some(slab) = cache.take() else { return false };
    // The claim under test: nobody else has these pages, and they are not given back.
    cache.backing().write(slab.bytes());
    cache.backing().write(slab.bytes());
    // SAFETY: taken above, and not used any more.
    unsafe { cache.give(slab) };
    true
}

#[test]
fn a_slab_has_one_user_and_what_is_given_back_none() {
    model_within(3, "slab_pool", || {
        let cache = Arc::new(SegmentCache::new(Pages::new(2)));
        let users = [0, 1].map(|_| {
            let cache = Arc::clone(&cache);
            spawn(move || use_slab(&cache))
        });
        let unmapped = cache.decay() + cache.decay();
        let used = users.map(|user| user.join().unwrap());
        assert!(used[0] && used[1], "there is room for a slab of each");
        let unmapped = unmapped + cache.decay();
        assert_eq!(cache.figures(), (0, 0, 0), "everything is given back");
        assert_eq!(cache.backing().mapped(), 0, "and by the backing's word");
        // The case that matters: a segment went while the others were at work.
        unmapped > 1
    });
}
