//! Memory for what crossbeam-epoch allocates, which it cannot be told to do without.
//!
//! Owns the question whether it is there, and the reserve for what cannot wait for an answer.
//!
//! crossbeam-epoch allocates when a handle is registered, when a bag of deferred functions goes to its
//! queue, and when a handle is dropped; where there is no memory, that ends the process. So whoever is
//! about to make such a call first takes a block of the same layout and gives it back. Allocators keep a
//! block that was just freed for the thread that freed it, so after a yes the allocation has a block
//! to find; after a no there is something better to do than to end: the caller refuses, or waits with
//! what it has. On an allocator whose threads share their free blocks, another thread may come in
//! between; that is the one way left to run out inside of crossbeam-epoch, but for the bag that fills up
//! inside of a pin (see `docs/faults.md`).
//!
//! A handle cannot refuse to be dropped. It has a [`Reserve`] from its birth, given back right before.
#![allow(clippy::disallowed_methods, reason = "asks the allocator that crossbeam-epoch will ask")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Why a thread could not be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutOfMemory;

impl std::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no memory to register a thread in an epoch domain")
    }
}

impl std::error::Error for OutOfMemory {}

const fn layout(bytes: usize, align: usize) -> Layout {
    match Layout::from_size_align(bytes, align) {
        Ok(layout) => layout,
        Err(_) => Layout::new::<()>(),
    }
}

const WORD: usize = size_of::<usize>();

/// A bag in crossbeam-epoch's queue: 64 functions of four words, their number, an epoch, a link. A test
/// compares it with what crossbeam-epoch asks for.
pub(crate) const BAG: Layout = layout((64 * 4 + 3) * WORD, WORD);

/// A handle's state: a bag, and two cache lines and more around it.
pub(crate) const HANDLE: Layout = layout(if WORD == 8 { 2304 } else { 1280 }, 128);

/// True if each of these could be allocated now, all at once.
#[cold]
pub(crate) fn at_hand<const N: usize>(layouts: [Layout; N]) -> bool {
    // A model's allocations are not the point of it, and its threads must do the same in every execution.
    if cfg!(flagstone_loom) {
        return true;
    }
    let blocks = layouts.map(Block::try_new);
    blocks.iter().all(Option::is_some)
}

/// Memory that a handle's drop will need.
#[derive(Debug)]
pub(crate) struct Reserve(#[expect(dead_code, reason = "held to be dropped")] Block);

impl Reserve {
    /// Takes the reserve; ends the process, as every allocation that cannot fail, if there is none.
    pub(crate) fn new() -> Self {
        Self(Block::try_new(BAG).unwrap_or_else(|| handle_alloc_error(BAG)))
    }
}

/// Memory of a layout that is not empty, or none.
pub(crate) fn try_alloc(layout: Layout) -> Result<NonNull<u8>, OutOfMemory> {
    debug_assert!(layout.size() > 0);
    // SAFETY: not empty.
    NonNull::new(unsafe { alloc(layout) }).ok_or(OutOfMemory)
}

#[derive(Debug)]
struct Block {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the block is nobody else's, and nobody looks at what is in it.
unsafe impl Send for Block {}

impl Block {
    fn try_new(layout: Layout) -> Option<Self> {
        let start = try_alloc(layout).ok()?;
        Some(Self { start, layout })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated in `try_new` with this layout, freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
