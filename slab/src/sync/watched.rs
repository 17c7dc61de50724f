//! Loom's eyes on memory that none of its types lies in: cells of slabs and shards, words of blocks.
//!
//! Owns, per execution of a model, one loom cell for each address that was ever announced. An access is
//! announced right before it happens; loom then checks it against all others at that address, and fails
//! the model if two of them race. The memory itself stays plain, so a zeroed mapping is a segment's head
//! under loom as elsewhere, constants are constants, and layouts are what they are.
//!
//! The first access to an address counts as a write, as the making of a loom cell does. So what several
//! threads read and nobody writes has to be read once before they start.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use loom::cell::UnsafeCell;

/// A cell whose accesses loom checks, in the shape of `std`'s.
#[repr(transparent)]
pub(crate) struct Cell<T>(std::cell::Cell<T>);

impl<T> Cell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::Cell::new(value))
    }

    #[track_caller]
    pub(crate) fn set(&self, value: T) {
        wrote(self.0.as_ptr().addr());
        self.0.set(value);
    }

    #[track_caller]
    pub(crate) fn replace(&self, value: T) -> T {
        wrote(self.0.as_ptr().addr());
        self.0.replace(value)
    }
}

impl<T: Copy> Cell<T> {
    #[track_caller]
    pub(crate) fn get(&self) -> T {
        looked(self.0.as_ptr().addr());
        self.0.get()
    }
}

impl<T: Copy + std::fmt::Debug> std::fmt::Debug for Cell<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A word of a block is about to be read.
#[track_caller]
pub(crate) fn read(word: *const usize) {
    looked(word.addr());
}

/// A word of a block is about to be written.
#[track_caller]
pub(crate) fn written(word: *const usize) {
    wrote(word.addr());
}

/// A model reads what it keeps at an address, in a block say.
///
/// # Safety
/// There is such a value, or its memory; that nobody writes to it now is what loom checks.
#[track_caller]
pub unsafe fn look<T: Copy>(at: *const T) -> T {
    looked(at.addr());
    // SAFETY: by contract.
    unsafe { at.read() }
}

/// A model writes what it keeps at an address.
///
/// # Safety
/// There is memory for it; that nobody else uses it now is what loom checks.
#[track_caller]
pub unsafe fn write<T: Copy>(at: *mut T, value: T) {
    wrote(at.addr());
    // SAFETY: by contract.
    unsafe { at.write(value) }
}

/// What lies in a range is gone: that counts as a write to each address ever announced in it.
#[track_caller]
pub fn gone(range: Range<usize>) {
    SEEN.cells.borrow().range(range).for_each(|(_, cell)| cell.with_mut(|_| ()));
}

loom::lazy_static! {
    static ref SEEN: Seen = Seen { cells: RefCell::new(BTreeMap::new()) };
}

struct Seen {
    cells: RefCell<BTreeMap<usize, UnsafeCell<()>>>,
}

// SAFETY: loom runs the threads of a model by turns on one thread of the system, and changes turns at
// operations on its atomics only, of which there is none while the map is borrowed.
unsafe impl Sync for Seen {}
// SAFETY: as above.
unsafe impl Send for Seen {}

#[track_caller]
fn looked(address: usize) {
    if std::thread::panicking() {
        return;
    }
    let mut cells = SEEN.cells.borrow_mut();
    cells.entry(address).or_insert_with(|| UnsafeCell::new(())).with(|_| ());
}

#[track_caller]
fn wrote(address: usize) {
    if std::thread::panicking() {
        return;
    }
    let mut cells = SEEN.cells.borrow_mut();
    cells.entry(address).or_insert_with(|| UnsafeCell::new(())).with_mut(|_| ());
}
