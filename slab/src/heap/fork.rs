//! Fork: the child of a threaded process gets heaps that it can use.
//!
//! Owns what happens around `fork`. Protocol: before, the forking thread enters the gate of every
//! instance, and no other opens; then it takes every lock of every heap, in one fixed order (the global
//! heap first; of each heap buckets by class, fallback, shard list, pool, then its backing's); nobody
//! else ever holds two, so this cannot end in a deadlock. After, parent and child each let go of their
//! copy. So no lock is held by a thread that the child does not have, and nothing under a lock is
//! half done.
//!
//! Shards have no lock. In the child those of other threads are nobody's: parked and idle ones are
//! whole (their threads had stepped back) and become idle; one that was leased or claimed may have
//! been anywhere in its owner's code, so nothing in it is believed any more: it is *orphaned*, for
//! good. Its free blocks stay unused, in pages that the child shares with its parent and that cost
//! nothing while nobody writes to them. When the child frees a block of such a slab, the slab
//! alone moves to its class's bucket (rule K1).
//!
//! An instance that another thread was making or ending is left as it is: nobody in the child can have
//! it. What a heap's domain holds is not of this protocol: a guard of a thread that is not there is
//! held for ever, so the child should not use instances that retire.

use std::cell::{Cell, UnsafeCell};
use std::ptr;

use super::fallback::FallbackLock;
use super::pool::PoolLock;
use super::shards::ShardsLock;
use super::{Heap, leases, local, registry};
use crate::bucket::BucketLock;
use crate::layout::MAX_CLASSES;
use crate::os;
use crate::shard::Shard;
use crate::shard::lease::LeaseWord;

/// Every lock of a heap, held. In the reverse of this order they were taken.
struct AllLocks {
    _pool: PoolLock<'static>,
    _shards: ShardsLock<'static>,
    _fallback: FallbackLock<'static>,
    _buckets: [BucketLock<'static>; MAX_CLASSES],
}

/// A heap's own place for its locks, so that a fork needs no memory.
pub(super) struct OverFork {
    locks: UnsafeCell<Option<AllLocks>>,
    /// Whether this is the copy of a heap that other threads may have been using: what they were about
    /// to add to the heap or to give back is lost to it.
    copied: Cell<bool>,
}

// SAFETY: only whoever holds all locks of the heap touches the first cell: written after the last one was
// taken, emptied before the first is let go. The second is written in a child without threads.
unsafe impl Sync for OverFork {}
// SAFETY: as above; the locks of a heap that moves are not held.
unsafe impl Send for OverFork {}

impl OverFork {
    pub(super) const fn new() -> Self {
        Self { locks: UnsafeCell::new(None), copied: Cell::new(false) }
    }

    /// Whether the heap's sums may be of more than the heap can find.
    pub(super) fn may_have_lost_memory(&self) -> bool {
        self.copied.get()
    }
}

/// Sees to forks from now on. Called on the way to a thread's first shard, and to a large block,
/// which needs none.
pub(super) fn arm() {
    os::arm_fork_handlers(prepare, parent, child);
}

unsafe extern "C" fn prepare() {
    // SAFETY: the global heap stays for ever, and instances while their gate is entered.
    unsafe {
        Heap::global().hold_all();
        registry::enter_all(|heap| heap.hold_all());
    }
}

unsafe extern "C" fn parent() {
    // SAFETY: `prepare` was called just before, by this thread.
    unsafe {
        registry::leave_all(false, |heap| heap.release_all());
        Heap::global().release_all();
    }
}

unsafe extern "C" fn child() {
    // SAFETY: `prepare` was called just before, by the thread that this one is a copy of.
    unsafe {
        registry::leave_all(true, |heap| {
            heap.orphan_shards([leases::leased(heap), None]);
            leases::forget_orphaned(heap);
            heap.release_all();
        });
        let (own, home) = local::leased();
        Heap::global().orphan_shards([own, home]);
        local::forget_orphaned_home();
        Heap::global().release_all();
    }
}

impl Heap {
    /// Takes every lock.
    ///
    /// # Safety
    /// The heap stays where it is until [`release_all`](Self::release_all).
    unsafe fn hold_all(&self) {
        // SAFETY: by contract; `'static` says only that no borrow tracks it.
        let heap: &'static Heap = unsafe { &*ptr::from_ref(self) };
        let threshold = &heap.threshold;
        let locks = AllLocks {
            _buckets: std::array::from_fn(|class| heap.buckets[class].hold(threshold)),
            _fallback: heap.fallback.hold(threshold),
            _shards: heap.shards.hold(threshold),
            _pool: heap.pool.hold(threshold),
        };
        // SAFETY: all locks are held, so the cell is ours.
        unsafe { *self.over_fork.locks.get() = Some(locks) };
        self.backing.before_fork();
    }

    /// Lets go of every lock.
    ///
    /// # Safety
    /// The thread, or the one that it is a copy of, called [`hold_all`](Self::hold_all) and not this since.
    unsafe fn release_all(&self) {
        // SAFETY: by contract; the locks are held, so the cell is ours until they are let go.
        let locks = unsafe {
            self.backing.after_fork();
            (*self.over_fork.locks.get()).take()
        };
        drop(locks);
    }

    /// In a forked child, before it has threads and while the locks are held: sorts the shards of threads
    /// that are not here.
    fn orphan_shards(&self, mine: [Option<&Shard>; 2]) {
        for shard in self.shards.iter() {
            let mine = mine.into_iter().flatten().any(|mine| ptr::eq(mine, shard));
            match shard.lease.word() {
                LeaseWord::LEASED | LeaseWord::PARKED if mine => {}
                LeaseWord::PARKED => shard.lease.leave_idle(),
                LeaseWord::IDLE => {}
                // Leased or claimed by a thread that is not here. A claimed one of ours too: we look
                // for another.
                _ => shard.lease.orphan(),
            }
        }
        self.pool.all.list.forget_walkers();
        self.over_fork.copied.set(true);
    }
}

#[cfg(test)]
#[path = "fork_tests.rs"]
mod tests;
