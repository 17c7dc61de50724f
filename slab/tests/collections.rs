//! Collections in an instance, through both versions of the `Allocator` trait.
#![cfg(all(feature = "allocator-api2-02", feature = "allocator-api2-04"))]

mod common;

use std::alloc::Layout;
use std::ptr::NonNull;

use allocator_api2_04::alloc::Allocator;
use allocator_api2_04::boxed::Box as BoxIn;
use allocator_api2_04::vec::Vec as VecIn;
use common::traced;
use flagstone_slab::port::{FailAfter, OsPages, Tracing};
use flagstone_slab::{ClassTable, Flagstone, Heap, SharedHeap};
use hashbrown::DefaultHashBuilder;
use hashbrown::HashMap;

fn allocs(heap: &Heap) -> u64 {
    let snapshot = heap.snapshot();
    snapshot.classes.iter().map(|class| class.allocs).sum::<u64>() + snapshot.fallback.allocs
}

// requirement: D1
#[test]
fn a_hash_map_lives_in_an_instance_and_leaves_nothing_there() {
    let heap = traced(Heap::builder().name("map"));
    let mut map = HashMap::with_hasher_in(DefaultHashBuilder::default(), &**heap);
    for i in 0..50_000u64 {
        map.insert(i, i * i);
    }
    for i in (0..50_000).step_by(3) {
        assert_eq!(map.remove(&i), Some(i * i));
    }
    map.shrink_to_fit();
    assert!((0..50_000).all(|i| map.get(&i).copied() == (i % 3 != 0).then_some(i * i)));
    assert!(heap.live_bytes() >= 33_000 * 16);
    drop(map);
    assert_eq!(heap.live_bytes(), 0);
    assert!(allocs(&heap) > 10);
}

#[test]
fn vectors_and_boxes_live_in_instances_of_any_table() {
    let tables = [
        ClassTable::SMALL_POOL,
        ClassTable::SMALL_OBJECTS,
        ClassTable::standard(),
        ClassTable::new(&[24, 8 << 10]).unwrap(),
    ];
    for table in tables {
        let heap = traced(Heap::builder().class_table(table));
        let mut words: VecIn<u64, &Heap> = VecIn::new_in(&heap);
        // From the smallest class through every other to large blocks that grow by moving pages.
        for i in 0..1_000_000 {
            words.push(i);
        }
        words.truncate(10);
        words.shrink_to_fit();
        assert!(words.iter().copied().eq(0..10));
        assert!(heap.live_bytes() <= 8192, "shrunk: {}", heap.live_bytes());
        let nothing = BoxIn::new_in((), &**heap);
        let boxed = BoxIn::new_in([7u8; 100], &**heap);
        assert_eq!(*boxed, [7; 100]);
        drop((words, nothing, boxed));
        assert_eq!(heap.live_bytes(), 0);
    }
}

// requirement: D5
#[test]
fn grown_and_shrunk_blocks_keep_contents_alignment_and_zeros() {
    let heap = traced(Heap::builder().class_table(ClassTable::SMALL_POOL));
    let sizes = [0, 1, 17, 40, 256, 257, 5000, 70_000];
    let aligns = [1, 16, 64, 128 << 10, 4 << 20];
    for from in sizes {
        for to in sizes {
            for (old_align, new_align) in
                aligns.iter().flat_map(|a| aligns.iter().map(move |b| (*a, *b)))
            {
                let old = Layout::from_size_align(from, old_align).unwrap();
                let new = Layout::from_size_align(to, new_align).unwrap();
                let heap: &Heap = &heap;
                // SAFETY: each block is used within its size and given up once.
                unsafe {
                    let block = heap.allocate(old).unwrap().cast::<u8>();
                    assert!(block.addr().get().is_multiple_of(old_align));
                    block.write_bytes(0xA5, from);
                    let moved = if to >= from {
                        heap.grow_zeroed(block, old, new).unwrap()
                    } else {
                        heap.shrink(block, old, new).unwrap()
                    };
                    assert_eq!(moved.len(), to);
                    let moved: NonNull<u8> = moved.cast();
                    assert!(moved.addr().get().is_multiple_of(new_align), "{old:?} to {new:?}");
                    let bytes = std::slice::from_raw_parts(moved.as_ptr(), to);
                    let kept = from.min(to);
                    assert!(bytes[..kept].iter().all(|&byte| byte == 0xA5), "{old:?} to {new:?}");
                    assert!(bytes[kept..].iter().all(|&byte| byte == 0), "{old:?} to {new:?}");
                    heap.deallocate(moved, new);
                }
            }
        }
    }
    assert_eq!(heap.live_bytes(), 0);
}

#[test]
fn a_collection_may_own_its_heap() {
    let tracing = Box::leak(Box::new(Tracing::new(OsPages)));
    let heap = SharedHeap::from(Heap::builder().backing(&*tracing).build().unwrap());
    let mut words: VecIn<u64, _> = VecIn::new_in(heap.clone());
    words.extend(0..1000);
    drop(heap);
    assert!(tracing.bytes_outstanding() > 0, "the vector keeps it");
    assert!(words.iter().copied().eq(0..1000));
    drop(words);
    tracing.assert_nothing_outstanding();
}

#[test]
fn the_global_heap_is_an_allocator_too() {
    let before = allocs(Heap::global());
    let mut by_type: VecIn<u8, Flagstone> = VecIn::new_in(Flagstone);
    by_type.resize(100, 1);
    let mut by_reference: VecIn<u8, &Heap> = VecIn::new_in(Heap::global());
    by_reference.resize(3 << 20, 1);
    assert!(Heap::global().usable_size(by_type.as_ptr()).is_some());
    assert!(Heap::global().usable_size(by_reference.as_ptr()).is_some());
    assert!(allocs(Heap::global()) >= before + 2);
}

// requirement: G7
#[test]
fn a_map_whose_allocations_fail_from_the_nth_on_stays_as_it_was() {
    for n in [1, 3, 7, 37] {
        let heap = traced(Heap::builder());
        let port = FailAfter::new(&**heap, n);
        let mut map = HashMap::with_hasher_in(DefaultHashBuilder::default(), &port);
        let mut inserted = 0u64;
        while map.try_reserve(1).is_ok() && inserted < 1 << 12 {
            map.insert(inserted, inserted);
            inserted += 1;
        }
        assert_eq!(map.len() as u64, inserted);
        assert!((0..inserted).all(|i| map.get(&i) == Some(&i)));
        assert_eq!(port.refused() > 0, inserted < 1 << 12);
        drop(map);
        assert_eq!(heap.live_bytes(), 0);
    }
}
