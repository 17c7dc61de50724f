//! Threads that come and go, park, outnumber shards, and free what is not theirs.

#![allow(clippy::disallowed_types, reason = "loom does not run this file")]

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use flagstone_slab::{Flagstone, Heap, stats::ShardState};

#[global_allocator]
static ALLOCATOR: Flagstone = Flagstone::new();

/// Written before `main` by [`before_main`].
static EARLY: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    let early = Box::new(*b"allocated before main, freed in it");
    EARLY.store(Box::into_raw(early).cast(), Ordering::Release);
}

#[test]
fn what_was_allocated_before_main_is_freed_by_another_thread() {
    let early = EARLY.swap(std::ptr::null_mut(), Ordering::Acquire);
    assert!(Heap::global().usable_size(early).is_some());
    // SAFETY: made by `Box::into_raw` of this type, taken once.
    let early = unsafe { Box::from_raw(early.cast::<[u8; 34]>()) };
    assert_eq!(&*early, b"allocated before main, freed in it");
}

#[test]
fn blocks_outlive_the_thread_that_allocated_them() {
    let kept: Vec<Vec<u64>> = (0..64u64)
        .map(|i| thread::spawn(move || (0..200).map(|j| i * 1000 + j).collect()).join().unwrap())
        .collect();
    for (i, vector) in kept.iter().enumerate() {
        assert!(vector.iter().enumerate().all(|(j, &x)| x == i as u64 * 1000 + j as u64));
    }
}

struct FreesAtExit(RefCell<Vec<Box<[u8]>>>);

impl Drop for FreesAtExit {
    fn drop(&mut self) {
        // Allocates and frees while the thread is being torn down.
        let copy: Vec<_> = self.0.borrow().iter().map(|b| b.to_vec()).collect();
        assert!(copy.iter().all(|c| c.len() == 100));
        self.0.borrow_mut().clear();
    }
}

thread_local! {
    static AT_EXIT: FreesAtExit = const { FreesAtExit(RefCell::new(Vec::new())) };
}

#[test]
fn destructors_of_thread_locals_may_allocate_and_free() {
    for _ in 0..32 {
        let foreign: Vec<Box<[u8]>> = (0..50).map(|i| Box::from([i as u8; 100])).collect();
        thread::spawn(move || {
            AT_EXIT.with(|at_exit| {
                at_exit.0.borrow_mut().extend(foreign);
                at_exit.0.borrow_mut().extend((0..50).map(|_| Box::<[u8]>::from([7; 100])));
            });
        })
        .join()
        .unwrap();
    }
}

#[test]
fn five_hundred_and_twelve_threads_come_and_go() {
    // requirement: D4
    for round in 0..2 {
        let barrier = Arc::new(Barrier::new(512));
        let (sender, receiver) = mpsc::channel::<Vec<Box<[u8]>>>();
        let threads: Vec<_> = (0..512usize)
            .map(|i| {
                let (barrier, sender) = (barrier.clone(), sender.clone());
                thread::Builder::new()
                    .stack_size(64 * 1024)
                    .spawn(move || {
                        barrier.wait();
                        let made: Vec<Box<[u8]>> = (0..64)
                            .map(|j| vec![i as u8; 1 + (i * 7 + j * 31) % 3000].into_boxed_slice())
                            .collect();
                        sender.send(made).unwrap();
                    })
                    .unwrap()
            })
            .collect();
        drop(sender);
        let mut blocks = 0;
        for made in receiver {
            assert!(made.iter().all(|b| b.iter().all(|&x| x == made[0][0])), "round {round}");
            blocks += made.len();
        }
        assert_eq!(blocks, 512 * 64);
        for thread in threads {
            thread.join().unwrap();
        }
    }
    let snapshot = Heap::global().snapshot();
    assert!(
        snapshot.shards.len() < 700,
        "{} shards: exited ones are adopted",
        snapshot.shards.len()
    );
    assert!(snapshot.shards_in(ShardState::Idle) > 100);
}

#[test]
fn a_parked_thread_comes_back_to_its_shard_whatever_the_scavenger_does() {
    let stop = Arc::new(AtomicBool::new(false));
    let scavenger = thread::spawn({
        let stop = stop.clone();
        move || {
            while !stop.load(Ordering::Relaxed) {
                Heap::global().scavenge();
                thread::yield_now();
            }
        }
    });
    let workers: Vec<_> = (0..3u8)
        .map(|me| {
            thread::spawn(move || {
                let mut kept: Vec<Vec<u8>> = Vec::new();
                let mut parked = 0;
                for i in 0..5_000usize {
                    kept.push(vec![me; 1 + i % 500]);
                    if kept.len() > 100 {
                        kept.swap_remove(i % 100);
                    }
                    if i % 5 == 0 {
                        // Without a shard, because the scavenger has it, there is nothing to park.
                        parked += u64::from(flagstone_slab::thread::shard().is_some());
                        flagstone_slab::thread::park();
                    }
                    if i % 50 == 0 {
                        thread::yield_now();
                    }
                }
                assert!(kept.iter().all(|v| v.iter().all(|&x| x == me)));
                #[cfg(debug_assertions)]
                Heap::global().debug_validate();
                parked
            })
        })
        .collect();
    let parked: u64 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    stop.store(true, Ordering::Relaxed);
    scavenger.join().unwrap();
    let snapshot = Heap::global().snapshot();
    assert!(parked > 0);
    assert!(snapshot.shards.iter().map(|s| s.parks).sum::<u64>() >= parked);
    assert!(snapshot.shards.iter().map(|s| s.claims).sum::<u64>() > 0);
}

#[test]
fn a_thread_that_only_frees_returns_everything_to_its_owner() {
    const BLOCKS: usize = 20_000;
    let heap = Heap::global();
    // A size that no other test of this file uses, so that its class's counters are ours.
    type Block = [u8; 9_000];
    let class_of = || {
        let snapshot = heap.snapshot();
        *snapshot.classes.iter().find(|c| c.block_bytes >= 9_000).unwrap()
    };
    let before = class_of();
    let (sender, receiver) = mpsc::sync_channel::<Box<Block>>(64);
    let consumer = thread::spawn(move || receiver.into_iter().count());
    for _ in 0..BLOCKS {
        sender.send(Box::new([1; 9_000])).unwrap();
    }
    drop(sender);
    assert_eq!(consumer.join().unwrap(), BLOCKS);
    flagstone_slab::thread::flush();
    let deadline = Instant::now() + Duration::from_secs(30);
    // The consumer's last chains are posted by its exit hook, which may run after `join`.
    while class_of().in_use != before.in_use && Instant::now() < deadline {
        flagstone_slab::thread::flush();
        thread::yield_now();
    }
    let after = class_of();
    assert_eq!(after.in_use, before.in_use);
    assert!(after.allocs - before.allocs >= BLOCKS as u64);
    assert!(after.remote_frees > before.remote_frees, "the consumer's frees came back by inbox");
    assert!(
        after.high_water < 2_000,
        "{} blocks at once: what the consumer frees is used again",
        after.high_water
    );
}
