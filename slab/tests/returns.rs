//! Memory returns: by purge, by slow paths, from sleeping and from blocked threads; what cannot be
//! reached is said, and the books close before and after.

use std::process::Command;
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use flagstone_slab::stats::{ClassSnapshot, HeapSnapshot};
use flagstone_slab::{Flagstone, Heap};

#[global_allocator]
static ALLOCATOR: Flagstone = Flagstone::new();

/// The tests of this file look at process-wide figures: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn class(snapshot: &HeapSnapshot, bytes: u64) -> ClassSnapshot {
    *snapshot.classes.iter().find(|class| class.block_bytes >= bytes).unwrap()
}

/// Asks until it is so, far longer than it can take.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited a minute until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A peak of small and larger blocks of which one in `kept` survives.
fn peak(blocks: usize, kept: usize) -> Vec<Vec<u8>> {
    let all: Vec<Vec<u8>> = (0..blocks).map(|i| vec![i as u8; 16 + i * 7919 % 20_000]).collect();
    all.into_iter().enumerate().filter(|(i, _)| i % kept == 0).map(|(_, block)| block).collect()
}

// requirement: D2, "ours" 4 and 5
#[test]
fn a_purge_says_what_it_gave_back_and_the_books_close() {
    let _alone = alone();
    let heap = Heap::global();
    heap.set_decay(Duration::from_secs(3_600));
    heap.purge();
    for kept in [7, 100, 1_000] {
        let survivors = peak(6_000, kept);
        let before = heap.snapshot().bytes;
        assert_eq!(before.residual(), 0, "{before:?}");
        let report = heap.purge();
        let after = heap.snapshot().bytes;
        assert_eq!(after.residual(), 0, "{after:?}");
        let gone = before.mapped - after.mapped;
        let said = report.returned.total();
        // The second snapshot's vectors may have taken a slab.
        assert!(gone.abs_diff(said) <= 1 << 20, "{gone} bytes are gone, {report:?}");
        assert!(said > 30 << 20, "{report:?}");
        assert!(report.returned.parts > 0, "survivors do not pin whole slabs: {report:?}");
        assert_eq!(report.scavenged.bytes_purged + report.returned.large, said, "{report:?}");
        assert_eq!(report.refused_bytes, 0, "{report:?}");
        let again = heap.purge();
        assert!(again.returned.total() < 1 << 20, "nothing is given back twice: {again:?}");
        for (i, block) in survivors.iter().enumerate() {
            assert!(block.iter().all(|&byte| byte == (i * kept) as u8));
        }
    }
    heap.set_decay(Duration::from_secs(1));
}

// requirement: D4, "ours" 2 and 5
#[test]
fn an_owner_that_blocks_without_parking_is_seen_and_reported() {
    let _alone = alone();
    let heap = Heap::global();
    let (to_main, from_owner) = channel();
    // Waiting at a barrier allocates nothing: a slow path would look into the inbox.
    let step = Arc::new(Barrier::new(2));
    let owner = thread::spawn({
        let step = Arc::clone(&step);
        move || {
            let blocks: Vec<Box<[u64; 41]>> = (0..2_000).map(|_| Box::new([7; 41])).collect();
            to_main.send(blocks).unwrap();
            step.wait();
            step.wait();
            flagstone_slab::thread::flush();
            step.wait();
        }
    });
    let blocks = from_owner.recv().unwrap();
    step.wait();
    drop(blocks);
    flagstone_slab::thread::flush();
    let report = heap.purge();
    assert!(report.pending_inboxes >= 1 && report.unreachable_shards >= 1, "{report:?}");
    let mut oldest = heap.snapshot().remote.oldest_inbox_nanos;
    assert!(oldest > 0 && heap.snapshot().remote.pending_inboxes >= 1);
    for _ in 0..3 {
        until("the age grows", || heap.snapshot().remote.oldest_inbox_nanos > oldest);
        oldest = heap.snapshot().remote.oldest_inbox_nanos;
    }
    let remote = heap.snapshot().remote;
    assert!(heap.snapshot().deferred_blocks() >= 1_000, "{remote:?}");
    step.wait();
    // Threads of the harness may have posts of their own waiting.
    until("the owner has looked", || heap.snapshot().deferred_blocks() < 100);
    step.wait();
    owner.join().unwrap();
}

// requirement: D4, "ours" 5
#[test]
fn frees_reach_the_slabs_of_an_owner_that_sleeps() {
    let _alone = alone();
    let heap = Heap::global();
    let bytes = 2_900u64;
    let before = class(&heap.snapshot(), bytes);
    let (to_main, from_owner) = channel();
    // Waiting at a barrier allocates nothing, which would take the shard back.
    let end = Arc::new(Barrier::new(2));
    let owner = thread::spawn({
        let end = Arc::clone(&end);
        move || {
            let blocks: Vec<Vec<u8>> = (0..3_000).map(|_| vec![1; 2_900]).collect();
            to_main.send(blocks).unwrap();
            flagstone_slab::thread::park();
            end.wait();
        }
    });
    let blocks = from_owner.recv().unwrap();
    let sleeps = |s: &flagstone_slab::stats::ShardSnapshot| {
        s.state == flagstone_slab::stats::ShardState::Parked && s.live_bytes > 8 << 20
    };
    until("the owner sleeps", || heap.snapshot().shards.iter().any(sleeps));
    drop(blocks);
    let report = heap.purge();
    assert!(report.returned.total() > 8 << 20, "{report:?}");
    let after = class(&heap.snapshot(), bytes);
    assert_eq!(after.in_use, before.in_use);
    assert!(after.slabs <= before.slabs + 1, "{after:?}");
    end.wait();
    owner.join().unwrap();
}

#[test]
fn the_first_blocks_of_many_threads_share_their_slabs() {
    const THREADS: usize = 24;
    let _alone = alone();
    let heap = Heap::global();
    let before = class(&heap.snapshot(), 1_900);
    let made = Arc::new(Barrier::new(THREADS + 1));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let made = Arc::clone(&made);
            thread::spawn(move || {
                let block = vec![3u8; 1_900];
                flagstone_slab::thread::park();
                made.wait();
                made.wait();
                assert!(block.iter().all(|&byte| byte == 3));
            })
        })
        .collect();
    made.wait();
    let during = class(&heap.snapshot(), 1_900);
    assert_eq!(during.in_use - before.in_use, THREADS as u64);
    // The first shards of a heap do not borrow.
    assert!(during.slabs <= before.slabs + 8, "{} slabs", during.slabs - before.slabs);
    heap.purge();
    assert_eq!(heap.snapshot().bytes.residual(), 0);
    made.wait();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    until("the blocks are back", || class(&heap.snapshot(), 1_900).in_use == before.in_use);
}

#[test]
fn slow_paths_decay_without_a_scavenger_and_the_budget_stays_while_in_use() {
    let _alone = alone();
    let heap = Heap::global();
    heap.purge();
    heap.set_retain(0);
    heap.set_decay(Duration::from_millis(50));
    drop(peak(6_000, usize::MAX));
    let dirty = || heap.snapshot().segments.free_dirty_bytes;
    until("slow paths have given it back", || {
        // More slabs than stay in reserve.
        drop([300_000; 8].map(|bytes| vec![1u8; bytes]));
        dirty() < 2 << 20
    });
    // In use, that is, a slab taken within the decay time; a slow machine may miss it.
    let budget = 12u64 << 20;
    heap.set_decay(Duration::from_millis(400));
    heap.set_retain(budget);
    drop(peak(6_000, usize::MAX));
    thread::sleep(Duration::from_millis(450));
    until("a pass left the budget", || {
        let start = Instant::now();
        drop([300_000; 8].map(|bytes| vec![1u8; bytes]));
        heap.scavenge();
        let left = dirty();
        if start.elapsed() > Duration::from_millis(300) {
            drop(peak(6_000, usize::MAX));
            return false;
        }
        assert!(left + (1 << 20) >= budget, "{left} bytes left of a budget of {budget}");
        left <= budget + (2 << 20)
    });
    thread::sleep(Duration::from_millis(450));
    heap.scavenge();
    assert!(dirty() < 1 << 20, "an idle heap keeps nothing, but {} bytes", dirty());
    heap.set_decay(Duration::from_secs(1));
}

/// Runs itself again, locked into memory.
#[test]
fn locked_pages_are_refused_once_and_whole_segments_go_all_the_same() {
    const ERRAND: &str = "FLAGSTONE_TEST_ERRAND";
    const NAME: &str = "locked_pages_are_refused_once_and_whole_segments_go_all_the_same";
    if std::env::var_os(ERRAND).is_none() {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([NAME, "--exact", "--nocapture", "--test-threads=1"])
            .env(ERRAND, NAME)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{text}\n{}", String::from_utf8_lossy(&child.stderr));
        return;
    }
    let heap = Heap::global();
    heap.set_decay(Duration::from_secs(3_600));
    let survivors = peak(6_000, 500);
    // SAFETY: locks the pages of this process, which is about to end.
    if unsafe { libc::mlockall(libc::MCL_CURRENT) } != 0 {
        eprintln!("skipped: {}", std::io::Error::last_os_error());
        return;
    }
    let before = heap.snapshot();
    let report = heap.purge();
    let after = heap.snapshot();
    assert!(report.refused_bytes > 0, "{report:?}");
    assert!(report.scavenged.segments_unmapped > 3, "{report:?}");
    assert_eq!(after.bytes.residual(), 0, "{:?}", after.bytes);
    let refused = after.segments.refused_purges_total - before.segments.refused_purges_total;
    assert!(refused <= before.segments.segments, "{refused} refusals: each is asked for once");
    drop(survivors);
    // Unlocked, it all goes.
    // SAFETY: as above.
    assert_eq!(unsafe { libc::munlockall() }, 0);
    assert_eq!(heap.purge().refused_bytes, 0);
    assert_eq!(heap.snapshot().bytes.residual(), 0);
}
