//! The inbox: where other threads post chains of freed blocks to their owner.
//!
//! Owns one word, the first chain posted last. Protocol: a poster links its chains before
//! the current first and exchanges the word (release); the owner takes everything with one swap
//! (acquire). Chains are only ever taken all together, so no address can come back while a poster
//! holds a stale word: there is no ABA. Posters never wait for the owner or for each other beyond a
//! retry that another poster's success causes; order among chains does not matter.
//!
//! The links lie in the blocks themselves. [`Post`] abstracts that, so that the models run this very
//! code over nodes whose cells loom watches.

use std::ptr;

use crate::sync::{AtomicPtr, Ordering, const_off_loom, weakened};

/// Something that can be posted: it carries a link to the next one.
pub trait Post {
    /// Writes the link.
    ///
    /// # Safety
    /// The caller has exclusive use of `node`.
    unsafe fn set_next(node: *mut Self, next: *mut Self);
}

/// The inbox of one shard.
#[derive(Debug)]
pub struct Inbox<N: Post> {
    first: AtomicPtr<N>,
}

impl<N: Post> Inbox<N> {
    const_off_loom! {
        /// An empty inbox.
        pub fn new() -> Self {
            Self { first: AtomicPtr::new(ptr::null_mut()) }
        }
    }

    /// Posts nodes that are linked from `head` to `last`, where one node is both; returns whether it
    /// found the inbox empty.
    ///
    /// # Safety
    /// The caller has exclusive use of the nodes, valid until taken, and gives them up.
    pub unsafe fn post(&self, head: *mut N, last: *mut N) -> bool {
        // Release pairs with the acquire swap in `take`: an owner that takes the node sees the
        // links and all that the freeing thread wrote; one that swapped before does not see the
        // node at all.
        let order = if weakened("inbox_post") { Ordering::Relaxed } else { Ordering::Release };
        // Relaxed: the value is only linked to, never read through.
        let mut first = self.first.load(Ordering::Relaxed);
        loop {
            // SAFETY: until the exchange succeeds the nodes are the caller's.
            unsafe { N::set_next(last, first) };
            match self.first.compare_exchange_weak(first, head, order, Ordering::Relaxed) {
                Ok(_) => return first.is_null(),
                Err(seen) => first = seen,
            }
        }
    }

    /// Whether nothing waits; advice, for gauges. Relaxed: the value is not read through.
    pub fn is_empty(&self) -> bool {
        self.first.load(Ordering::Relaxed).is_null()
    }

    /// Takes everything: the first node of a list, or null.
    ///
    /// The caller is the owner, or acts for it; two takers would each get whole chains, so this is
    /// safe by itself, but only the owner may free what it gets.
    pub fn take(&self) -> *mut N {
        // The plain load keeps an empty inbox free of read-modify-writes. Relaxed: a post that it
        // misses is found next time.
        if self.first.load(Ordering::Relaxed).is_null() {
            return ptr::null_mut();
        }
        let order = if weakened("inbox_take") { Ordering::Relaxed } else { Ordering::Acquire };
        // Acquire pairs with the release in `post`.
        self.first.swap(ptr::null_mut(), order)
    }
}
