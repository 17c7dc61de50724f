//! Threads without a shard: everything works through the buckets, and is counted there.
//!
//! A thread is without one for certain after its exit hook has run, in the destructors of keys made
//! after the heap's. [`without_shard`] runs its argument there.

use std::alloc::{GlobalAlloc, Layout};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use flagstone_slab::stats::ClassSnapshot;
use flagstone_slab::thread::Lease;
use flagstone_slab::{Flagstone, Heap};

#[global_allocator]
static ALLOCATOR: Flagstone = Flagstone::new();

/// The tests of this file look at process-wide figures: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

type Errand = Box<dyn FnOnce() + Send>;

/// Runs `errand` on a new thread that has had its shard and has given it back for good.
fn without_shard<R: Send>(errand: impl FnOnce() -> R + Send) -> R {
    let mut outcome = None;
    thread::scope(|scope| {
        let place = &mut outcome;
        let run = move || *place = Some(catch_unwind(AssertUnwindSafe(errand)));
        let run: Box<dyn FnOnce() + Send + '_> = Box::new(run);
        // SAFETY: the errand runs before the thread's system thread ends, which `join` waits for.
        let run: Errand = unsafe { std::mem::transmute(run) };
        let thread = scope.spawn(move || {
            // The heap's key comes first, and with it the heap's hook.
            assert!(matches!(flagstone_slab::thread::lease(), Lease::Shard(_)));
            let run = Box::into_raw(Box::new(run));
            // SAFETY: the key exists; its destructor expects what is set here.
            assert_eq!(unsafe { libc::pthread_setspecific(key(), run.cast()) }, 0);
        });
        thread.join().unwrap();
    });
    match outcome.expect("the key's destructor has run") {
        Ok(result) => result,
        Err(panic) => resume_unwind(panic),
    }
}

fn key() -> libc::pthread_key_t {
    static KEY: OnceLock<libc::pthread_key_t> = OnceLock::new();
    *KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: `key` is a valid place; the destructor has the right type.
        assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(run_errand)) }, 0);
        key
    })
}

extern "C" fn run_errand(value: *mut libc::c_void) {
    // SAFETY: set by `without_shard`, taken once: the system clears the value before the call.
    let errand = unsafe { Box::from_raw(value.cast::<Errand>()) };
    errand();
}

fn class(bytes: u64) -> ClassSnapshot {
    let snapshot = Heap::global().snapshot();
    *snapshot.classes.iter().find(|class| class.block_bytes >= bytes).unwrap()
}

fn alloc(layout: Layout) -> usize {
    // SAFETY: layouts of these tests are not empty.
    let block = unsafe { ALLOCATOR.alloc(layout) };
    assert!(!block.is_null());
    block.expose_provenance()
}

fn free(block: usize, layout: Layout) {
    // SAFETY: the tests free what they allocated, once, with the same layout.
    unsafe { ALLOCATOR.dealloc(std::ptr::with_exposed_provenance_mut(block), layout) }
}

// requirement: D2, D4
#[test]
fn a_thread_without_a_shard_allocates_resizes_and_frees() {
    let _guard = ONE_AT_A_TIME.lock();
    let before = Heap::global().snapshot().tiers;
    without_shard(|| {
        assert_eq!(flagstone_slab::thread::shard(), None);
        assert_eq!(flagstone_slab::thread::lease(), Lease::Buckets);
        let mut all: Vec<Vec<usize>> = (0..50).map(|_| Vec::new()).collect();
        for i in 0..3_000 {
            for (v, vector) in all.iter_mut().enumerate() {
                vector.push(i * 50 + v);
            }
        }
        for (v, vector) in all.iter().enumerate() {
            assert!(vector.iter().enumerate().all(|(i, &x)| x == i * 50 + v));
        }
        for shift in 0..24 {
            let layout = Layout::from_size_align(3 << (shift / 2), 1 << shift).unwrap();
            let blocks: Vec<usize> = (0..20).map(|_| alloc(layout)).collect();
            assert!(blocks.iter().all(|block| block % layout.align() == 0), "{layout:?}");
            blocks.into_iter().for_each(|block| free(block, layout));
        }
        flagstone_slab::thread::park();
        flagstone_slab::thread::give_back();
        flagstone_slab::thread::flush();
        assert_eq!(flagstone_slab::thread::shard(), None);
    });
    let after = Heap::global().snapshot().tiers;
    assert!(after.bucket_hits > before.bucket_hits);
    assert_eq!(after.failures, before.failures);
}

#[test]
fn blocks_cross_between_buckets_and_shards_both_ways_and_the_books_close() {
    let _guard = ONE_AT_A_TIME.lock();
    // A class that nothing else in this process uses.
    let layout = Layout::from_size_align(1_777, 8).unwrap();
    let before = class(1_777);
    let deferred = Heap::global().snapshot().deferred_blocks();
    let made = without_shard(|| (0..500).map(|_| alloc(layout)).collect::<Vec<_>>());
    let during = class(1_777);
    assert_eq!(during.in_use - before.in_use, 500);
    assert_eq!(during.bucket_allocs - before.bucket_allocs, 500);
    // Half by a thread with a shard, half by one without.
    let (here, there) = made.split_at(250);
    here.iter().for_each(|&block| free(block, layout));
    flagstone_slab::thread::flush();
    without_shard(|| there.iter().for_each(|&block| free(block, layout)));
    let after = class(1_777);
    assert_eq!(after.in_use, before.in_use);
    assert_eq!(after.bucket_frees - before.bucket_frees, 500);
    // The other way: made here, freed by a thread without a shard, taken back here.
    let made: Vec<_> = (0..500).map(|_| alloc(layout)).collect();
    without_shard(|| made.iter().for_each(|&block| free(block, layout)));
    flagstone_slab::thread::flush();
    assert_eq!(class(1_777).in_use, before.in_use);
    let snapshot = Heap::global().snapshot();
    // A few blocks of the test harness may wait at a thread that sleeps; ours were 1,500.
    let waiting = snapshot.deferred_blocks().abs_diff(deferred);
    assert!(waiting < 50, "{waiting} blocks seem to wait: {:?}", snapshot.remote);
    assert_eq!(snapshot.bytes.residual(), 0, "{:?}", snapshot.bytes);
}

#[test]
fn a_peak_within_the_bucket_is_missed_by_at_most_a_slab() {
    let _guard = ONE_AT_A_TIME.lock();
    let heap = Heap::global();
    let layout = Layout::from_size_align(2_300, 8).unwrap();
    let capacity = (64 << 10) / class(2_300).block_bytes;
    heap.set_decay(Duration::ZERO);
    // Partly used slabs of an idle shard move to the bucket, which then needs no fresh slab.
    let kept = thread::spawn(move || {
        let made: Vec<_> = (0..40 * capacity).map(|_| alloc(layout)).collect();
        let (kept, dropped): (Vec<_>, Vec<_>) =
            made.into_iter().enumerate().partition(|(i, _)| (*i as u64).is_multiple_of(capacity));
        dropped.into_iter().for_each(|(_, block)| free(block, layout));
        kept
    })
    .join()
    .unwrap();
    heap.scavenge();
    heap.reset_window_high_water();
    let before = class(2_300);
    assert!(before.in_use < 80, "{before:?}");
    let peak = 30 * (capacity - 1);
    without_shard(|| {
        let blocks: Vec<_> = (0..peak).map(|_| alloc(layout)).collect();
        blocks.into_iter().for_each(|block| free(block, layout));
    });
    let after = class(2_300);
    assert_eq!(after.in_use, before.in_use);
    assert_eq!(after.bucket_allocs - before.bucket_allocs, peak, "from the slabs that moved");
    let seen = after.window_high_water - before.in_use;
    assert!(seen <= peak && seen + 2 * capacity >= peak, "{seen} seen of {peak}");
    kept.into_iter().for_each(|(_, block)| free(block, layout));
    heap.set_decay(Duration::from_secs(1));
}

#[test]
fn slabs_move_between_bucket_and_shards_under_load() {
    let _guard = ONE_AT_A_TIME.lock();
    let heap = Heap::global();
    let layout = Layout::from_size_align(5_555, 8).unwrap();
    let before = class(5_555);
    heap.set_decay(Duration::ZERO);
    let shared = Mutex::new(Vec::new());
    let work = |me: usize| {
        let mut mine = Vec::new();
        for i in 0..3_000usize {
            let block = alloc(layout);
            // SAFETY: allocated above, two words large.
            unsafe {
                let words = std::ptr::with_exposed_provenance_mut::<usize>(block);
                words.write(me);
                words.add(600).write(block);
            }
            mine.push((block, me));
            if i % 7 == 0 {
                shared.lock().unwrap().append(&mut mine);
            }
            let next = shared.lock().unwrap().pop().or_else(|| mine.pop());
            if let Some((block, maker)) = next
                && i % 5 != 0
            {
                let words = std::ptr::with_exposed_provenance::<usize>(block);
                // SAFETY: written by its maker, handed over under the lock.
                unsafe { assert_eq!((words.read(), words.add(600).read()), (maker, block)) };
                free(block, layout);
            } else {
                mine.extend(next);
            }
            if i % 97 == 0 {
                flagstone_slab::thread::park();
                heap.scavenge();
            }
        }
        shared.lock().unwrap().append(&mut mine);
    };
    thread::scope(|scope| {
        let work = &work;
        let without = (0..2).map(|me| scope.spawn(move || without_shard(|| work(me))));
        let with = (10..12).map(|me| scope.spawn(move || work(me)));
        let threads: Vec<_> = without.chain(with).collect();
        // The scope's own wait ends before the threads' exit hooks have run; joining does not.
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    for (block, _) in shared.into_inner().unwrap() {
        free(block, layout);
    }
    heap.purge();
    let after = class(5_555);
    assert_eq!(after.in_use, before.in_use);
    assert!(after.bucket_allocs > before.bucket_allocs && after.remote_frees > before.remote_frees);
    heap.set_decay(Duration::from_secs(1));
}
