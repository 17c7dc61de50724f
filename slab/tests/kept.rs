//! Empty slabs that shards keep against the next burst: few in all, and not for long.

use std::alloc::Layout;
use std::thread;
use std::time::{Duration, Instant};

use flagstone_slab::Heap;
use flagstone_slab::stats::ClassSnapshot;

fn layout(bytes: u64) -> Layout {
    Layout::from_size_align(bytes as usize, 8).unwrap()
}

/// Allocates so many blocks of a class and frees them all.
fn burst(heap: &Heap, bytes: u64, blocks: u64) {
    let blocks: Vec<_> = (0..blocks).map(|_| heap.try_alloc(layout(bytes)).unwrap()).collect();
    for block in blocks {
        // SAFETY: just allocated with this layout, and given up.
        unsafe { heap.dealloc(block, layout(bytes)) };
    }
}

/// The classes' sizes, and bytes of one slab of each.
fn shapes(heap: &Heap) -> Vec<(u64, u64)> {
    let shape = |class: ClassSnapshot| {
        let block = heap.try_alloc(layout(class.block_bytes)).unwrap();
        let now = heap.snapshot();
        let slabs = now.classes.iter().find(|now| now.block_bytes == class.block_bytes).unwrap();
        let slab_bytes = slabs.slab_bytes / slabs.slabs;
        // SAFETY: as above.
        unsafe { heap.dealloc(block, layout(class.block_bytes)) };
        (class.block_bytes, slab_bytes)
    };
    heap.snapshot().classes.into_iter().map(shape).collect()
}

// requirement: D2
#[test]
fn a_class_keeps_one_empty_slab_beside_its_current_one() {
    let heap = Heap::builder().shards(1).decay(Duration::from_secs(3_600)).build().unwrap();
    for (block, slab) in shapes(&heap) {
        burst(&heap, block, 3 * (slab / block));
    }
    let after = heap.snapshot();
    for class in &after.classes {
        assert_eq!((class.in_use, class.slabs), (0, 2), "{} bytes", class.block_bytes);
    }
    assert_eq!(after.bytes.residual(), 0);
}

// requirement: D2
#[test]
fn a_busy_shard_gives_back_the_empty_slabs_of_idle_classes() {
    let heap = Heap::builder().shards(1).decay(Duration::from_millis(40)).build().unwrap();
    let shapes = shapes(&heap);
    for &(block, slab) in &shapes {
        burst(&heap, block, slab / block + 1);
    }
    let (busy, slab) = shapes[0];
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        // The search for a slab is when a shard looks what it has.
        burst(&heap, busy, 2 * slab / busy);
        let now = heap.snapshot();
        let idle: u64 = now.classes.iter().skip(1).map(|class| class.slabs).sum();
        if idle == 0 {
            for class in now.classes {
                assert_eq!((class.in_use, class.allocs), (0, class.frees), "{}", class.block_bytes);
            }
            assert_eq!(now.bytes.residual(), 0);
            break;
        }
        assert!(Instant::now() < deadline, "{idle} empty slabs are kept for ever");
        thread::sleep(Duration::from_millis(5));
    }
}
