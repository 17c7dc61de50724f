//! Fork: the child of a threaded process gets a heap that it can use.
//!
//! Owns what happens around `fork`. Protocol: before, the forking thread takes every lock of the
//! global heap, in one fixed order (buckets by class, fallback, shard list, pool); nobody else ever
//! holds two, so this cannot end in a deadlock. After, parent and child each let go of their copy.
//! So no lock is held by a thread that the child does not have, and nothing under a lock is
//! half done.
//!
//! Shards have no lock. In the child those of other threads are nobody's: parked and idle ones are
//! whole (their threads had stepped back) and become idle; one that was leased or claimed may have
//! been anywhere in its owner's code, so nothing in it is believed any more: it is *orphaned*, for
//! good. Its free blocks stay unused, in pages that the child shares with its parent and that cost
//! nothing while nobody writes to them. When the child frees a block of such a slab, the slab
//! alone moves to its class's bucket (rule K1).
//!
//! Only the global heap: a child should not use instances that other threads of its parent were using.

use std::cell::UnsafeCell;

use super::fallback::FallbackLock;
use super::pool::PoolLock;
use super::shards::ShardsLock;
use super::{Heap, local};
use crate::bucket::BucketLock;
use crate::layout::MAX_CLASSES;
use crate::os;
use crate::shard::lease::LeaseWord;

/// Every lock of the global heap, held. In the reverse of this order they were taken.
struct AllLocks {
    _pool: PoolLock<'static>,
    _shards: ShardsLock<'static>,
    _fallback: FallbackLock<'static>,
    _buckets: [BucketLock<'static>; MAX_CLASSES],
}

struct OverFork(UnsafeCell<Option<AllLocks>>);

// SAFETY: only whoever holds all locks touches the cell: written after the last one was taken,
// emptied before the first is let go.
unsafe impl Sync for OverFork {}

static OVER_FORK: OverFork = OverFork(UnsafeCell::new(None));

/// Sees to forks from now on. Called on the way to a thread's first shard, and to a large block,
/// which needs none.
pub(super) fn arm() {
    os::arm_fork_handlers(prepare, parent, child);
}

unsafe extern "C" fn prepare() {
    let heap = Heap::global();
    let threshold = &heap.threshold;
    let locks = AllLocks {
        _buckets: std::array::from_fn(|class| heap.buckets[class].hold(threshold)),
        _fallback: heap.fallback.hold(threshold),
        _shards: heap.shards.hold(threshold),
        _pool: heap.pool.hold(threshold),
    };
    // SAFETY: all locks are held, so the cell is ours.
    unsafe { *OVER_FORK.0.get() = Some(locks) };
}

unsafe extern "C" fn parent() {
    release();
}

unsafe extern "C" fn child() {
    let (own, home) = local::leased();
    for shard in Heap::global().shards.iter() {
        let mine = [own, home].into_iter().flatten().any(|mine| std::ptr::eq(mine, shard));
        match shard.lease.word() {
            LeaseWord::LEASED | LeaseWord::PARKED if mine => {}
            LeaseWord::PARKED => shard.lease.leave_idle(),
            LeaseWord::IDLE => {}
            // Leased or claimed by a thread that is not here. A claimed one of ours too: we look
            // for another.
            _ => shard.lease.orphan(),
        }
    }
    local::forget_orphaned_home();
    Heap::global().pool.all.list.forget_walkers();
    release();
}

fn release() {
    // SAFETY: this thread took all locks in `prepare`, so the cell is ours until they are let go.
    let locks = unsafe { (*OVER_FORK.0.get()).take() };
    drop(locks);
}

#[cfg(test)]
mod tests {
    use std::alloc::{GlobalAlloc, Layout};
    use std::sync::mpsc;

    use super::super::Flagstone;

    /// The child of a process whose other threads are busy allocating can allocate, and free what
    /// those threads had; the parent goes on.
    #[test]
    fn the_child_of_a_busy_process_allocates_and_frees() {
        const BLOCKS: usize = 5000;
        let layout = Layout::from_size_align(72, 8).expect("valid");
        // SAFETY: blocks are freed once per process, by whoever got them.
        let allocate = move || unsafe { Flagstone.alloc(layout) as usize };
        let (send, receive) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        let worker = std::thread::spawn(move || {
            let blocks: Vec<usize> = (0..BLOCKS).map(|_| allocate()).collect();
            send.send(blocks).expect("the test waits");
            while let Err(mpsc::TryRecvError::Empty) = stopped.try_recv() {
                let churn: Vec<usize> = (0..100).map(|_| allocate()).collect();
                // SAFETY: allocated just now.
                churn.iter().for_each(|&b| unsafe { Flagstone.dealloc(b as *mut u8, layout) });
            }
        });
        let blocks = receive.recv().expect("the worker sends");
        for _ in 0..20 {
            // SAFETY: the child calls only the allocator and `_exit`.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let mut seen = 0usize;
                for &block in &blocks {
                    // SAFETY: the child's copy of the block is the child's.
                    unsafe { Flagstone.dealloc(block as *mut u8, layout) };
                }
                for _ in 0..2 * BLOCKS {
                    let block = allocate();
                    if block == 0 {
                        break;
                    }
                    // SAFETY: allocated just now.
                    unsafe { (block as *mut u8).write_bytes(3, 72) };
                    seen += 1;
                }
                // SAFETY: ends the child without running the test harness's handlers.
                unsafe { libc::_exit(if seen == 2 * BLOCKS { 0 } else { 1 }) };
            }
            assert!(pid > 0);
            let mut status = 0;
            // SAFETY: `status` is a valid place.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
        }
        drop(stop);
        worker.join().expect("the worker ends");
        // SAFETY: the parent's blocks, freed once here.
        blocks.iter().for_each(|&b| unsafe { Flagstone.dealloc(b as *mut u8, layout) });
    }
}
