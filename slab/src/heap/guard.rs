//! Guards: pages behind slabs and large blocks that nobody may touch, and what is said when somebody does.
//!
//! Owns the count of guards, their budget, and the judgement of a fault. Only with the feature `hardened`.
//! Protocol: a slab's guard is its owner's, set before its first block is handed out and taken off before
//! the slab goes to the pool; that of a large block is whoever's the block is. So what is free has no
//! guard (rule G1). System calls are made without a lock (rule L1).
//!
//! A guard splits a mapping: two more of which the system lets a process have a number, and one that has
//! as many can map nothing at all, no stack of a thread either. So guards keep to half of them, and past
//! that, or where a backing cannot, memory is handed out without: it is counted, and said once.

use std::ptr::NonNull;

use super::Heap;
use super::misuse::Whose;
use super::registry::Visit;
use crate::counter::SharedCounter;
use crate::layout::{GUARDED, HeapId, Kind, SLICE_BYTES, Segment, SegmentMap, Slab};
use crate::os::{self, fatal, keep_errno};
use crate::port::Backing;
use crate::sync::{Ordering, process};

/// The guards of one heap.
pub(crate) struct Guards {
    standing: SharedCounter,
    refused: SharedCounter,
}

/// How many guards a heap has; see [`Heap::guards`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuardReport {
    /// Guards that stand behind slabs and large blocks.
    pub standing: u64,
    /// Guards that could not be set so far: the system or the budget had no mapping left for one, or the
    /// backing has none.
    pub refused: u64,
}

/// Guards of the process.
static STANDING: process::AtomicUsize = process::AtomicUsize::new(0);

/// Mappings that one guard may cost: itself and what is behind it.
const MAPPINGS_EACH: usize = 2;

impl Guards {
    pub(crate) const fn new() -> Self {
        Self { standing: SharedCounter::new(), refused: SharedCounter::new() }
    }

    /// Guards a range; returns whether it is.
    ///
    /// # Safety
    /// The range is a page-aligned part of what the backing handed out, and nobody uses it.
    pub(super) unsafe fn raise(&self, backing: &dyn Backing, range: (NonNull<u8>, usize)) -> bool {
        // SAFETY: by contract.
        let stands = unsafe { raise(backing, range) };
        if stands {
            self.standing.add(1);
        } else {
            self.refused.add(1);
        }
        stands
    }

    /// Takes a guard off; returns whether the range can be used again.
    ///
    /// # Safety
    /// The range was given to [`raise`](Self::raise) as it is, which returned true.
    pub(super) unsafe fn lower(
        &self,
        backing: &dyn Backing,
        (start, bytes): (NonNull<u8>, usize),
    ) -> bool {
        // SAFETY: by contract.
        let lowered = unsafe { backing.unguard(start, bytes) };
        if lowered {
            self.standing.sub(1);
            forget();
        }
        lowered
    }

    /// The heap has given its memory back, guards and all.
    pub(super) fn end(&self) {
        STANDING.fetch_sub(self.standing.get() as usize, Ordering::Relaxed);
        self.standing.set(0);
    }

    fn report(&self) -> GuardReport {
        GuardReport { standing: self.standing.get(), refused: self.refused.get() }
    }
}

/// Guards a range within the budget; returns whether it is.
///
/// # Safety
/// As [`Guards::raise`].
unsafe fn raise(backing: &dyn Backing, (start, bytes): (NonNull<u8>, usize)) -> bool {
    // Relaxed: the sum stands for itself, and may pass the budget by as many threads as ask at once.
    let within = STANDING.fetch_add(1, Ordering::Relaxed) < budget();
    // SAFETY: by contract.
    if within && unsafe { backing.guard(start, bytes) } {
        os::arm_fault_handler(on_fault);
        return true;
    }
    forget();
    if !within {
        complain_once();
    }
    false
}

/// A guard is gone.
fn forget() {
    STANDING.fetch_sub(1, Ordering::Relaxed);
}

/// Guards the rest of a fresh segment's head.
pub(super) fn guard_head(segment: &Segment, backing: &dyn Backing) {
    if GUARDED && let Some(guard) = segment.head_guard() {
        // SAFETY: the head's slice is nobody's beyond the head. The guard goes with the segment.
        segment.set_guarded(0, unsafe { raise(backing, guard) });
    }
}

/// A segment goes, and the guard of its head with it.
pub(super) fn forget_head(segment: &Segment) {
    if segment.is_guarded(0) {
        forget();
    }
}

/// Guards that the process may have.
fn budget() -> usize {
    static MOST: process::AtomicUsize = process::AtomicUsize::new(0);
    // Relaxed: a constant of the machine; a second thread at worst asks again.
    let known = MOST.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let most = (os::most_mappings() / 2 / MAPPINGS_EACH).max(1);
    MOST.store(most, Ordering::Relaxed);
    most
}

#[cold]
fn complain_once() {
    static SAID: process::AtomicUsize = process::AtomicUsize::new(0);
    if SAID.swap(1, Ordering::Relaxed) == 0 {
        let most = os::most_mappings();
        os::complain(format_args!(
            "{} guard pages are half of the mappings that vm.max_map_count = {most} allows; no more are set",
            budget()
        ));
    }
}

impl Heap {
    /// Guard pages that the heap has set and could not set, with the feature `hardened`.
    pub fn guards(&self) -> GuardReport {
        self.guards.report()
    }

    /// Sets the guard of a fresh slab, if that can be.
    ///
    /// # Safety
    /// The caller owns the slab, of which no block was handed out.
    pub(super) unsafe fn guard_slab(&self, slab: &Slab) {
        let Some(guard) = slab.guard() else { return };
        // SAFETY: behind the slab's last block, so nobody's but the slab's owner's.
        let stands = unsafe { self.guards.raise(self.backing, guard) };
        slab.segment().set_guarded(slab.first_slice(), stands);
    }

    /// Takes the guard of a slab off, if it has one; returns false if the system refuses. Then the slab
    /// must stay as it is, for good.
    ///
    /// # Safety
    /// The caller owns the slab.
    pub(super) unsafe fn unguard_slab(&self, slab: &Slab) -> bool {
        let (segment, first) = (slab.segment(), slab.first_slice());
        if !segment.is_guarded(first) {
            return true;
        }
        let Some(guard) = slab.guard() else { return true };
        // SAFETY: set by `guard_slab`.
        let lowered = unsafe { self.guards.lower(self.backing, guard) };
        if lowered {
            segment.set_guarded(first, false);
        }
        lowered
    }
}

/// What the system calls when memory was touched that is not to be touched.
extern "C" fn on_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    keep_errno(|| {
        // SAFETY: what the system gave to a handler.
        unsafe {
            if let Some(address) = os::fault_address(info) {
                judge(address);
            }
            os::hand_over(signal, info, context);
        }
    });
}

/// Ends the process if an address lies in a guard of ours. Called by a signal handler: takes no lock
/// that it would have to wait for, and allocates nothing.
fn judge(address: usize) {
    match SegmentMap::kind(address) {
        Kind::Foreign => {}
        Kind::Segment(id) => {
            // SAFETY: the map says that the head may be read (rule M1), unless the segment goes this very
            // moment: then nobody had any business there, and the second fault ends the process.
            let segment =
                unsafe { &*Segment::base_of(std::ptr::with_exposed_provenance_mut(address)) };
            let slice = address / SLICE_BYTES % segment.slabs.len();
            let first = segment.table.first[slice].get() as usize;
            let within = |guard: Option<(NonNull<u8>, usize)>| {
                let (start, bytes) = guard?;
                Some(address.wrapping_sub(start.addr().get()) < bytes)
            };
            if !segment.is_guarded(first) {
                return;
            }
            if slice == 0 && within(segment.head_guard()) == Some(true) {
                with_name(id, |heap| {
                    fatal(format_args!(
                        "overflow at {address:#x}, in the guard page behind a segment's head, of heap {heap}"
                    ))
                });
            }
            let slab = &segment.slabs[first];
            if first != 0 && within(slab.guard()) == Some(true) {
                with_name(id, |heap| {
                    fatal(format_args!(
                        "overflow at {address:#x}, in the guard page behind a slab: {}",
                        Whose(slab, heap)
                    ))
                });
            }
        }
        Kind::Large(id) => with_heap(id, |heap| {
            if let Some(bytes) = heap.fallback.guarded_block(address) {
                fatal(format_args!(
                    "overflow at {address:#x}, in the guard page behind a large block: of {bytes} bytes, of heap {}",
                    heap.name
                ));
            }
        }),
    }
}

fn with_name(id: HeapId, then: impl FnOnce(&str)) {
    let mut then = Some(then);
    with_heap(id, |heap| {
        if let Some(then) = then.take() {
            then(heap.name);
        }
    });
    if let Some(then) = then {
        then("that is gone");
    }
}

/// Calls `then` with a heap, if it is still there.
fn with_heap(id: HeapId, then: impl FnOnce(&Heap)) {
    if id == HeapId::GLOBAL {
        then(Heap::global());
    } else if let Some(visit) = Visit::to_any(id.0) {
        then(visit.heap());
    }
}
