//! The link that a retired object carries, and an owner for objects that carry it in front.
//!
//! Readers may go on reading an object after it was retired, so the link is a field of its own that
//! no reader touches (rule R2): it is written when the object is retired and read when the object is
//! reclaimed. An object whose every byte readers may see has no room for one; such objects go through
//! [`Participant::retire_box`](crate::Participant::retire_box), which links them out of line.

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Frees or drops one retired object, given its node.
///
/// Called once, after the grace period, on whatever thread finds the period over. It may use the
/// domain's participants and retire more. If it panics, the panic ends there: it is counted in
/// [`Snapshot::reclaim_panics`](crate::Snapshot::reclaim_panics), and the batch goes on.
pub type Reclaim = unsafe fn(NonNull<RetireNode>);

#[derive(Clone, Copy)]
struct Link {
    next: Option<NonNull<RetireNode>>,
    reclaim: Reclaim,
}

/// A link for objects that are retired without an allocation: two words, anywhere in the object.
///
/// It holds nothing until the object is retired, so [`RetireNode::new`] costs nothing.
#[repr(transparent)]
pub struct RetireNode {
    link: UnsafeCell<MaybeUninit<Link>>,
}

const _: () = assert!(size_of::<RetireNode>() == 2 * size_of::<usize>());

// SAFETY: rule R2. Only the retiring participant writes the link, and only the thread that reclaims
// reads it, after the collector handed the batch over; shared references give no access to it.
unsafe impl Sync for RetireNode {}
// SAFETY: as above; the pointers inside are to objects that their retirers promised may be reclaimed
// on any thread (rule R3).
unsafe impl Send for RetireNode {}

impl RetireNode {
    /// A node that is in no batch.
    pub const fn new() -> Self {
        Self { link: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// Links `node` in front of `next`.
    ///
    /// # Safety
    /// `node` is valid for writes until it is reclaimed, and in no batch.
    #[inline]
    pub(crate) unsafe fn link(
        node: NonNull<Self>,
        next: Option<NonNull<RetireNode>>,
        reclaim: Reclaim,
    ) {
        // SAFETY: rule R2 and the caller's promise. The reference made is to the cell, which readers
        // may share; the write goes through it.
        let cell = unsafe { &node.as_ref().link };
        // SAFETY: nobody else accesses the inside of the cell now (rule R2).
        unsafe { (*cell.get()).write(Link { next, reclaim }) };
    }

    /// The node after `node` and how to reclaim `node`.
    ///
    /// # Safety
    /// `node` was linked, and has not been reclaimed.
    pub(crate) unsafe fn read(node: NonNull<Self>) -> (Option<NonNull<RetireNode>>, Reclaim) {
        // SAFETY: the caller's promise; `link` wrote it, and nobody writes it again (rule R2).
        let link = unsafe { (*node.as_ref().link.get()).assume_init() };
        (link.next, link.reclaim)
    }
}

impl Default for RetireNode {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RetireNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("RetireNode { .. }")
    }
}

/// A value with a [`RetireNode`] in front: retiring it allocates nothing.
///
/// ```
/// use flagstone_epoch::{Domain, Linked};
/// use std::ptr::NonNull;
/// use std::sync::atomic::{AtomicPtr, Ordering};
///
/// let domain = Domain::new();
/// let participant = domain.register();
/// let shared = AtomicPtr::new(Box::into_raw(Linked::boxed(String::from("old"))));
///
/// let new = Box::into_raw(Linked::boxed(String::from("new")));
/// let old = NonNull::new(shared.swap(new, Ordering::AcqRel)).unwrap();
/// // SAFETY: `old` came from `Box::into_raw`, and nobody finds it any more.
/// unsafe { participant.retire_linked(old) };
///
/// let guard = participant.pin();
/// // SAFETY: what `shared` points to is retired before it is freed, and the guard is held.
/// let now = unsafe { &*shared.load(Ordering::Acquire) };
/// assert_eq!(now.as_str(), "new");
/// # drop(guard);
/// # // SAFETY: nobody shares it any more.
/// # drop(unsafe { Box::from_raw(shared.into_inner()) });
/// ```
#[repr(C)]
#[derive(Debug, Default)]
pub struct Linked<T> {
    node: RetireNode,
    value: T,
}

impl<T> Linked<T> {
    /// Puts a node in front of `value`.
    pub const fn new(value: T) -> Self {
        Self { node: RetireNode::new(), value }
    }

    /// The same, in a box.
    pub fn boxed(value: T) -> Box<Self> {
        Box::new(Self::new(value))
    }

    /// Gives the value back.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// Drops the box of which `node` is the front.
    ///
    /// # Safety
    /// `node` was cast from what `Box::<Linked<T>>::into_raw` gave; called once.
    pub(crate) unsafe fn reclaim(node: NonNull<RetireNode>) {
        // SAFETY: the caller's promise. `repr(C)` puts the node at the front, and the pointer kept
        // its provenance over the whole box.
        drop(unsafe { Box::from_raw(node.cast::<Linked<T>>().as_ptr()) });
    }
}

impl<T> Deref for Linked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Linked<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}
