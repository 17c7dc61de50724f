//! The gate: who may still be inside a heap that is about to go.
//!
//! Owns one generation and a count of visitors. Most users of an instance borrow it, so it cannot
//! go while they work. Three come without a borrow: the end of a thread that gives its shard back, a
//! thread that parks, and a reader of every heap's statistics. They enter by the generation of the
//! heap they mean, or find the gate closed; the heap's end closes the gate and waits until nobody
//! is inside. Visits are short and do not wait, but for the heap's own short locks.
//!
//! Protocol (Dekker's): a visitor announces itself, then looks at the generation; the closer takes
//! the generation away, then looks for visitors. The fences between the two halves order them: either
//! the visitor sees the gate closed and leaves, or the closer sees the visitor and waits. `leave` is a
//! release and `is_empty` an acquire, so the closer sees all that the visitors did.

use crate::sync::{AtomicUsize, Ordering, const_off_loom, fence, weakened};

/// The gate of one heap number.
#[derive(Debug)]
pub struct Gate {
    /// Whose gate this is; zero while it is closed.
    generation: AtomicUsize,
    visitors: AtomicUsize,
}

impl Gate {
    const_off_loom! {
        /// A closed gate.
        pub fn new() -> Self {
            Self { generation: AtomicUsize::new(0), visitors: AtomicUsize::new(0) }
        }
    }

    /// Opens the gate of a heap that is ready, under a generation that no heap had before, not zero.
    pub fn open(&self, generation: usize) {
        // Release pairs with the acquire in `enter`: who sees the generation sees the heap.
        self.generation.store(generation, Ordering::Release);
    }

    /// Enters if the heap of this generation is there. Then [`leave`](Self::leave) must follow.
    #[must_use]
    pub fn enter(&self, generation: usize) -> bool {
        self.enter_if(|there| there == generation)
    }

    /// Enters whichever heap is there, if any. Then [`leave`](Self::leave) must follow.
    #[must_use]
    pub fn enter_any(&self) -> bool {
        self.enter_if(|there| there != 0)
    }

    /// The visitor goes.
    pub fn leave(&self) {
        let order = if weakened("gate_leave") { Ordering::Relaxed } else { Ordering::Release };
        // Release pairs with the acquire in `is_empty`, be it directly or through later visitors'
        // exchanges: a closer that sees the count without this visitor sees its work as well.
        self.visitors.fetch_sub(1, order);
    }

    /// Lets nobody in from here on. Whoever is inside may still work until
    /// [`is_empty`](Self::is_empty).
    pub fn close(&self) {
        // Relaxed: ordered before the look at the visitors by the fence.
        self.generation.store(0, Ordering::Relaxed);
        if !weakened("gate_close_fence") {
            fence(Ordering::SeqCst);
        }
    }

    /// Whether nobody is inside. The closer asks until it is so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // Acquire pairs with the release in `leave`.
        self.visitors.load(Ordering::Acquire) == 0
    }

    /// In a forked child, before it has threads: visitors are other threads of the parent, and not here
    /// to leave.
    #[cfg_attr(flagstone_loom, allow(dead_code, reason = "the models do not fork"))]
    pub(crate) fn forget_visitors(&self) {
        // Relaxed: the child's threads start after this and so see it.
        self.visitors.store(0, Ordering::Relaxed);
    }

    fn enter_if(&self, wanted: impl Fn(usize) -> bool) -> bool {
        // Relaxed: ordered before the look at the generation by the fence.
        self.visitors.fetch_add(1, Ordering::Relaxed);
        if !weakened("gate_enter_fence") {
            fence(Ordering::SeqCst);
        }
        // Acquire pairs with the release in `open`.
        let entered = wanted(self.generation.load(Ordering::Acquire));
        if !entered {
            self.leave();
        }
        entered
    }
}
