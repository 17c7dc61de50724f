//! Retired blocks: a reader that entered before never sees one reused, whoever retired it and whoever
//! frees it at last; and what waits is counted.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use flagstone_epoch::{Domain, Participant};
use flagstone_slab::{Flagstone, Heap};

#[global_allocator]
static ALLOCATOR: Flagstone = Flagstone::new();

const LIMIT: u64 = 4 << 20;
const LAYOUT: Layout = Layout::new::<[u64; 12]>();
const LIVE: u64 = 0xA1A1_A1A1_A1A1_A1A1;

/// One test at a time: they share the heap's domain, whose guards keep what any of them retires.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Refused by every test but the first.
    let _ = Heap::global()
        .set_domain(Domain::builder().name("test").hard_limit(LIMIT).build().expect("in range"));
    settle();
    guard
}

/// Everything retired so far is freed.
fn settle() {
    eventually("all is reclaimed", || {
        Heap::global().collect();
        Heap::global().snapshot().bytes.retired == 0
    });
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
    fn filled() -> Self {
        // SAFETY: of some bytes.
        let block = NonNull::new(unsafe { ALLOCATOR.alloc(LAYOUT) }).expect("memory");
        // SAFETY: new, and large enough.
        unsafe { block.cast::<[u64; 12]>().write([LIVE; 12]) };
        Self(block)
    }

    fn assert_live(self) {
        // SAFETY: the reader holds a guard from before the block was retired.
        assert_eq!(unsafe { self.0.cast::<[u64; 12]>().read_volatile() }, [LIVE; 12]);
    }

    fn retire(self, by: &impl AsRef<Participant>) {
        // SAFETY: the tests' readers hold guards from before.
        unsafe { Heap::global().retire(self.0, by) };
    }
}

/// Allocates as much of the class as would find the block if it were free, and frees it again.
fn churn(avoid: Block) -> bool {
    let blocks: Vec<_> = (0..3_000)
        .map(|_| {
            // SAFETY: of some bytes.
            let block = NonNull::new(unsafe { ALLOCATOR.alloc(LAYOUT) }).expect("memory");
            // SAFETY: new, and large enough.
            unsafe { block.cast::<[u64; 12]>().write([0; 12]) };
            block
        })
        .collect();
    let met = blocks.contains(&avoid.0);
    // SAFETY: allocated above.
    blocks.into_iter().for_each(|block| unsafe { ALLOCATOR.dealloc(block.as_ptr(), LAYOUT) });
    met
}

/// Runs `path`, which retires the block that it is sent, beside an owner and a reader that entered
/// before. The owner is a thread of its own, which allocated the block and churns on request.
fn never_reused_on(path: impl FnOnce(Block, &Sender<()>, &Receiver<bool>) + Send) {
    let heap = Heap::global();
    let (to_owner, orders) = channel::<()>();
    let (met, from_owner) = channel();
    let (send_block, block) = channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            let block = Block::filled();
            send_block.send(block).expect("heard");
            while orders.recv().is_ok() {
                met.send(churn(block)).expect("heard");
            }
        });
        let block = block.recv().expect("sent");
        let reader = heap.domain().register();
        let guard = reader.pin();
        block.assert_live();
        scope
            .spawn(move || {
                path(block, &to_owner, &from_owner);
                for _ in 0..3 {
                    heap.scavenge();
                    to_owner.send(()).expect("heard");
                    assert!(!from_owner.recv().expect("sent"), "reused under a guard");
                    assert!(!churn(block), "reused under a guard");
                }
            })
            .join()
            .expect("no panic");
        block.assert_live();
        assert_eq!(heap.snapshot().bytes.retired, 96);
        drop(guard);
    });
    settle();
}

// requirement: D6
#[test]
fn a_remote_free_waits_for_readers() {
    let _alone = alone();
    never_reused_on(|block, _, _| {
        let participant = Heap::global().domain().register();
        block.retire(&participant);
        participant.collect();
    });
}

// requirement: D6
#[test]
fn a_thread_that_retires_and_ends_waits_for_readers() {
    let _alone = alone();
    never_reused_on(|block, _, _| {
        let ended = thread::spawn(move || {
            let heap = Heap::global();
            assert!(heap.join_domain());
            let participant = heap.domain().register();
            block.retire(&participant);
        });
        ended.join().expect("no panic");
    });
}

// requirement: D6
#[test]
fn an_owners_free_waits_for_readers() {
    let _alone = alone();
    let heap = Heap::global();
    let reader = heap.domain().register();
    let guard = reader.pin();
    thread::spawn(|| {
        let participant = Heap::global().domain().register();
        let block = Block::filled();
        block.retire(&participant.pin());
        for _ in 0..3 {
            participant.collect();
            assert!(!churn(block), "reused under a guard");
        }
        block.assert_live();
    })
    .join()
    .expect("no panic");
    assert_eq!(heap.snapshot().bytes.retired, 96);
    drop(guard);
    settle();
}

/// The scavenger frees what waits, and not before its readers have left.
// requirement: D6
#[test]
fn the_scavenger_frees_what_no_guard_keeps() {
    let _alone = alone();
    let heap = Heap::global();
    let participant = heap.domain().register();
    let reader = heap.domain().register();
    let guard = reader.pin();
    let block = Block::filled();
    block.retire(&participant);
    participant.park();
    for _ in 0..3 {
        heap.scavenge();
        assert!(!churn(block), "reused under a guard");
    }
    block.assert_live();
    assert_eq!(heap.snapshot().bytes.retired, 96);
    drop(guard);
    eventually("the scavenger frees it", || {
        heap.scavenge();
        heap.snapshot().bytes.retired == 0
    });
}

// requirement: D6
#[test]
fn entering_without_a_guard_keeps_blocks_too() {
    let _alone = alone();
    let heap = Heap::global();
    let participant = heap.domain().register();
    heap.leave().expect_err("not entered");
    heap.enter();
    heap.enter();
    let block = Block::filled();
    block.retire(&participant);
    participant.flush();
    heap.collect();
    heap.leave().expect("entered twice");
    heap.advance();
    heap.collect();
    block.assert_live();
    assert_eq!(heap.snapshot().bytes.retired, 96);
    heap.leave().expect("entered");
    heap.leave().expect_err("left already");
    settle();
}

/// Parts and whole, with blocks of a class and of the fallback retired.
#[test]
fn retired_blocks_are_counted_apart_and_the_identity_closes() {
    let _alone = alone();
    let heap = Heap::global();
    let participant = heap.domain().register();
    let large = Layout::from_size_align(900_001, 8).expect("a layout");
    // SAFETY: of some bytes.
    let big = NonNull::new(unsafe { ALLOCATOR.alloc(large) }).expect("memory");
    let blocks: Vec<_> = (0..100).map(|_| Block::filled()).collect();
    let guard = participant.pin();
    let before = heap.snapshot().bytes;
    blocks.iter().for_each(|block| block.retire(&guard));
    // SAFETY: nobody else knows it.
    unsafe { heap.retire(big, &guard) };
    let during = heap.snapshot().bytes;
    assert_eq!(during.retired, 100 * 96 + 900_001);
    // Links of retired blocks are live, and this test's vectors.
    assert!(before.live - during.live > 890_000, "{before:?} {during:?}");
    assert_eq!(during.residual(), 0, "{during:?}");
    drop(guard);
    participant.collect();
    let after = heap.snapshot().bytes;
    assert_eq!((after.retired, after.residual()), (0, 0));
}

#[test]
fn the_limit_gives_the_block_back() {
    let _alone = alone();
    let heap = Heap::global();
    let participant = heap.domain().register();
    let guard = participant.pin();
    let mut taken = 0;
    loop {
        let block = Block::filled();
        // SAFETY: nobody else knows it.
        match unsafe { heap.try_retire(block.0, &guard) } {
            Ok(()) => taken += 96,
            Err(refused) => {
                assert_eq!((refused.rejected, refused.bytes, refused.limit), (block.0, 96, LIMIT));
                block.assert_live();
                // SAFETY: refused, so it is ours still.
                unsafe { ALLOCATOR.dealloc(block.0.as_ptr(), LAYOUT) };
                break;
            }
        }
        assert!(taken <= LIMIT, "the limit holds nothing");
    }
    assert!(taken > LIMIT / 2, "{taken} bytes of {LIMIT}");
    assert_eq!(heap.snapshot().bytes.retired, taken);
    drop(guard);
    participant.collect();
    assert_eq!(heap.snapshot().bytes.retired, 0);
}

#[test]
#[should_panic(expected = "another domain")]
fn a_participant_of_another_domain_is_refused() {
    let _alone = alone();
    let stranger = Domain::new().register();
    let block = Block::filled();
    block.retire(&stranger);
}
