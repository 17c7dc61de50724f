//! One handle type over several allocators, and what the modes that pass through cost.

use std::alloc::Layout;
use std::ptr::NonNull;

use flagstone_slab::mode::{AllocatorHandle, InitError, Mode, Sharded, System};
use flagstone_slab::port::{BlockPort, PassThrough};
use flagstone_slab::{BuildFailure, ClassTable, Heap};

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).unwrap()
}

/// The same program in any mode; returns what was still out at the end.
fn program<M: Mode>(leak: usize) -> Option<u64> {
    let handle = AllocatorHandle::<M>::init().unwrap();
    let allocator = handle.allocator();
    let copy = allocator;
    for bytes in [0, 1, 16, 100, 4000, 70_000, 3 << 20] {
        let block = allocator.try_alloc_zeroed(layout(bytes)).unwrap();
        // SAFETY: used within its size; given up to a copy of the allocator it came from.
        unsafe {
            assert!((0..bytes).all(|at| block.add(at).read() == 0));
            block.write_bytes(9, bytes);
            let grown = allocator.try_realloc(block, layout(bytes), layout(bytes * 2 + 8)).unwrap();
            assert!((0..bytes).all(|at| grown.add(at).read() == 9));
            copy.dealloc(grown, layout(bytes * 2 + 8));
        }
    }
    for _ in 0..leak {
        allocator.try_alloc(layout(64)).unwrap();
    }
    handle.deinit().outstanding_bytes
}

// requirement: D1
#[test]
fn every_mode_has_the_same_surface() {
    assert_eq!(program::<System>(0), None);
    assert_eq!(program::<Sharded>(0), Some(0));
    assert_eq!(program::<Sharded>(3), Some(192));
    #[cfg(feature = "mimalloc")]
    assert_eq!(program::<flagstone_slab::mode::Mimalloc>(0), None);
    let names = [System::NAME, Sharded::NAME];
    assert_eq!(names, ["default", "small_pool"]);
}

// requirement: D1
#[test]
fn a_sharded_handle_over_a_heap_built_to_order() {
    let builder = Heap::builder().name("pool").class_table(ClassTable::SMALL_POOL).shards(4);
    let handle = AllocatorHandle::<Sharded>::init_with(builder).unwrap();
    assert_eq!(handle.heap().name(), "pool");
    assert_eq!(handle.heap().snapshot().shards.len(), 4);
    let error = AllocatorHandle::<Sharded>::init_with(Heap::builder().cap(1)).unwrap_err();
    assert!(matches!(error, InitError::Heap(BuildFailure::CapTooSmall { cap: 1, .. })));
}

// requirement: D1, D3
#[test]
fn a_configured_class_table_is_passed_to_any_mode() {
    fn usable<M: Mode>(
        of: impl Fn(&AllocatorHandle<M>, NonNull<u8>) -> Option<usize>,
    ) -> Option<usize> {
        let handle = AllocatorHandle::<M>::init_with_classes(ClassTable::SMALL_POOL).unwrap();
        let allocator = handle.allocator();
        let block = allocator.try_alloc(layout(100)).unwrap();
        let usable = of(&handle, block);
        // SAFETY: allocated above.
        unsafe { allocator.dealloc(block, layout(100)) };
        usable
    }
    assert_eq!(usable::<System>(|_, _| None), None);
    let in_heap = usable::<Sharded>(|handle, block| handle.heap().usable_size(block.as_ptr()));
    assert_eq!(in_heap, Some(128), "the next class of the table, not of the standard one");
}

// requirement: Z2
#[test]
fn passing_through_adds_no_state() {
    assert_eq!(size_of::<AllocatorHandle<System>>(), 0);
    assert_eq!(size_of::<PassThrough<std::alloc::System>>(), 0);
    assert_eq!(size_of_val(&AllocatorHandle::<System>::init().unwrap().allocator()), 0);
}
