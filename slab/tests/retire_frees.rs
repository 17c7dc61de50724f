//! Heaps whose frees are all retired: a reader that entered before a free never sees the memory reused,
//! on every path that a free can take.

mod common;

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use common::{Traced, traced};
use flagstone_epoch::{Domain, Participant};
use flagstone_slab::Heap;

const LAYOUT: Layout = Layout::new::<[u64; 12]>();
const LIVE: u64 = 0xA1A1_A1A1_A1A1_A1A1;

fn heap() -> Traced {
    traced(Heap::builder().name("read").retire_frees(true))
}

fn eventually(what: &str, mut step: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !step() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::yield_now();
    }
}

/// A block that can be sent to another thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block(NonNull<u8>);

// SAFETY: the tests say who may touch it when.
unsafe impl Send for Block {}

impl Block {
    fn filled(heap: &Heap) -> Self {
        let block = heap.alloc(LAYOUT);
        // SAFETY: new, and large enough.
        unsafe { block.cast::<[u64; 12]>().write([LIVE; 12]) };
        Self(block)
    }

    fn assert_live(self) {
        // SAFETY: the reader holds a guard from before the block was freed.
        assert_eq!(unsafe { self.0.cast::<[u64; 12]>().read_volatile() }, [LIVE; 12]);
    }

    fn free(self, heap: &Heap) {
        // SAFETY: allocated from it, and given up by the test.
        unsafe { heap.dealloc(self.0, LAYOUT) };
    }
}

/// Nothing waits, for readers or on its way to an owner.
fn all_comes_back(heap: &Heap) {
    eventually("all is free", || {
        heap.collect();
        heap.purge();
        heap.snapshot().bytes.retired == 0 && heap.live_bytes() == 0
    });
}

/// Allocates as much of the class as would find the block if it were free, and frees it again.
fn churn(heap: &Heap, avoid: Block) {
    let blocks: Vec<_> = (0..2_000).map(|_| Block::filled(heap)).collect();
    assert!(!blocks.contains(&avoid), "reused under a guard");
    blocks.into_iter().for_each(|block| block.free(heap));
}

/// A reader enters, then `path` has the block freed; nobody gets it before the reader has left. The
/// block's owner is this thread.
fn never_reused_on(path: impl FnOnce(&Heap, Block)) {
    let heap = heap();
    let block = Block::filled(&heap);
    let (entered, wait_entered) = channel();
    let (leave, wait_leave) = channel::<()>();
    thread::scope(|scope| {
        let heap: &Heap = &heap;
        scope.spawn(move || {
            heap.enter();
            entered.send(()).expect("heard");
            let _ = wait_leave.recv();
            block.assert_live();
            heap.leave().expect("entered");
        });
        wait_entered.recv().expect("sent");
        path(heap, block);
        for _ in 0..3 {
            churn(heap, block);
            heap.scavenge();
            heap.collect();
        }
        block.assert_live();
        let bytes = heap.snapshot().bytes;
        assert!(bytes.retired >= 96, "{bytes:?}");
        drop(leave);
    });
    all_comes_back(&heap);
    assert_eq!(heap.snapshot().bytes.residual(), 0);
}

// requirement: D6
#[test]
fn an_owners_free_waits() {
    never_reused_on(|heap, block| block.free(heap));
}

// requirement: D6
#[test]
fn an_owners_free_waits_when_it_has_joined() {
    never_reused_on(|heap, block| {
        assert!(heap.join_domain());
        block.free(heap);
    });
}

// requirement: D6
#[test]
fn a_remote_free_waits() {
    for joined in [false, true] {
        never_reused_on(|heap, block| {
            let (freed, wait_freed) = channel();
            let (end, wait_end) = channel::<()>();
            thread::scope(|scope| {
                scope.spawn(move || {
                    if joined {
                        assert!(heap.join_domain());
                    }
                    block.free(heap);
                    freed.send(()).expect("heard");
                    // Still there, with an open batch, while the owner allocates.
                    let _ = wait_end.recv();
                    churn(heap, block);
                });
                wait_freed.recv().expect("sent");
                churn(heap, block);
                drop(end);
            });
        });
    }
}

// requirement: D6
#[test]
fn the_frees_of_a_thread_that_ends_wait() {
    for joined in [false, true] {
        never_reused_on(|heap, block| {
            thread::scope(|scope| {
                scope.spawn(move || {
                    if joined {
                        assert!(heap.join_domain());
                    }
                    block.free(heap);
                });
            });
        });
    }
}

/// The scavenger claims the shards of parked threads and drains their inboxes; what it frees, it frees
/// after the grace period.
// requirement: D6
#[test]
fn what_the_scavenger_frees_has_waited() {
    never_reused_on(|heap, block| {
        thread::scope(|scope| {
            scope.spawn(move || {
                assert!(heap.join_domain());
                block.free(heap);
                flagstone_slab::thread::park();
                heap.scavenge();
                heap.purge();
            });
        });
        heap.purge();
    });
}

/// A resize leaves the old block to its readers, of whatever size.
// requirement: D6
#[test]
fn a_resize_moves_and_the_old_block_waits() {
    let heap = heap();
    for (old, new) in [(96, 4_000), (700_000, 5_000_000), (5_000_000, 700_000), (4_000, 96)] {
        let (old, new) =
            [old, new].map(|n| Layout::from_size_align(n, 8).expect("a layout")).into();
        let block = heap.alloc(old);
        // SAFETY: new, and large enough.
        unsafe { block.write_bytes(0xA1, old.size()) };
        heap.enter();
        // SAFETY: allocated above with this layout.
        let moved = unsafe { heap.realloc(block, old, new) };
        assert_ne!(moved, block);
        heap.purge();
        // SAFETY: entered before the resize, and so it is there; the new one is ours.
        let (was, is) = unsafe {
            let was = std::slice::from_raw_parts(block.as_ptr(), old.size());
            (was, std::slice::from_raw_parts(moved.as_ptr(), old.size().min(new.size())))
        };
        assert!(was.iter().chain(is).all(|&byte| byte == 0xA1));
        assert_eq!(heap.snapshot().bytes.retired, retired_bytes(old.size()));
        heap.leave().expect("entered");
        heap.collect();
        assert_eq!(heap.snapshot().bytes.retired, 0);
        // SAFETY: the resize gave it, and nobody reads it.
        unsafe { heap.dealloc(moved, new) };
        heap.collect();
    }
    assert_eq!(heap.live_bytes(), 0);
}

/// What a block counts for: its class's block size, or what was requested of the fallback.
fn retired_bytes(size: usize) -> u64 {
    if size > 512 << 10 { size as u64 } else { class_of(size) }
}

fn class_of(size: usize) -> u64 {
    let snapshot = heap().snapshot();
    let classes = snapshot.classes.iter().map(|class| class.block_bytes);
    classes.filter(|&bytes| bytes >= size as u64).min().expect("a class")
}

/// Blocks that wait when their heap ends go with it, and never as blocks of a heap that came after.
#[test]
fn what_waits_when_the_heap_ends_harms_no_other() {
    let domain = Domain::new();
    let reader: Participant = domain.register();
    for _ in 0..600 {
        let guard = reader.pin();
        let first =
            traced(Heap::builder().retire_frees(true).domain(domain.clone())).leaving_blocks();
        (0..10).for_each(|_| Block::filled(&first).free(&first));
        assert_eq!(first.snapshot().bytes.retired, 960);
        drop(first);
        // Of the same numbers sooner or later, and of the same addresses.
        let second = heap().leaving_blocks();
        let blocks: Vec<_> = (0..100).map(|_| Block::filled(&second)).collect();
        drop(guard);
        domain.collect();
        assert_eq!(domain.snapshot().pending.blocks, 0);
        blocks.iter().for_each(|block| block.assert_live());
        assert_eq!(second.live_bytes(), 9_600);
    }
}

/// Readers, writers and the scavenger at once: every value that a reader finds is whole.
#[test]
fn readers_beside_writers_see_whole_values() {
    use std::sync::Mutex;
    let heap = heap();
    let slots: Vec<Mutex<Block>> = (0..8).map(|_| Mutex::new(Block::filled(&heap))).collect();
    thread::scope(|scope| {
        for n in 0..2 {
            let (heap, slots): (&Heap, _) = (&heap, &slots);
            scope.spawn(move || {
                for i in 0..3_000 {
                    let block = Block::filled(heap);
                    let old =
                        std::mem::replace(&mut *slots[(i * 7 + n) % 8].lock().unwrap(), block);
                    old.free(heap);
                }
            });
            scope.spawn(move || {
                assert!(heap.join_domain());
                for i in 0..3_000 {
                    heap.enter();
                    let seen: Vec<_> = slots.iter().map(|slot| *slot.lock().unwrap()).collect();
                    if i % 64 == 0 {
                        heap.scavenge();
                    }
                    seen.iter().for_each(|block| block.assert_live());
                    heap.leave().expect("entered");
                }
            });
        }
    });
    slots.into_iter().for_each(|slot| slot.into_inner().unwrap().free(&heap));
    all_comes_back(&heap);
}
