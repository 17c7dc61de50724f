//! A word to the program when its heap has grown: the moment to start what only large heaps need.
//!
//! Owns one hook and its threshold. Protocol: the hook runs once per arming, in an allocation that has
//! its block already, so it may allocate and start threads; it is taken out before it runs, so it
//! never nests. Only the global heap calls it.

use super::Heap;
use crate::counter::SharedCounter;
use crate::layout::HeapId;
use crate::sync::{Ordering, process};

/// What to call, as the address of a `fn()`; null when nothing is armed.
static HOOK: process::AtomicPtr<()> = process::AtomicPtr::new(std::ptr::null_mut());
/// Populated bytes at which it is called.
static THRESHOLD: SharedCounter = SharedCounter::new();

impl Heap {
    /// Arranges that `hook` is called, once, by the allocation after which the global heap has
    /// `bytes` or more populated. Replaces what was arranged before.
    ///
    /// The hook runs on whatever thread allocates, at any place where it does, and may allocate; it
    /// must not wait for that thread, and must not panic.
    pub fn on_growth(bytes: u64, hook: fn()) {
        THRESHOLD.set(bytes);
        // Release pairs with the acquire in `tell_growth`: who sees the hook sees the threshold.
        HOOK.store(hook as *mut (), Ordering::Release);
    }

    /// Bytes that the heap has populated, in use or free. Reads counters only.
    pub fn populated_bytes(&self) -> u64 {
        let large = self.fallback.snapshot();
        self.pool.populated_bytes() + large.mapped_bytes + large.cached_bytes
    }

    /// A slab or a large block was added: runs the hook if it is time. The caller has no lock, and
    /// its shard is in order.
    #[inline]
    pub(crate) fn tell_growth(&self) {
        if !HOOK.load(Ordering::Relaxed).is_null() && self.id == HeapId::GLOBAL {
            self.check_growth();
        }
    }

    #[cold]
    fn check_growth(&self) {
        if self.populated_bytes() < THRESHOLD.get() {
            return;
        }
        // Acquire pairs with the release in `on_growth`; of several threads one gets the hook.
        let hook = HOOK.swap(std::ptr::null_mut(), Ordering::Acquire);
        if !hook.is_null() {
            // SAFETY: only `on_growth` stores here, and what it stores is a `fn()`.
            let hook: fn() = unsafe { std::mem::transmute(hook) };
            hook();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::{GlobalAlloc, Layout};

    use super::super::Flagstone;
    use super::*;

    static CALLS: SharedCounter = SharedCounter::new();

    fn count() {
        CALLS.add(1);
        // It may allocate: a nested call finds the hook gone.
        let layout = Layout::from_size_align(3 << 20, 8).expect("valid");
        // SAFETY: a valid layout; freed once.
        unsafe { Flagstone.dealloc(Flagstone.alloc(layout), layout) };
    }

    #[test]
    fn the_hook_runs_once_when_the_heap_has_grown() {
        let layout = Layout::from_size_align(8 << 20, 8).expect("valid");
        let grow = || {
            // SAFETY: a valid layout; freed once, whole pages of it touched.
            unsafe {
                let block = Flagstone.alloc(layout);
                block.write_bytes(1, layout.size());
                Flagstone.dealloc(block, layout);
            }
        };
        Heap::on_growth(1 << 40, count);
        grow();
        assert_eq!(CALLS.get(), 0);
        Heap::on_growth(1, count);
        grow();
        grow();
        assert_eq!(CALLS.get(), 1);
        assert!(Heap::global().populated_bytes() > 0);
        Heap::on_growth(1, count);
        grow();
        assert_eq!(CALLS.get(), 2);
    }
}
