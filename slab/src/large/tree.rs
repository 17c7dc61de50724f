//! Treaps over extent records: all ranges by address, free ones by size.
//!
//! Owns the tree's shape. The links are inside the records, so nothing is allocated; priorities are
//! hashes of addresses, so the depth is logarithmic but for bad luck (Seidel and Aragon, 1996).
//! A record's key must not change while it is in the tree.

use std::cell::Cell;
use std::marker::PhantomData;

use super::extent::{Extent, Link, Links, Node};

/// An order of records, with links of its own.
pub(super) trait Order {
    fn key(extent: &Extent) -> (usize, usize);
    fn links(extent: &'static Extent) -> &'static Links;
}

/// By first address.
pub(super) struct ByAddress;

impl Order for ByAddress {
    fn key(extent: &Extent) -> (usize, usize) {
        (extent.start(), 0)
    }

    fn links(extent: &'static Extent) -> &'static Links {
        &extent.by_address
    }
}

/// By size, equal ones by address.
pub(super) struct BySize;

impl Order for BySize {
    fn key(extent: &Extent) -> (usize, usize) {
        (extent.bytes(), extent.start())
    }

    fn links(extent: &'static Extent) -> &'static Links {
        &extent.by_size
    }
}

/// A treap.
pub(super) struct Tree<O> {
    root: Link,
    order: PhantomData<O>,
}

impl<O: Order> Tree<O> {
    pub(super) const fn new() -> Self {
        Self { root: Cell::new(None), order: PhantomData }
    }

    /// Puts a record in that is not in this tree.
    pub(super) fn insert(&self, node: Node) {
        let key = O::key(node);
        let mut place = &self.root;
        while let Some(at) = place.get()
            && priority(at) >= priority(node)
        {
            place = if key < O::key(at) { &O::links(at).left } else { &O::links(at).right };
        }
        // What hung here splits into the node's two sides.
        let links = O::links(node);
        let (mut left, mut right) = (&links.left, &links.right);
        let mut at = place.replace(Some(node));
        while let Some(below) = at {
            if O::key(below) < key {
                left.set(at);
                left = &O::links(below).right;
                at = left.get();
            } else {
                right.set(at);
                right = &O::links(below).left;
                at = right.get();
            }
        }
        left.set(None);
        right.set(None);
    }

    /// Takes a record out that is in this tree.
    pub(super) fn remove(&self, node: Node) {
        let key = O::key(node);
        let mut place = &self.root;
        while let Some(at) = place.get() {
            if std::ptr::eq(at, node) {
                break;
            }
            place = if key < O::key(at) { &O::links(at).left } else { &O::links(at).right };
        }
        debug_assert!(place.get().is_some(), "a record is not where its key says");
        let links = O::links(node);
        let (mut left, mut right) = (links.left.take(), links.right.take());
        loop {
            match (left, right) {
                (Some(l), Some(r)) if priority(l) >= priority(r) => {
                    place.set(left);
                    place = &O::links(l).right;
                    left = place.get();
                }
                (_, Some(r)) if left.is_some() => {
                    place.set(right);
                    place = &O::links(r).left;
                    right = place.get();
                }
                (one, other) => {
                    place.set(one.or(other));
                    return;
                }
            }
        }
    }

    /// The record with the largest key.
    pub(super) fn last(&self) -> Option<Node> {
        let mut found = self.root.get()?;
        while let Some(right) = O::links(found).right.get() {
            found = right;
        }
        Some(found)
    }

    /// The record with the smallest key that is not below `(first, 0)`.
    pub(super) fn at_least(&self, first: usize) -> Option<Node> {
        let (mut found, mut at) = (None, self.root.get());
        while let Some(node) = at {
            if O::key(node).0 >= first {
                found = at;
                at = O::links(node).left.get();
            } else {
                at = O::links(node).right.get();
            }
        }
        found
    }

    /// The record with the largest key whose first part is not above `first`.
    pub(super) fn at_most(&self, first: usize) -> Option<Node> {
        let (mut found, mut at) = (None, self.root.get());
        while let Some(node) = at {
            if O::key(node).0 <= first {
                found = at;
                at = O::links(node).right.get();
            } else {
                at = O::links(node).left.get();
            }
        }
        found
    }
}

/// Of a record, from where it lies: constant while it is in a tree, whatever range it describes.
fn priority(node: Node) -> usize {
    let place = std::ptr::from_ref(node).addr() / size_of::<Extent>();
    place.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as usize).rotate_left(17)
}
