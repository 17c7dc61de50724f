//! Links for objects that carry none: an array of them, itself a node of the batch.
//!
//! A chunk is allocated when a batch gets its first object without a node, and freed when the batch
//! is reclaimed: one allocation of about 1 KiB for every 40 such objects.

use std::alloc::Layout;
use std::mem::MaybeUninit;
use std::panic::AssertUnwindSafe;
use std::ptr::NonNull;
use std::sync::Arc;

use super::node::RetireNode;
use super::sealed::run_all;
use crate::domain::Core;
use crate::memory::{self, OutOfMemory};

/// How many objects a chunk links. Chosen so that a chunk takes just under 1 KiB, not measured.
const CAPACITY: usize = if cfg!(any(miri, flagstone_loom)) { 3 } else { 40 };

/// Frees or drops one retired object that has no node, given its address and the context that it was
/// retired with. What [`Reclaim`](crate::Reclaim) says holds for it too.
pub type ReclaimUnlinked = unsafe fn(NonNull<u8>, usize);

/// An object without a node, and what reclaims it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) object: NonNull<u8>,
    pub(crate) context: usize,
    pub(crate) reclaim: ReclaimUnlinked,
}

#[repr(C)]
pub(crate) struct Chunk {
    node: RetireNode,
    core: Arc<Core>,
    len: usize,
    /// The first `len` are written.
    entries: [MaybeUninit<Entry>; CAPACITY],
}

#[cfg(not(any(miri, flagstone_loom)))]
const _: () = assert!(size_of::<Chunk>() <= 1024);

impl Chunk {
    pub(crate) const LAYOUT: Layout = Layout::new::<Chunk>();

    /// A chunk with one entry; its node is in no batch yet.
    #[cold]
    pub(crate) fn with(core: &Arc<Core>, entry: Entry) -> Result<NonNull<Chunk>, OutOfMemory> {
        // With the layout of a box, which `reclaim` makes of it.
        let chunk = memory::try_alloc(Self::LAYOUT)?.cast::<Self>();
        let at = chunk.as_ptr();
        // SAFETY: in the new memory; entries beyond `len` stay unwritten, as their type allows. Field by
        // field, because writing the rest would cost more than forty entries do.
        unsafe {
            (&raw mut (*at).node).write(RetireNode::new());
            (&raw mut (*at).core).write(Arc::clone(core));
            (&raw mut (*at).len).write(1);
            (&raw mut (*at).entries[0]).write(MaybeUninit::new(entry));
        }
        Ok(chunk)
    }

    /// Adds `entry`, unless the chunk is full.
    ///
    /// # Safety
    /// `chunk` came from [`with`](Self::with) and its batch is open: the caller alone knows it.
    #[inline]
    pub(crate) unsafe fn push(chunk: NonNull<Chunk>, entry: Entry) -> bool {
        // SAFETY: the caller's promise; `node` inside is a cell and keeps what was linked.
        let chunk = unsafe { &mut *chunk.as_ptr() };
        let Some(slot) = chunk.entries.get_mut(chunk.len) else { return false };
        slot.write(entry);
        chunk.len += 1;
        true
    }

    /// Runs every entry and frees the chunk of which `node` is the front.
    ///
    /// # Safety
    /// `node` was cast from what [`with`](Self::with) gave; called once.
    pub(crate) unsafe fn reclaim(node: NonNull<RetireNode>) {
        // SAFETY: the caller's promise; `repr(C)` puts the node at the front of the box.
        let chunk = unsafe { Box::from_raw(node.cast::<Chunk>().as_ptr()) };
        let mut entries = chunk.entries[..chunk.len].iter();
        run_all(
            &chunk.core,
            AssertUnwindSafe(|| match entries.next() {
                Some(entry) => {
                    // SAFETY: among the first `len`, so it is written.
                    let Entry { object, context, reclaim } = unsafe { entry.assume_init() };
                    // SAFETY: rules R3 and R4; the iterator has moved on before the call.
                    unsafe { reclaim(object, context) };
                    true
                }
                None => false,
            }),
        );
    }
}
