//! Extents: the records of the large space, kept apart from the memory that they describe.
//!
//! Owns the record's shape and the store that records come from. A record lives in a chunk that is
//! never given back while its heap lives, so a reference to it is `'static`; all fields belong to
//! the holder of the space's lock.

use std::cell::Cell;
use std::ptr::{self, NonNull};

use crate::layout::{GUARD_ROOM, GUARDED, guards_fit};
use crate::os;

/// A record of the large space.
pub(crate) type Node = &'static Extent;

/// A link between records.
pub(super) type Link = Cell<Option<Node>>;

/// What a range is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// A block in use.
    Used,
    /// Free, its pages perhaps populated.
    Dirty,
    /// Free and without pages: it reads as zeros.
    Clean,
    /// In the hands of a system call.
    Away,
}

/// The number of the system's mapping that a range lies in. Ranges join only within one, because
/// pages cannot be moved as one across several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping(pub(super) u32);

/// A range of the large space.
pub(crate) struct Extent {
    pub(super) start: Cell<usize>,
    pub(super) bytes: Cell<usize>,
    /// Of a block in use, the bytes asked for.
    pub(super) requested: Cell<usize>,
    /// Of a free range, when it became so, in coarse milliseconds.
    pub(super) since: Cell<u32>,
    pub(super) mapping: Cell<Mapping>,
    pub(super) state: Cell<State>,
    /// Of a block in use, how far into the range it starts: so far that it ends at its guard.
    lead: Cell<u32>,
    /// Of a block in use, whether its guard stands.
    guarded: Cell<bool>,
    /// Whether it stands in the queue of its state.
    pub(super) queued: Cell<bool>,
    pub(super) by_address: Links,
    pub(super) by_size: Links,
    pub(super) older: Link,
    pub(super) newer: Link,
}

/// The children of a record in one tree.
pub(super) struct Links {
    pub(super) left: Link,
    pub(super) right: Link,
}

impl Links {
    const fn new() -> Self {
        Self { left: Cell::new(None), right: Cell::new(None) }
    }
}

impl Extent {
    fn new(start: usize, bytes: usize, mapping: Mapping, state: State) -> Self {
        Self {
            start: Cell::new(start),
            bytes: Cell::new(bytes),
            requested: Cell::new(0),
            since: Cell::new(0),
            mapping: Cell::new(mapping),
            state: Cell::new(state),
            lead: Cell::new(0),
            guarded: Cell::new(false),
            queued: Cell::new(false),
            by_address: Links::new(),
            by_size: Links::new(),
            older: Cell::new(None),
            newer: Cell::new(None),
        }
    }

    /// The address of the first byte.
    pub(crate) fn start(&self) -> usize {
        self.start.get()
    }

    /// The first byte.
    pub(crate) fn pointer(&self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.start.get())
    }

    /// Of a block in use, how far into the range it starts.
    pub(crate) fn lead(&self) -> usize {
        if GUARDED { self.lead.get() as usize } else { 0 }
    }

    /// A block in use.
    pub(crate) fn block(&self) -> *mut u8 {
        self.pointer().wrapping_add(self.lead())
    }

    /// Bytes of a range for a block of `bytes` behind a lead, before they are rounded up.
    pub(crate) fn room_for(lead: usize, bytes: usize) -> Option<usize> {
        lead.checked_add(bytes.max(1))?.checked_add(GUARD_ROOM)
    }

    /// Seats a block in a range that has room for it: at its end, as near to the guard as the alignment
    /// permits.
    pub(crate) fn seat(&self, bytes: usize, align: usize) {
        self.requested.set(bytes);
        if GUARDED {
            let lead = (self.bytes() - GUARD_ROOM - bytes) & !(align - 1);
            self.lead.set(lead as u32);
        }
    }

    /// Seats the block of another range here, whose pages were moved.
    pub(crate) fn seat_as(&self, other: Node) {
        self.lead.set(other.lead.get());
    }

    /// The address after the last byte that a block in use may have: where its guard begins.
    pub(crate) fn usable_end(&self) -> usize {
        if !guards_fit() {
            return self.end();
        }
        (self.block().addr() + self.requested()).next_multiple_of(os::page_size())
    }

    /// The guard of a block in use: all of the range from the page on that it does not reach.
    pub(crate) fn guard(&self) -> Option<(NonNull<u8>, usize)> {
        let start = self.usable_end();
        let at = NonNull::new(ptr::with_exposed_provenance_mut(start))?;
        guards_fit().then(|| (at, self.end() - start))
    }

    /// Of a block in use, whether its guard stands.
    pub(crate) fn is_guarded(&self) -> bool {
        self.guarded.get()
    }

    /// Notes it. Whoever has the block.
    pub(crate) fn set_guarded(&self, guarded: bool) {
        self.guarded.set(guarded);
    }

    /// Bytes of the range.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// The address after the last byte.
    pub(crate) fn end(&self) -> usize {
        self.start.get() + self.bytes.get()
    }

    /// Of a block in use, the bytes asked for.
    pub(crate) fn requested(&self) -> usize {
        self.requested.get()
    }

    /// Notes the bytes asked for.
    pub(crate) fn set_requested(&self, bytes: usize) {
        self.requested.set(bytes);
    }

    /// What the range is doing.
    pub(crate) fn state(&self) -> State {
        self.state.get()
    }

    pub(super) fn is_free(&self) -> bool {
        matches!(self.state.get(), State::Dirty | State::Clean)
    }
}

/// Where records come from: returned ones first, then the untouched rest of the last chunk.
pub(super) struct Records {
    returned: Option<Node>,
    returned_count: usize,
    fresh: *mut Extent,
    fresh_count: usize,
    /// The last chunk taken in.
    chunk: *mut Chunk,
}

/// What stands in a chunk in place of its first record.
struct Chunk {
    bytes: usize,
    before: *mut Chunk,
}

const _: () = assert!(size_of::<Chunk>() <= size_of::<Extent>());

impl Records {
    pub(super) const fn new() -> Self {
        Self {
            returned: None,
            returned_count: 0,
            fresh: ptr::null_mut(),
            fresh_count: 0,
            chunk: ptr::null_mut(),
        }
    }

    /// Records that can be had without another chunk.
    pub(super) fn available(&self) -> usize {
        self.returned_count + self.fresh_count
    }

    /// Takes a chunk in. What the last one had left is lost, so this is for when records run out.
    ///
    /// # Safety
    /// The range is writable, aligned for records, nobody else's, and stays while records are used.
    pub(super) unsafe fn add_chunk(&mut self, start: *mut u8, bytes: usize) {
        let chunk = start.cast::<Chunk>();
        // SAFETY: by contract; the first record's place is the head's.
        unsafe {
            chunk.write(Chunk { bytes, before: self.chunk });
            self.fresh = start.cast::<Extent>().add(1);
        }
        self.fresh_count = bytes / size_of::<Extent>() - 1;
        self.chunk = chunk;
    }

    /// For the end of the heap: takes a chunk out, with whatever records are in it.
    pub(super) fn abandon_chunk(&mut self) -> Option<(*mut u8, usize)> {
        let chunk = self.chunk;
        // SAFETY: chunks stay until they are taken out here.
        let Chunk { bytes, before } = unsafe { (!chunk.is_null()).then(|| chunk.read())? };
        self.chunk = before;
        Some((chunk.cast(), bytes))
    }

    pub(super) fn make(
        &mut self,
        start: usize,
        bytes: usize,
        mapping: Mapping,
        state: State,
    ) -> Option<Node> {
        if let Some(node) = self.returned {
            self.returned = node.older.take();
            self.returned_count -= 1;
            node.start.set(start);
            node.bytes.set(bytes);
            node.mapping.set(mapping);
            node.state.set(state);
            return Some(node);
        }
        self.fresh_count = self.fresh_count.checked_sub(1)?;
        // SAFETY: within the chunk, by the count; nobody has this place yet, and it stays for good.
        unsafe {
            let place = self.fresh;
            self.fresh = place.add(1);
            place.write(Extent::new(start, bytes, mapping, state));
            Some(&*place)
        }
    }

    /// Takes back a record that is in no tree and no queue.
    pub(super) fn give(&mut self, node: Node) {
        node.requested.set(0);
        node.older.set(self.returned);
        self.returned = Some(node);
        self.returned_count += 1;
    }
}
