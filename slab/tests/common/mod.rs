//! What the tests of heaps share: heaps that end with an account, and work that may run out of memory.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod churn;
pub mod faulty;

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use flagstone_slab::port::{OsPages, Tracing};
use flagstone_slab::{Heap, HeapBuilder, OwnedHeap};
use proptest::test_runner::Config as ProptestConfig;

/// So many cases of a property, or as many as `PROPTEST_CASES` says: more of them at night.
pub fn cases(by_day: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(by_day),
    }
}

/// A heap on a traced backing (requirement G8). When it is dropped, no block may be out, and then the
/// backing must have everything back, to the byte.
pub struct Traced {
    heap: Option<OwnedHeap<Tracing<OsPages>>>,
    leaves_blocks: bool,
}

/// Builds such a heap.
pub fn traced(builder: HeapBuilder<'_>) -> Traced {
    let built = builder.backing(Tracing::new(OsPages)).build();
    let heap = built.unwrap_or_else(|error| panic!("{}", error.failure));
    Traced { heap: Some(heap), leaves_blocks: false }
}

impl Traced {
    /// For tests of what a heap's end does to blocks that are still out.
    pub fn leaving_blocks(mut self) -> Self {
        self.leaves_blocks = true;
        self
    }
}

/// The global heap to oneself, for tests that use it by calls and have another global allocator. When this
/// is dropped, no block may be out, and the books must close.
pub struct Alone {
    _turn: MutexGuard<'static, ()>,
}

/// Waits for the turn of `mutex`.
pub fn alone(mutex: &'static Mutex<()>) -> Alone {
    Alone { _turn: mutex.lock().unwrap_or_else(PoisonError::into_inner) }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        // As in `Traced`.
        let (heap, deadline) = (Heap::global(), Instant::now() + Duration::from_secs(20));
        while heap.live_bytes() > 0 {
            assert!(Instant::now() < deadline, "{} bytes are out", heap.live_bytes());
            flagstone_slab::thread::flush();
            thread::yield_now();
        }
        let bytes = heap.snapshot().bytes;
        assert_eq!(bytes.residual(), 0, "{bytes:?}");
    }
}

impl Deref for Traced {
    type Target = OwnedHeap<Tracing<OsPages>>;

    fn deref(&self) -> &Self::Target {
        self.heap.as_ref().expect("there until dropped")
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let heap = self.heap.take().expect("dropped once");
        if thread::panicking() {
            return;
        }
        // What threads of a scope have gathered for others they post when they end, a little after the
        // scope does.
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.leaves_blocks && heap.live_bytes() > 0 {
            assert!(Instant::now() < deadline, "{} bytes of {heap:?} are out", heap.live_bytes());
            flagstone_slab::thread::flush();
            // What was retired waits for whoever drives the domain.
            if heap.retires_frees() {
                heap.collect();
            }
            thread::yield_now();
        }
        heap.into_backing().assert_nothing_outstanding();
    }
}
