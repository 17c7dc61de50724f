//! High-water marks: shards raise them, readers start new windows.
//!
//! The real marks over counters of shards that stand for the heap's. Nothing is freed after the start,
//! so what is in use in the end was so in every window that then ran, and has to be in every mark.
//!
//! 1. Two shards allocate a block each and tell of it.
//! 2. After an earlier peak, which keeps a shard from asking, one shard allocates and tells, while two
//!    readers each start a window.
//!
//! control: marks_told_relaxed: the marks hold the peak
//! control: marks_raised_by_store: the marks hold the peak
//! control: marks_reset_by_store: a window lost what is in use in it
#![cfg(flagstone_loom)]

use flagstone_loom_tests::{model, spawn};
use flagstone_slab::model::HighWater;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};

/// Blocks that the class's slabs hold.
const ROOM: u64 = 10;

struct World {
    marks: HighWater,
    shards: [AtomicU64; 2],
}

impl World {
    fn new() -> Arc<Self> {
        let shards = [AtomicU64::new(0), AtomicU64::new(0)];
        Arc::new(Self { marks: HighWater::new(), shards })
    }

    /// As heaps count: shard by shard, without a lock, relaxed.
    fn in_use(&self) -> u64 {
        self.shards.iter().map(|shard| shard.load(Ordering::Relaxed)).sum()
    }

    fn allocate(&self, shard: usize) {
        self.shards[shard].store(1, Ordering::Relaxed);
        self.marks.note(1, 0, ROOM, || self.in_use());
    }
}

#[test]
fn a_peak_of_two_shards_is_in_both_marks() {
    model("slab_high_water, shards", || {
        let world = World::new();
        let other = {
            let world = Arc::clone(&world);
            spawn(move || world.allocate(0))
        };
        world.allocate(1);
        let early = world.marks.witness(0) == (2, 2);
        other.join().unwrap();
        // Zero in use is no news to the marks.
        assert_eq!(world.marks.witness(0), (2, 2), "the marks hold the peak");
        !early
    });
}

#[test]
fn a_window_holds_what_is_in_use_in_it_whoever_else_starts_one() {
    model("slab_high_water, windows", || {
        let world = World::new();
        world.marks.witness(1);
        let shard = {
            let world = Arc::clone(&world);
            spawn(move || world.allocate(0))
        };
        let start = |world: &World| {
            let mut seen = 0;
            world.marks.start_window(|| {
                seen = world.in_use();
                seen
            });
            seen
        };
        let reader = {
            let world = Arc::clone(&world);
            spawn(move || start(&world))
        };
        let seen = [start(&world), reader.join().unwrap()];
        shard.join().unwrap();
        assert_eq!(world.marks.witness(0), (1, 1), "a window lost what is in use in it");
        // The case that matters: a window began before the shard allocated, and one after.
        seen[0] != seen[1]
    });
}
