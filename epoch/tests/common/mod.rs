//! What the tests share: objects that count their drops, and waiting with a deadline.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::disallowed_types, reason = "loom does not run these tests")]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flagstone_epoch::{Linked, RetireNode};

/// Long enough for a loaded machine; a test that needs it has failed.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How often something was dropped.
#[derive(Clone, Debug, Default)]
pub struct Drops(Arc<AtomicUsize>);

impl Drops {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    pub fn probe(&self) -> Probe {
        Probe { drops: self.clone(), live: LIVE }
    }

    /// A boxed probe as a pointer to retire.
    pub fn boxed(&self) -> NonNull<Probe> {
        NonNull::from(Box::leak(Box::new(self.probe())))
    }

    /// A linked probe as a pointer to retire.
    pub fn linked(&self) -> NonNull<Linked<Probe>> {
        NonNull::from(Box::leak(Linked::boxed(self.probe())))
    }
}

const LIVE: u64 = 0xA1A1_A1A1_A1A1_A1A1;

/// Counts its drop, and overwrites itself so that a reader would notice.
#[derive(Debug)]
pub struct Probe {
    drops: Drops,
    live: u64,
}

impl Probe {
    pub fn assert_live(&self) {
        assert_eq!(self.live, LIVE, "read after reclaim");
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.assert_live();
        self.live = 0;
        self.drops.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// An object with its node in the middle, retired through the raw interface.
pub struct Embedded {
    pub probe: Probe,
    pub node: RetireNode,
}

impl Embedded {
    pub fn leak(drops: &Drops) -> NonNull<Embedded> {
        NonNull::from(Box::leak(Box::new(Embedded {
            probe: drops.probe(),
            node: RetireNode::new(),
        })))
    }

    pub fn node(this: NonNull<Embedded>) -> NonNull<RetireNode> {
        // SAFETY: the offset is inside the object.
        unsafe { this.byte_add(std::mem::offset_of!(Embedded, node)).cast() }
    }

    /// # Safety
    /// `node` is the node of a leaked box; called once.
    pub unsafe fn reclaim(node: NonNull<RetireNode>) {
        // SAFETY: the caller's promise.
        unsafe {
            let this = node.byte_sub(std::mem::offset_of!(Embedded, node)).cast::<Embedded>();
            drop(Box::from_raw(this.as_ptr()));
        }
    }
}

/// A barrier that panics after the deadline instead of hanging when another thread has panicked.
pub struct Gate {
    parties: usize,
    arrived: AtomicUsize,
}

impl Gate {
    pub fn new(parties: usize) -> Self {
        Self { parties, arrived: AtomicUsize::new(0) }
    }

    /// Waits until all parties of this round have arrived.
    pub fn wait(&self) {
        let round = self.arrived.fetch_add(1, Ordering::SeqCst) / self.parties;
        let full = (round + 1) * self.parties;
        eventually("all arrive at a gate", || self.arrived.load(Ordering::SeqCst) >= full);
    }
}

/// Repeats `step` until it says true; panics after the deadline.
pub fn eventually(what: &str, mut step: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !step() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::yield_now();
    }
}
