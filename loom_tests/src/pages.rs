//! A backing for models: a few segments' worth of pages, watched by loom.
//!
//! Owns memory that is kept from one execution to the next, because a control that goes wrong must fail
//! an assertion and not the process, and cells that stand for the pages in it. Mapping, purging and
//! unmapping write to the cells; so does whoever uses the pages, by the model's own calls.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Mutex;

use flagstone_slab::port::{Backing, OsPages};
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of a segment, and of a slice of it.
const SEGMENT: usize = 4 << 20;
const SLICE: usize = 64 << 10;
/// Slices of a segment that a model may use, the head's included.
const SLICES: usize = 4;

/// Address space of segments that no execution uses.
static SPARE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// So many segments' worth of pages.
pub struct Pages(Vec<Place>);

struct Place {
    base: usize,
    /// Whether it is mapped: the backing's books, changed under a lock that no model sees.
    mapped: Mutex<bool>,
    /// The system's own order: who maps pages comes after who unmapped them.
    system: AtomicUsize,
    slices: [UnsafeCell<()>; SLICES],
}

// SAFETY: the cells are what the models check; loom panics where two threads race for one.
unsafe impl Sync for Pages {}
// SAFETY: as above.
unsafe impl Send for Pages {}

impl Pages {
    /// A backing of `segments` segments, none of which is mapped.
    pub fn new(segments: usize) -> Self {
        let place = || Place {
            base: spare(),
            mapped: Mutex::new(false),
            system: AtomicUsize::new(0),
            slices: std::array::from_fn(|_| UnsafeCell::new(())),
        };
        Self((0..segments).map(|_| place()).collect())
    }

    /// Segments that are mapped.
    pub fn mapped(&self) -> usize {
        self.0.iter().filter(|place| *place.mapped.lock().unwrap()).count()
    }

    /// The caller writes to these addresses: it has them alone, or loom complains.
    pub fn write(&self, bytes: Range<usize>) {
        let place = self.place(bytes.start);
        assert!(*place.mapped.lock().unwrap(), "write to what is not mapped");
        place.touch(bytes);
    }

    /// The caller reads at this address.
    pub fn read(&self, address: usize) {
        let place = self.place(address);
        assert!(*place.mapped.lock().unwrap(), "read of what is not mapped");
        place.slices[(address - place.base) / SLICE].with(|_| ());
    }

    fn place(&self, address: usize) -> &Place {
        let mut places = self.0.iter();
        places.find(|place| (place.base..place.base + SEGMENT).contains(&address)).expect("ours")
    }
}

impl Place {
    fn touch(&self, bytes: Range<usize>) {
        let first = (bytes.start - self.base) / SLICE;
        for slice in self.slices.iter().take((bytes.end - self.base).div_ceil(SLICE)).skip(first) {
            slice.with_mut(|_| ());
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        SPARE.lock().unwrap().extend(self.0.iter().map(|place| place.base));
    }
}

fn spare() -> usize {
    if let Some(base) = SPARE.lock().unwrap().pop() {
        return base;
    }
    OsPages.map(SEGMENT, SEGMENT).expect("memory").as_ptr().expose_provenance()
}

// SAFETY: a place is mapped for one at a time, and its head is zeroed when it is mapped; the models
// write to no other bytes of it.
unsafe impl Backing for Pages {
    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        assert_eq!((bytes, align), (SEGMENT, SEGMENT), "models map segments only");
        let place = self.0.iter().find(|place| {
            let mut mapped = place.mapped.lock().unwrap();
            !std::mem::replace(&mut *mapped, true)
        })?;
        place.system.fetch_add(1, Ordering::Acquire);
        let start = NonNull::new(std::ptr::with_exposed_provenance_mut::<u8>(place.base))?;
        // SAFETY: a segment's worth of pages that are nobody's until they are handed out here.
        unsafe { start.write_bytes(0, SLICE) };
        Some(start)
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
        let start = start.as_ptr().addr();
        let place = self.place(start);
        place.touch(start..start + bytes);
        place.system.fetch_add(1, Ordering::Release);
        assert!(std::mem::replace(&mut *place.mapped.lock().unwrap(), false), "unmapped twice");
    }

    unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let start = start.as_ptr().addr();
        self.write(start..start + bytes);
        true
    }
}
