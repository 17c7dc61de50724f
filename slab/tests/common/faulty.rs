//! A backing over the system's pages that fails on demand, and the sweep over its failures.
#![allow(clippy::disallowed_types, reason = "loom does not run these tests")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use flagstone_slab::port::{Backing, OsPages, Remapped, Tracing};
use flagstone_slab::{BuildFailure, Heap};

use super::churn::churn;

/// What is asked of a backing and can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A range: there is none.
    Map,
    /// Pages that are not needed: they stay.
    Purge,
    /// Pages to be moved: they stay, and the place that they were to go to is gone, as with kernels.
    Remap,
}

/// Which of the calls fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// From the N-th on.
    Healed,
    /// The N-th alone.
    Next,
}

/// Fails calls of one kind, from the `first` on, counted from 1.
pub struct Faulty {
    call: Call,
    first: usize,
    until: Until,
    calls: AtomicUsize,
    failed: AtomicUsize,
    healed: AtomicBool,
}

impl Faulty {
    pub fn new(call: Call, first: usize, until: Until) -> Self {
        let (calls, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { call, first, until, calls, failed, healed: AtomicBool::new(false) }
    }

    /// From now on nothing fails.
    pub fn heal(&self) {
        self.healed.store(true, Ordering::SeqCst);
    }

    pub fn failed(&self) -> usize {
        self.failed.load(Ordering::SeqCst)
    }

    fn fails(&self, call: Call) -> bool {
        if call != self.call || self.healed.load(Ordering::SeqCst) {
            return false;
        }
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let fails = match self.until {
            Until::Healed => number >= self.first,
            Until::Next => number == self.first,
        };
        self.failed.fetch_add(usize::from(fails), Ordering::SeqCst);
        fails
    }
}

// SAFETY: all memory comes from `OsPages`; each failure is one that the contract allows.
unsafe impl Backing for Faulty {
    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        if self.fails(Call::Map) { None } else { OsPages.map(bytes, align) }
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller's contract.
        unsafe { OsPages.unmap(start, bytes) }
    }

    unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's contract.
        !self.fails(Call::Purge) && unsafe { OsPages.purge(start, bytes) }
    }

    unsafe fn remap(&self, from: NonNull<u8>, old: usize, to: NonNull<u8>, new: usize) -> Remapped {
        if self.fails(Call::Remap) {
            // SAFETY: the caller's contract: nobody uses the target.
            unsafe { OsPages.unmap(to, new) };
            return Remapped::Failed;
        }
        // SAFETY: the caller's contract.
        unsafe { OsPages.remap(from, old, to, new) }
    }

    fn joins(&self) -> bool {
        true
    }
}

/// Fails the N-th call of a kind, alone or with all that follow, of heaps that work for `steps`, for N
/// from 1 in steps of `stride` until no call is left to fail. Returns for how many N there was one.
///
/// Each time the books close, no block is lost, the heap works as if nothing had been once it is
/// healed, and its end gives everything back.
pub fn sweep(call: Call, until: Until, steps: usize, stride: usize) -> usize {
    let mut swept = 0;
    for n in (1..).step_by(stride) {
        let backing = Tracing::new(Faulty::new(call, n, until));
        let heap = match Heap::builder().name("swept").backing(backing).build() {
            Ok(heap) => heap,
            Err(error) => {
                assert_eq!((call, n), (Call::Map, 1), "a heap needs one range to be there");
                assert!(matches!(error.failure, BuildFailure::OutOfMemory { .. }));
                error.backing.assert_nothing_outstanding();
                swept += 1;
                continue;
            }
        };
        let refused = churn(&heap, steps);
        let faulty = heap.backing().inner();
        let failed = faulty.failed();
        let snapshot = heap.snapshot();
        let context = format!("{call:?} {n}, until {until:?}");
        if call == Call::Map && until == Until::Healed {
            assert_eq!(refused > 0, failed > 0, "{context}");
            assert_eq!(refused > 0, snapshot.tiers.failures > 0, "{context}");
        }
        if call != Call::Map || failed == 0 {
            assert_eq!(refused, 0, "{context}: there was memory");
        }
        assert_eq!(snapshot.bytes.live, 0, "{context}");
        assert_eq!(snapshot.bytes.residual(), 0, "{context}: {:?}", snapshot.bytes);
        faulty.heal();
        assert_eq!(churn(&heap, steps), 0, "{context}");
        heap.purge();
        assert_eq!(heap.snapshot().fallback.cached_bytes, 0, "{context}");
        heap.into_backing().assert_nothing_outstanding();
        if failed == 0 {
            return swept;
        }
        swept += 1;
    }
    unreachable!("the numbers have no end")
}
