//! A list that is walked without a lock while nodes leave it, and are given back to the system once no
//! walker can be at them.
//!
//! Owns the heads of the list, a count of walkers, and the links in the nodes. Writers take turns under
//! a lock of theirs. Protocol:
//!
//! 1. A node leaves the list with its own link kept, so that a walker at it finds the way on.
//! 2. A walker counts itself in, and then looks for the first node. Who has taken a node out asks for
//!    the count afterwards. A sequentially consistent fence stands between the two steps of each, so
//!    that either the walker sees the list without the node or the other sees the walker (rule W1).
//!    So with any other way to a node that is closed before the count is asked for
//!    ([`inside`](WalkList::inside)).
//! 3. Nodes that a walker may be at wait. They are asked for again by whoever takes out more, and by the
//!    walker that leaves last.
//!
//! It is a grace period by hand, and not one of `flagstone-epoch`, because nodes leave on the way of a
//! free, where nothing may allocate (ADR 11). Walks are short and seldom; one that overlaps the next,
//! which overlaps the next, would keep nodes waiting as long as that goes on.

use std::ptr;

use crate::sync::{AtomicPtr, AtomicUsize, Cell, Ordering, const_off_loom, fence, weakened};

/// A node of such a list.
pub trait Walked: Sized {
    /// Its links.
    fn links(&self) -> &WalkLinks<Self>;
}

/// The links in a node. The zero bytes of a fresh mapping are links of no list.
pub struct WalkLinks<N> {
    next: AtomicPtr<N>,
    /// Writers' lock.
    prev: Cell<*const N>,
}

#[cfg(any(test, flagstone_loom))]
impl<N> WalkLinks<N> {
    /// Links of no list.
    pub fn new() -> Self {
        Self { next: AtomicPtr::new(ptr::null_mut()), prev: Cell::new(ptr::null()) }
    }
}

/// The list.
pub struct WalkList<N> {
    first: AtomicPtr<N>,
    walkers: AtomicUsize,
}

impl<N: Walked> WalkList<N> {
    const_off_loom! {
        /// An empty list.
        pub fn new() -> Self {
            Self { first: AtomicPtr::new(ptr::null_mut()), walkers: AtomicUsize::new(0) }
        }
    }

    /// Puts a node in front.
    ///
    /// # Safety
    /// The caller has the writers' lock. The node is in no list, and stays until it was removed and then
    /// [`is_unwalked`](Self::is_unwalked).
    pub unsafe fn insert(&self, node: &N) {
        let first = self.first.load(Ordering::Relaxed);
        node.links().next.store(first, Ordering::Relaxed);
        node.links().prev.set(ptr::null());
        // SAFETY: nodes of the list are there, and their `prev` is the writer's.
        if let Some(first) = unsafe { first.as_ref() } {
            first.links().prev.set(node);
        }
        // Release: pairs with the acquire in `walk`. Who finds the node finds it whole.
        self.first.store(ptr::from_ref(node).cast_mut(), Ordering::Release);
    }

    /// Takes a node out. Walkers may still be at it.
    ///
    /// # Safety
    /// The caller has the writers' lock, and the node is in the list.
    pub unsafe fn remove(&self, node: &N) {
        let next = node.links().next.load(Ordering::Relaxed);
        let prev = node.links().prev.get();
        // SAFETY: neighbours in the list are there, and their `prev` is the writer's.
        unsafe {
            let link = prev.as_ref().map_or(&self.first, |prev| &prev.links().next);
            // Release: hands on what the insertion of `next` released.
            link.store(next, Ordering::Release);
            if let Some(next) = next.as_ref() {
                next.links().prev.set(prev);
            }
        }
    }

    /// True if nobody can be at a node that was removed before this call, now or later.
    #[must_use]
    pub fn is_unwalked(&self) -> bool {
        if !weakened("walk_no_fence") {
            // SeqCst: between the removal and the look at the count; see `walk`.
            fence(Ordering::SeqCst);
        }
        // Acquire: pairs with the release in `walk`'s end. Who reads zero has the walkers' reads behind
        // it.
        weakened("walk_not_asked") || self.walkers.load(Ordering::Acquire) == 0
    }

    /// In a forked child, before it has threads: walkers are other threads of the parent, and not
    /// here to leave.
    pub fn forget_walkers(&self) {
        // Relaxed: the child's threads start after this and so see it.
        self.walkers.store(0, Ordering::Relaxed);
    }

    /// Calls `each` for every node. Nodes that come or go meanwhile may be among them. Returns true for
    /// the walker that left last: nodes may have waited for it.
    pub fn walk(&self, mut each: impl FnMut(&N)) -> bool {
        let walk = || {
            // Acquire, here and below: pairs with the release in `insert`.
            let mut at = self.first.load(Ordering::Acquire);
            // SAFETY: rule W1: what we find was in the list after we counted in, so it stays until we
            // are counted out.
            while let Some(node) = unsafe { at.as_ref() } {
                each(node);
                at = node.links().next.load(Ordering::Acquire);
            }
        };
        self.inside(walk).1
    }

    /// Calls `look`, which finds nodes by another way than the list, as a walker: no node is given back
    /// meanwhile that could still be found after the fence here. Returns what it gave, and as
    /// [`walk`](Self::walk) whether nodes may have waited for it.
    pub fn inside<R>(&self, look: impl FnOnce() -> R) -> (R, bool) {
        /// Counts the walker out, in a panic as well.
        struct Inside<'a>(&'a AtomicUsize);
        impl Drop for Inside<'_> {
            fn drop(&mut self) {
                // Release: pairs with the acquire in `is_unwalked`.
                self.0.fetch_sub(1, Ordering::Release);
            }
        }
        self.walkers.fetch_add(1, Ordering::Relaxed);
        let inside = Inside(&self.walkers);
        // SeqCst: between counting in and the look at the list, or at whatever else leads to nodes. If
        // this fence comes before that of `is_unwalked`, it sees us; if it comes after, we see the list
        // without the node.
        fence(Ordering::SeqCst);
        let found = look();
        std::mem::forget(inside);
        // Release: as in `Inside`.
        (found, self.walkers.fetch_sub(1, Ordering::Release) == 1)
    }
}

#[cfg(all(test, not(flagstone_loom)))]
mod tests {
    use super::*;

    struct Node(u32, WalkLinks<Node>);

    impl Walked for Node {
        fn links(&self) -> &WalkLinks<Self> {
            &self.1
        }
    }

    fn seen(list: &WalkList<Node>) -> Vec<u32> {
        let mut all = Vec::new();
        list.walk(|node| all.push(node.0));
        all
    }

    #[test]
    fn nodes_come_and_go_and_a_walker_at_one_finds_the_way_on() {
        let nodes: Vec<_> = (0..5).map(|n| Node(n, WalkLinks::new())).collect();
        let list = WalkList::new();
        // SAFETY: one thread; the nodes outlive the list's use.
        unsafe {
            nodes.iter().for_each(|node| list.insert(node));
            assert_eq!(seen(&list), [4, 3, 2, 1, 0]);
            list.remove(&nodes[4]);
            list.remove(&nodes[0]);
            list.remove(&nodes[2]);
            assert_eq!(seen(&list), [3, 1]);
            list.insert(&nodes[2]);
            let mut all = Vec::new();
            let last = list.walk(|node| {
                all.push(node.0);
                if node.0 == 2 {
                    list.remove(&nodes[2]);
                    list.remove(&nodes[3]);
                    assert!(!list.is_unwalked());
                    assert!(!list.walk(|_| ()), "another is inside");
                }
            });
            assert_eq!(all, [2, 3, 1], "on from a node that has left");
            assert!(last && list.is_unwalked());
            assert_eq!(seen(&list), [1]);
        }
    }
}
