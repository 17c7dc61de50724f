//! What the tests of heaps share: heaps that end with an account, and work that may run out of memory.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod churn;
pub mod faulty;

use std::ops::Deref;
use std::thread;

use flagstone_slab::port::{OsPages, Tracing};
use flagstone_slab::{Heap, HeapBuilder, OwnedHeap};

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

impl Deref for Traced {
    type Target = OwnedHeap<Tracing<OsPages>>;

    fn deref(&self) -> &Self::Target {
        self.heap.as_ref().expect("there until dropped")
    }
}

impl AsRef<Heap> for Traced {
    fn as_ref(&self) -> &Heap {
        self
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let heap = self.heap.take().expect("dropped once");
        if thread::panicking() {
            return;
        }
        if !self.leaves_blocks {
            flagstone_slab::thread::flush();
            // What was retired waits for whoever drives the domain.
            if heap.retires_frees() {
                heap.collect();
            }
            assert_eq!(heap.live_bytes(), 0, "blocks of {:?} were left", heap.name());
        }
        let bytes = heap.snapshot().bytes;
        assert_eq!(bytes.residual(), 0, "{bytes:?}");
        heap.into_backing().assert_nothing_outstanding();
    }
}
