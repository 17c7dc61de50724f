//! A heap that retires every free: no block is used again while a reader's guard is held that found it.
//!
//! A real heap over a real domain. A reader enters, looks for a linked block and reads it; the other
//! thread unlinks it, frees it, collects, allocates until it gets it again, and writes to it. In the
//! first test the block is of the freeing thread's own shard; in the second it is another's, to whom it
//! travels when its grace period is over, and whose shard then hands it out (rules R1, S2, S3; D6).
//!
//! needs: crossbeam_loom
//! control: heap_frees_at_once: Causality violation
//! control: batch_without_grace: Causality violation
#![cfg(all(flagstone_loom, crossbeam_loom))]

use std::alloc::Layout;
use std::ptr::NonNull;

use flagstone_epoch::Domain;
use flagstone_loom_tests::heap::{World, builder, end, spawn};
use flagstone_loom_tests::model_within;
use flagstone_slab::model::{look, write};
use flagstone_slab::thread;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicPtr, Ordering};

/// Four blocks of it are linked at a time.
const BYTES: usize = 1024;

struct Shared {
    heap: World,
    linked: AtomicPtr<usize>,
}

fn layout() -> Layout {
    Layout::from_size_align(BYTES, 8).expect("a layout")
}

/// `remote`: the block's shard is not that of the thread that frees it.
fn check(name: &str, preemptions: usize, remote: bool) {
    model_within(preemptions, name, move || {
        let domain = Domain::builder().batch_blocks(1).build().expect("in range");
        let shards = if remote { 2 } else { 1 };
        let heap = builder(&[BYTES], shards).retire_frees(true).domain(domain).build();
        let shared = Arc::new(Shared {
            heap: World::new(heap.expect("memory")),
            linked: AtomicPtr::new(std::ptr::null_mut()),
        });
        let make = {
            let shared = Arc::clone(&shared);
            move || {
                let block = shared.heap.alloc(layout()).as_ptr().cast::<usize>();
                // SAFETY: just allocated.
                unsafe { write(block, 1) };
                shared.linked.store(block, Ordering::Release);
            }
        };
        if remote {
            spawn(make).join().unwrap();
        } else {
            make();
        }
        // Its record exists before the threads start: loom does not see std's `OnceLock`, which
        // publishes new ones.
        drop([shared.heap.domain().register(), shared.heap.domain().register()]);
        // A shard that somebody leased goes to whoever leases next.
        thread::give_back();
        let freer = {
            let shared = Arc::clone(&shared);
            spawn(move || {
                shared.heap.join_domain();
                let block = shared.linked.swap(std::ptr::null_mut(), Ordering::AcqRel);
                let freed = NonNull::new(block.cast()).expect("linked above");
                // SAFETY: allocated above, unlinked, and given up.
                unsafe { shared.heap.dealloc(freed, layout()) };
                shared.heap.collect();
                if remote {
                    // The next lease is that of the other shard.
                    thread::give_back();
                }
                let blocks = [(); 4].map(|()| shared.heap.alloc(layout()));
                for block in blocks {
                    // SAFETY: just allocated.
                    unsafe { write(block.as_ptr().cast::<usize>(), 2) };
                }
                blocks.contains(&freed)
            })
        };

        let participant = shared.heap.domain().register();
        let guard = participant.pin();
        let block = shared.linked.load(Ordering::Acquire);
        if !block.is_null() {
            // SAFETY: the claim under test: nobody writes to it while the guard is held.
            assert_eq!(unsafe { look(block) }, 1, "used again under a guard");
        }
        drop(guard);
        drop(participant);
        let again = freer.join().unwrap();
        end();
        // The case that matters: the reader was there before.
        again && !block.is_null()
    });
}

// requirement: D6
#[test]
fn an_owners_free_waits_for_readers() {
    check("heap_retire", 1, false);
}

// requirement: D6
#[test]
fn a_remote_free_waits_for_readers() {
    check("heap_retire_remote", 1, true);
}
