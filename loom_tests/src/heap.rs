//! Whole heaps for models: a backing that loom watches, and threads that end as real ones do.
//!
//! Owns the memory that the heaps of a model's executions have in turn. It is kept from one execution to
//! the next, so that a control that goes wrong reads old bytes and does not end the process. What is
//! given back is announced as written, so that loom sees a race with whoever is still at it.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::Mutex;

use flagstone_slab::model::{end_thread, gone};
use flagstone_slab::port::{Backing, OsPages};
use flagstone_slab::{ClassTable, Heap, HeapBuilder, OwnedHeap};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread::JoinHandle;

/// Bytes of a range that are zeroed when it is mapped: a segment's head and every smaller range.
const ZEROED: usize = 64 << 10;

/// Ranges that no execution uses, by size; each is aligned to the largest power of two in its size.
static SPARE: Mutex<BTreeMap<usize, Vec<usize>>> = Mutex::new(BTreeMap::new());

/// A backing for heaps in models.
pub struct Ground {
    /// The system's own order: who maps a range comes after who unmapped it.
    system: AtomicUsize,
    mapped: Mutex<Vec<(usize, usize)>>,
}

impl Ground {
    fn new() -> Self {
        Self { system: AtomicUsize::new(0), mapped: Mutex::new(Vec::new()) }
    }
}

// SAFETY: a range is handed out to one at a time. Its first bytes are zeros; of segments, the only larger
// ranges, models use the rest for blocks that they do not ask for zeroed.
unsafe impl Backing for Ground {
    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        self.system.fetch_add(1, Ordering::Acquire);
        let spare = SPARE.lock().unwrap().get_mut(&bytes).and_then(Vec::pop);
        let start = match spare {
            Some(start) => NonNull::new(std::ptr::with_exposed_provenance_mut(start))?,
            None => OsPages.map(bytes, align)?,
        };
        start.as_ptr().expose_provenance();
        assert!(start.addr().get().is_multiple_of(align), "ranges of a size have one alignment");
        // SAFETY: the range is nobody's.
        unsafe { start.write_bytes(0, bytes.min(ZEROED)) };
        self.mapped.lock().unwrap().push((start.addr().get(), bytes));
        Some(start)
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
        let start = start.addr().get();
        gone(start..start + bytes);
        self.system.fetch_add(1, Ordering::Release);
        let mut mapped = self.mapped.lock().unwrap();
        let at = mapped.iter().position(|&range| range == (start, bytes));
        mapped.remove(at.expect("a range is unmapped once, and whole"));
        SPARE.lock().unwrap().entry(bytes).or_default().push(start);
    }

    unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let start = start.addr().get();
        gone(start..start + bytes);
        true
    }

    fn can_split(&self) -> bool {
        false
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // What the heap of a failed execution kept.
        for (start, bytes) in self.mapped.get_mut().unwrap().drain(..) {
            SPARE.lock().unwrap().entry(bytes).or_default().push(start);
        }
    }
}

/// Starts a heap for one execution: `shards` of them from the start, free memory given back at once.
pub fn builder(classes: &[usize], shards: usize) -> HeapBuilder<'static, Ground> {
    let table = ClassTable::new(classes).expect("a class table");
    Heap::builder()
        .class_table(table)
        .shards(shards)
        .decay(std::time::Duration::ZERO)
        .backing(Ground::new())
}

/// The heap of one execution: dropped only if that succeeds, because a heap in disorder must not be.
pub struct World(std::mem::ManuallyDrop<OwnedHeap<Ground>>);

impl World {
    /// Takes the heap.
    pub fn new(heap: OwnedHeap<Ground>) -> Self {
        Self(std::mem::ManuallyDrop::new(heap))
    }
}

impl std::ops::Deref for World {
    type Target = Heap;

    fn deref(&self) -> &Heap {
        &self.0
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: dropped once, here.
            unsafe { std::mem::ManuallyDrop::drop(&mut self.0) };
        }
    }
}

/// Spawns a thread of a model that uses heaps; it ends as the system's threads do.
pub fn spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    crate::spawn(|| {
        let result = f();
        end_thread();
        result
    })
}

/// The model's first thread ends too.
pub fn end() {
    end_thread();
}
