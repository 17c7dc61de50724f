//! All numbers that heap instances can have. A test program of its own: while it holds every number,
//! no other test could make a heap.

use flagstone_slab::{BuildFailure, Heap};

#[test]
fn the_last_number_is_followed_by_an_error_and_a_dropped_heap_makes_room() {
    let mut heaps = Vec::new();
    let failure = loop {
        match Heap::builder().build() {
            Ok(heap) => heaps.push(heap),
            Err(error) => break error.failure,
        }
        assert!(heaps.len() < 127, "more heaps than numbers");
    };
    assert_eq!(failure, BuildFailure::NoNumberLeft);
    assert_eq!(heaps.len(), 126);
    heaps.swap_remove(100);
    Heap::builder().build().unwrap();
}
