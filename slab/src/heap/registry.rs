//! Numbers of heap instances: 2..=127, one byte of the segment map each; 1 is the global heap.
//!
//! Owns the slots. Protocol: a number is taken by an exchange, published with a fresh generation
//! once its heap is ready, closed when the heap goes, and free again after the last entry of the
//! segment map that names it is cleared. So a number that is used again never finds anything of the
//! heap before it, but for threads' lease entries, which carry the generation. Numbers are given out
//! in turn: one that was just freed is used last, so that a stray block of a dropped heap rather
//! meets no heap at all than the wrong one.

use std::ptr;

use super::Heap;
use crate::gate::Gate;
use crate::layout::HeapId;
use crate::sync::{
    AtomicPtr, AtomicU8, Ordering, PlainLock, const_off_loom, each, per_execution, process,
};

/// Heap numbers that instances may have.
const INSTANCES: std::ops::RangeInclusive<u8> = 2..=HeapId::LAST.0;
/// Places of arrays that heap numbers index.
pub(super) const PLACES: usize = HeapId::LAST.0 as usize + 1;

const FREE: u8 = 0;
const TAKEN: u8 = 1;

pub(crate) struct Slot {
    state: AtomicU8,
    gate: Gate,
    heap: AtomicPtr<Heap>,
    /// Whether whoever forks is inside. Only while [`OPENING`] is held.
    over_fork: AtomicU8,
}

impl Slot {
    const_off_loom! {
        fn new() -> Self {
            Self {
                state: AtomicU8::new(FREE),
                gate: Gate::new(),
                heap: AtomicPtr::new(ptr::null_mut()),
                over_fork: AtomicU8::new(0),
            }
        }
    }
}

per_execution! {
    static SLOTS: [Slot; PLACES] = each![Slot::new(); PLACES];
}

per_execution! {
    /// Heaps open under it, so that none does while the process forks.
    static OPENING: PlainLock<()> = PlainLock::new(());
}

/// A number that belongs to one heap until this is dropped.
#[derive(Debug)]
pub(crate) struct Number {
    id: HeapId,
    generation: usize,
}

/// A heap that cannot go while this exists.
pub(crate) struct Visit {
    slot: &'static Slot,
}

impl Number {
    /// Takes a free number; `None` when every one is in use.
    pub(crate) fn take() -> Option<Number> {
        static TURN: process::AtomicUsize = process::AtomicUsize::new(0);
        static GENERATION: process::AtomicUsize = process::AtomicUsize::new(0);
        let count = INSTANCES.len();
        // Relaxed: only spreads the searches.
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        let id =
            (0..count).map(|i| INSTANCES.start() + ((turn + i) % count) as u8).find(|&id| {
                let state = &SLOTS[id as usize].state;
                // Acquire pairs with the release in `drop`: what the heap before left behind, the
                // cleared entries of the segment map above all, is seen by its successor.
                state.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok()
            })?;
        // Relaxed: unique by the exchange. At a heap per nanosecond it wraps after centuries; the
        // upper bit stays clear for a mark of the lease tables.
        let generation = GENERATION.fetch_add(1, Ordering::Relaxed) + 1;
        Some(Number { id: HeapId(id), generation })
    }

    pub(crate) fn id(&self) -> HeapId {
        self.id
    }

    pub(crate) fn generation(&self) -> usize {
        self.generation
    }

    /// Lets visitors in.
    ///
    /// # Safety
    /// `heap` stays where it is, and valid, until [`close`](Self::close) has returned.
    pub(crate) unsafe fn open(&self, heap: *const Heap) {
        let slot = &SLOTS[self.id.0 as usize];
        // The models do not fork, and are spared the lock's interleavings.
        #[cfg(not(flagstone_loom))]
        let _opening = OPENING.lock();
        // Relaxed: published by the gate.
        slot.heap.store(heap.cast_mut(), Ordering::Relaxed);
        slot.gate.open(self.generation);
    }

    /// Lets nobody in any more and waits for those inside.
    pub(crate) fn close(&self) {
        let gate = &SLOTS[self.id.0 as usize].gate;
        gate.close();
        while !gate.is_empty() {
            std::thread::yield_now();
        }
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        // Release pairs with the acquire in `take`.
        SLOTS[self.id.0 as usize].state.store(FREE, Ordering::Release);
    }
}

impl Visit {
    /// Visits the instance with this number and generation, if it is still there.
    pub(crate) fn to(id: u8, generation: usize) -> Option<Visit> {
        let slot = SLOTS.get(id as usize)?;
        // Not `then_some`: a visit that is made must leave.
        slot.gate.enter(generation).then(|| Visit { slot })
    }

    /// Visits the instance that has this number now, if any.
    pub(crate) fn to_any(id: u8) -> Option<Visit> {
        let slot = SLOTS.get(id as usize)?;
        slot.gate.enter_any().then(|| Visit { slot })
    }

    pub(crate) fn heap(&self) -> &Heap {
        // SAFETY: inside the gate the heap is valid, by the contract of `open`.
        unsafe { &*self.slot.heap.load(Ordering::Relaxed) }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.slot.gate.leave();
    }
}

/// Enters every instance that there is and stays inside, for a fork; no instance opens until
/// [`leave_all`].
pub(super) fn enter_all(mut each: impl FnMut(&Heap)) {
    OPENING.hold();
    for slot in &SLOTS[*INSTANCES.start() as usize..] {
        if slot.gate.enter_any() {
            // Relaxed: read by this thread, or by its copy in the child.
            slot.over_fork.store(1, Ordering::Relaxed);
            // SAFETY: inside the gate the heap is valid, by the contract of `open`.
            each(unsafe { &*slot.heap.load(Ordering::Relaxed) });
        }
    }
}

/// Leaves the instances that [`enter_all`] entered. In a forked child, before it has threads, whoever
/// else was inside of one is not there any more.
///
/// # Safety
/// The thread, or the one that it is a copy of, called `enter_all` and not this since.
pub(super) unsafe fn leave_all(in_child: bool, mut each: impl FnMut(&Heap)) {
    for slot in &SLOTS[*INSTANCES.start() as usize..] {
        if slot.over_fork.load(Ordering::Relaxed) != 0 {
            slot.over_fork.store(0, Ordering::Relaxed);
            // SAFETY: still inside.
            each(unsafe { &*slot.heap.load(Ordering::Relaxed) });
            if !in_child {
                slot.gate.leave();
            }
        }
        if in_child {
            slot.gate.forget_visitors();
        }
    }
    // SAFETY: by contract.
    unsafe { OPENING.release() };
}

impl Heap {
    /// Calls `each` for the global heap and for every instance there is, one after the other. A heap
    /// that is dropped meanwhile by another thread waits for the call that looks at it; so `each`
    /// should be short, and must neither drop a heap nor fork.
    pub fn for_each(mut each: impl FnMut(&Heap)) {
        each(Heap::global());
        for id in INSTANCES {
            if let Some(visit) = Visit::to_any(id) {
                each(visit.heap());
            }
        }
    }
}
