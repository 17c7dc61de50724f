//! An address looked up while its segment is unmapped.
//!
//! The real pool over a backing whose pages loom watches, as in `slab_pool`. Who asks about an address comes
//! by the segment map and counts as a walker; another thread gives the segment back. Either the asker reads
//! the head while it is mapped, or does not find it.
//!
//! control: walk_no_fence: Causality violation
//! control: unmapped_but_in_the_map: Causality violation
#![cfg(flagstone_loom)]

use flagstone_loom_tests::pages::Pages;
use flagstone_loom_tests::{model_within, spawn};
use flagstone_slab::model::SegmentCache;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn a_segment_is_mapped_while_an_address_in_it_is_looked_up() {
    model_within(3, "slab_address", || {
        let cache = Arc::new(SegmentCache::new(Pages::new(1)));
        let slab = cache.take().expect("room");
        let address = slab.bytes().start;
        // The map's entries are not loom's: what makes it try the asker before the segment goes as well.
        let before = Arc::new(AtomicUsize::new(0));
        // SAFETY: taken above.
        unsafe { cache.give(slab) };
        let asker = {
            let cache = Arc::clone(&cache);
            let before = Arc::clone(&before);
            spawn(move || {
                before.load(Ordering::Relaxed);
                // The claim under test: the head is mapped while it is read.
                cache.look_at(address, |head| cache.backing().read(head))
            })
        };
        before.store(1, Ordering::Relaxed);
        let taken_out = cache.decay();
        let at_once = cache.backing().mapped() == 0;
        let found = asker.join().unwrap();
        assert_eq!(taken_out, 1);
        assert_eq!(cache.backing().mapped(), 0, "a segment waits for nobody");
        assert!(!cache.look_at(address, |_| ()));
        // The cases that matter: it was found, and went before its reader had left, or after.
        found && !at_once
    });
}
