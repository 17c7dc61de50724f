//! The cap of a heap: reservations at the same time never exceed it, and what is refused leaves nothing
//! behind.
//!
//! The real holdings over a backing that counts what it has mapped and refuses when told to. Two threads
//! take two pages of three, one of them gives back and takes again, and a third's request is refused by
//! the backing.
//!
//! control: cap_look_then_add: bytes mapped
//! control: cap_no_rollback: what is held is what is mapped
//! control: cap_release_first: bytes mapped
#![cfg(flagstone_loom)]

use std::ptr::NonNull;

use flagstone_loom_tests::{model, spawn};
use flagstone_slab::model::Capped;
use flagstone_slab::port::Backing;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};

const PAGE: usize = 4096;
const CAP: usize = 3 * PAGE;

/// Ranges that nobody touches; requests of this many bytes are refused.
struct Counting {
    mapped: AtomicUsize,
    refuse: usize,
}

// SAFETY: the model does not touch what it maps.
unsafe impl Backing for Counting {
    fn map(&self, bytes: usize, _: usize) -> Option<NonNull<u8>> {
        if bytes == self.refuse {
            return None;
        }
        // The claim under test.
        let mapped = self.mapped.fetch_add(bytes, Ordering::Relaxed) + bytes;
        assert!(mapped <= CAP, "{mapped} bytes mapped, {CAP} allowed");
        NonNull::new(std::ptr::without_provenance_mut(1 << 30))
    }

    unsafe fn unmap(&self, _: NonNull<u8>, bytes: usize) {
        self.mapped.fetch_sub(bytes, Ordering::Relaxed);
    }

    unsafe fn purge(&self, _: NonNull<u8>, _: usize) -> bool {
        false
    }
}

#[test]
fn a_cap_holds_whoever_asks_at_once() {
    model("slab_cap", || {
        let counting = Counting { mapped: AtomicUsize::new(0), refuse: PAGE };
        let heap = Arc::new(Capped::new(counting, CAP));
        let busy = {
            let heap = Arc::clone(&heap);
            spawn(move || {
                let pages = heap.map(2 * PAGE)?;
                // SAFETY: mapped above, and given up.
                unsafe { heap.unmap(pages, 2 * PAGE) };
                heap.map(2 * PAGE)
            })
        };
        let other = {
            let heap = Arc::clone(&heap);
            spawn(move || heap.map(2 * PAGE))
        };
        assert!(heap.map(PAGE).is_none(), "the backing refuses, or the cap");
        let taken = [busy.join().unwrap(), other.join().unwrap()];
        let between = taken[0].is_none();
        let bytes = 2 * PAGE * taken.iter().flatten().count();
        let (held, peak, refusals) = heap.figures();
        assert_eq!(held, bytes, "what is held is what is mapped");
        assert!(peak <= CAP as u64 && peak >= held as u64);
        for pages in taken.into_iter().flatten() {
            // SAFETY: mapped above, and given up.
            unsafe { heap.unmap(pages, 2 * PAGE) };
        }
        assert_eq!(heap.figures().0, 0, "nothing is left behind");
        // SAFETY: mapped in the same expression, and given up.
        let whole = heap.map(CAP).map(|pages| unsafe { heap.unmap(pages, CAP) });
        assert!(whole.is_some(), "all of it can be had again");
        // The case that matters: what one thread gave back the other had.
        between && refusals > 0
    });
}
