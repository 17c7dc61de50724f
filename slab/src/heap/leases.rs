//! The calling thread and its shards of heap instances.
//!
//! Owns a page per thread that uses instances: one entry per heap number, so finding the thread's
//! shard is a load of the page's address, a comparison and a load. Protocol: an entry is valid if its
//! generation is the heap's; a heap that took the number of a dropped one has another generation, so
//! what was left in the table is never followed. The thread alone touches its table. A thread without
//! one points at a table in which nothing is valid, so the way to the shard has no null check.
//!
//! At its end a thread gives its shards back to those heaps that still exist, by a visit through
//! their gates, since it borrows none of them. Pages of tables are counted as metadata of the global
//! heap, because they belong to no instance.

use std::cell::Cell;
use std::ptr;

use super::registry::{PLACES, Visit};
use super::{Heap, local};
use crate::counter::SharedCounter;
use crate::os;
use crate::shard::Shard;
use crate::shard::lease::{LeaseWord, Unpark};
use crate::sync::weakened;

/// Bytes of all tables.
static TABLE_BYTES: SharedCounter = SharedCounter::new();

pub(super) static NO_TABLE: Table = Table { entries: [const { Entry::vacant() }; PLACES] };

/// A thread's entries. Found through the thread's cell in [`local`].
pub(super) struct Table {
    entries: [Entry; PLACES],
}

// SAFETY: a table is its thread's; the static one is never written.
unsafe impl Sync for Table {}

const _: () = assert!(size_of::<Table>() <= 4096, "a table is a page");

struct Entry {
    /// The heap's generation, marked [`PARKED`] while the thread has stepped back from the shard.
    generation: Cell<usize>,
    shard: Cell<*const Shard>,
}

/// Mark in an entry's generation: no heap has it, so the fast path finds no shard.
const PARKED: usize = 1 << (usize::BITS - 1);

impl Entry {
    const fn vacant() -> Self {
        Self { generation: Cell::new(0), shard: Cell::new(ptr::null()) }
    }

    /// The shard that the entry names.
    ///
    /// # Safety
    /// The generation was the living heap's, marked or not, so the shard is there.
    unsafe fn shard(&self) -> &'static Shard {
        // SAFETY: by contract; `'static` says only that no borrow tracks the heap's life.
        unsafe { &*self.shard.get() }
    }
}

/// The thread's shard of an instance, or the sentinel.
#[inline(always)]
pub(crate) fn shard(heap: &Heap) -> &'static Shard {
    let entry = entry(heap);
    if entry.generation.get() == heap.generation {
        // SAFETY: the heap is borrowed, so it lives, and the entry is of this very heap.
        unsafe { entry.shard() }
    } else {
        Shard::sentinel()
    }
}

/// The thread's shard of an instance after all that can be done to have one; as
/// [`local::acquire`].
#[cold]
#[inline(never)]
pub(crate) fn acquire(heap: &Heap) -> Option<&'static Shard> {
    if let Found::Shard(answer) = take_known(heap) {
        return answer;
    }
    if !local::arm() {
        return None;
    }
    // Arming may allocate, on some systems; if that came here, it leased.
    if let Found::Shard(answer) = take_known(heap) {
        return answer;
    }
    make_table()?;
    let shard = heap.shards.lease(heap.key(), heap.backing, &heap.threshold)?;
    let entry = entry(heap);
    entry.shard.set(shard);
    entry.generation.set(heap.generation);
    Some(shard)
}

/// The shard of an instance that the thread has, leased or parked.
pub(super) fn leased(heap: &Heap) -> Option<&'static Shard> {
    let entry = entry(heap);
    if entry.generation.get() & !PARKED != heap.generation {
        return None;
    }
    // SAFETY: the heap is borrowed, and the entry is its.
    Some(unsafe { entry.shard() })
}

/// In a forked child: a parked shard that somebody had claimed is lost to its thread too.
pub(super) fn forget_orphaned(heap: &Heap) {
    if leased(heap).is_some_and(|shard| shard.lease.word() == LeaseWord::ORPHANED) {
        entry(heap).generation.set(0);
    }
}

/// Steps back from every shard of an instance; see [`crate::thread::park`].
pub(crate) fn park() {
    visit_entries(|entry, heap| {
        let generation = entry.generation.get();
        if generation & PARKED != 0 {
            return;
        }
        // SAFETY: the heap is visited.
        let shard = unsafe { entry.shard() };
        heap.settle(shard);
        if !weakened("park_keeps_the_shard") {
            entry.generation.set(generation | PARKED);
        }
        shard.counters.parks.add(1);
        shard.resting_since.set(os::coarse_millis());
        shard.lease.park();
    });
}

/// Posts what the shards of instances have gathered and takes back what was posted to them, parked or not.
pub(crate) fn flush() {
    visit_entries(|entry, heap| {
        // SAFETY: the heap is visited.
        let shard = unsafe { entry.shard() };
        if entry.generation.get() & PARKED == 0 {
            heap.settle(shard);
        } else {
            heap.settle_parked(shard);
        }
    });
}

/// Gives every shard of an instance back; see [`crate::thread::give_back`].
pub(crate) fn give_back() {
    visit_entries(|entry, heap| {
        // SAFETY: the heap is visited.
        let shard = unsafe { entry.shard() };
        if entry.generation.replace(0) & PARKED == 0 || shard.lease.try_unpark() == Unpark::Taken {
            heap.settle(shard);
            // SAFETY: the thread has the lease until the end of this function.
            unsafe { heap.return_empty_slabs(shard, os::coarse_millis()) };
            shard.resting_since.set(os::coarse_millis());
        }
        shard.lease.give_back();
    });
}

/// The thread ends: gives back shards and table. No table is made afterwards, because
/// [`local::arm`] refuses.
pub(crate) fn end() {
    give_back();
    let table = local::table();
    local::set_table(&raw const NO_TABLE);
    if !ptr::eq(table, &raw const NO_TABLE) {
        TABLE_BYTES.sub(table_bytes() as u64);
        // SAFETY: mapped in `make_table`, and no longer the thread's.
        unsafe { os::unmap(table.cast_mut().cast(), table_bytes()) };
    }
}

/// Bytes of all threads' tables.
pub(crate) fn bytes() -> u64 {
    TABLE_BYTES.get()
}

#[inline(always)]
fn entry(heap: &Heap) -> &'static Entry {
    let table = local::table();
    // SAFETY:
    // 1. the cell holds the static table or the thread's own, which goes only in `end`, when
    //    nobody holds an entry; no reference to an entry is kept beyond one call;
    // 2. heap numbers are below the number of places.
    unsafe { (*table).entries.get_unchecked(heap.id.0 as usize) }
}

/// What the thread's entry of a heap says.
enum Found {
    /// The heap's shard, leased or taken back; or `None` while the scavenger has it.
    Shard(Option<&'static Shard>),
    /// Nothing of this heap.
    Nothing,
}

fn take_known(heap: &Heap) -> Found {
    let entry = entry(heap);
    let generation = entry.generation.get();
    if generation & !PARKED != heap.generation {
        return Found::Nothing;
    }
    // SAFETY: the heap is borrowed, and the entry is its.
    let shard = unsafe { entry.shard() };
    if generation & PARKED != 0 {
        if shard.lease.try_unpark() == Unpark::Claimed {
            return Found::Shard(None);
        }
        entry.generation.set(heap.generation);
    }
    Found::Shard(Some(shard))
}

fn make_table() -> Option<()> {
    if !ptr::eq(local::table(), &raw const NO_TABLE) {
        return Some(());
    }
    let made = os::map_aligned(table_bytes(), os::page_size());
    if made.is_null() {
        return None;
    }
    TABLE_BYTES.add(table_bytes() as u64);
    // Zeros are a table of vacant entries.
    local::set_table(made.cast());
    Some(())
}

fn table_bytes() -> usize {
    size_of::<Table>().next_multiple_of(os::page_size())
}

/// Calls `each` for every entry whose heap still exists, inside its gate.
fn visit_entries(each: impl Fn(&Entry, &Heap)) {
    let table = local::table();
    if ptr::eq(table, &raw const NO_TABLE) {
        return;
    }
    // SAFETY: the thread's own table; see `entry`.
    for (id, entry) in unsafe { &(*table).entries }.iter().enumerate() {
        let generation = entry.generation.get() & !PARKED;
        if generation == 0 {
            continue;
        }
        match Visit::to(id as u8, generation) {
            Some(visit) => each(entry, visit.heap()),
            None => entry.generation.set(0),
        }
    }
}
