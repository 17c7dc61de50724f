//! Without memory the `try_` functions of a typed slab refuse, and nothing is lost.
#![allow(
    clippy::disallowed_methods,
    reason = "an allocator that refuses on its way to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use flagstone_epoch::Domain;
use flagstone_slab::typed::{NoSlot, Slab};

/// The system's allocator, which refuses a thread while that asks for it.
struct Refusing;

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

thread_local! {
    static REFUSES: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: every call goes to the system's allocator as it came, or gets null.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if REFUSES.get() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

fn without_memory<R>(f: impl FnOnce() -> R) -> R {
    REFUSES.set(true);
    let result = f();
    REFUSES.set(false);
    result
}

#[test]
fn an_insertion_without_memory_gives_the_value_back() {
    let domain = Domain::new();
    let participant = domain.register();
    let slab: Slab<String> = Slab::new(&domain);
    let guard = participant.pin();
    let value = String::from("first");
    let refused = without_memory(|| slab.try_insert(value, &guard)).expect_err("no memory at all");
    assert_eq!(refused.reason, NoSlot::OutOfMemory);
    let key = slab.insert(refused.into_inner(), &guard);

    // What is at hand can still be used; then there is no more.
    let mut keys = vec![key];
    keys.reserve(10_000);
    let mut values: Vec<String> = (0..10_000).map(|at: u32| at.to_string()).collect();
    while let Some(value) = values.pop() {
        match without_memory(|| slab.try_insert(value, &guard)) {
            Ok(key) => keys.push(key),
            Err(refused) => {
                assert_eq!(refused.reason, NoSlot::OutOfMemory);
                values.push(refused.into_inner());
                break;
            }
        }
    }
    assert!(keys.len() > 1 && !values.is_empty());
    assert_eq!(slab.len(), keys.len());
    for value in values {
        keys.push(slab.insert(value, &guard));
    }
    assert_eq!(keys.len(), 10_001);
    assert!(keys.iter().all(|key| slab.contains(*key, &guard)));
}

#[test]
fn a_removal_without_memory_leaves_the_value() {
    let domain = Domain::new();
    let (participant, other) = (domain.register(), domain.register());
    let slab: Slab<u64> = Slab::new(&domain);
    let key = slab.insert(7, &participant.pin());
    // The other has no shard yet, and no chunk to list the slot in.
    let guard = other.pin();
    assert!(without_memory(|| slab.try_remove(key, &guard)).is_err());
    assert_eq!(slab.get(key, &guard), Some(&7));
    assert_eq!(slab.try_remove(key, &guard), Ok(true));
    assert!(slab.is_empty());
}
