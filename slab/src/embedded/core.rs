//! Slabs and ranges in one region.
//!
//! Owns everything behind the lock. What lies where:
//!
//! ```text
//! region: | ranges, from the low end ->    free    <- slices, from the high end | table |
//! ```
//!
//! The table has a [`Slab`] for each whole slice of the region; one that is not set up (`slices` is
//! zero) stands for a slice that is no slab. So an address leads to its slab by a division, and any
//! other address of the region is a range's, whose length the caller's layout gives.
//!
//! A slab is *listed* in its class while it has free blocks. A free that leaves none out has
//! emptied the slab. An empty slab goes back to the region, but the only listed one of a class stays until memory is short.

use core::alloc::Layout;
use core::ptr::{self, NonNull};

use super::GiveError;
use super::classes::{CLASSES, SLICE, block_bytes, class_of, info, serves};
use crate::layout::{Block, LinkKey, Slab, SlabList};
use crate::os::{self, poison};
use crate::port::{End, FixedRegion};

const GRAIN: usize = FixedRegion::GRAIN;

/// The heap behind its lock.
pub(super) struct Core {
    /// Nothing is served without one.
    pub(super) region: Option<FixedRegion>,
    /// Where the first whole slice starts.
    base: usize,
    /// One for each whole slice.
    table: *const Slab,
    slices: usize,
    key: LinkKey,
    pub(super) classes: [Class; CLASSES],
    /// Slabs without a block in use.
    empty: usize,
    pub(super) sums: Sums,
}

/// One size class.
pub(super) struct Class {
    /// Slabs with free blocks.
    listed: SlabList,
    pub(super) slabs: usize,
    /// Blocks in use.
    pub(super) live: usize,
}

/// What no class counts.
pub(super) struct Sums {
    /// Free bytes of the region when it came.
    pub(super) given: usize,
    pub(super) table_bytes: usize,
    /// Bytes of blocks in use, and the most there were.
    pub(super) live: usize,
    pub(super) high_water: usize,
    pub(super) allocs: u64,
    pub(super) frees: u64,
    pub(super) failures: u64,
}

/// What lies at an address.
pub(super) enum Place {
    /// A block of this slab.
    Slab(&'static Slab),
    /// A range.
    Range,
}

// SAFETY: the pointers lead into the region, which the core owns.
unsafe impl Send for Core {}

impl Core {
    pub(super) const fn new() -> Self {
        Self {
            region: None,
            base: 0,
            table: ptr::null(),
            slices: 0,
            key: LinkKey(0),
            classes: [const { Class { listed: SlabList::new(), slabs: 0, live: 0 } }; CLASSES],
            empty: 0,
            sums: Sums {
                given: 0,
                table_bytes: 0,
                live: 0,
                high_water: 0,
                allocs: 0,
                frees: 0,
                failures: 0,
            },
        }
    }

    pub(super) fn give(&mut self, mut region: FixedRegion) -> Result<(), GiveError> {
        if self.region.is_some() {
            return Err(GiveError::Given(region));
        }
        let given = region.free_bytes();
        let (start, end) = (region.start(), region.start() + region.bytes());
        let base = start.next_multiple_of(SLICE);
        let slices = end.saturating_sub(base) / SLICE;
        let table_bytes = (slices * size_of::<Slab>()).next_multiple_of(GRAIN);
        // Room for one slab is what makes it a heap.
        let Some((slice, zeros)) = region.ranges().take(SLICE, SLICE, End::High) else {
            return Err(GiveError::TooSmall(region));
        };
        // SAFETY: taken just now.
        let back = unsafe { region.ranges().insert(slice, SLICE, zeros) };
        debug_assert!(back);
        let Some((table, zeros)) = region.ranges().take(table_bytes, GRAIN, End::High) else {
            return Err(GiveError::TooSmall(region));
        };
        if !zeros {
            // SAFETY: taken just now. Zeros are entries that are not set up.
            unsafe { table.write_bytes(0, table_bytes) };
        }
        self.base = base;
        self.table = table.cast();
        self.slices = slices;
        // The highest bit is set, so that neither zero nor an address reads like a link.
        self.key = LinkKey(os::entropy() | 1 << (usize::BITS - 1));
        self.sums.given = given;
        self.sums.table_bytes = table_bytes;
        self.region = Some(region);
        Ok(())
    }

    /// A block and whether it is all zeros.
    pub(super) fn alloc(&mut self, layout: Layout) -> Option<(NonNull<u8>, bool)> {
        let class = class_of(layout.size(), layout.align());
        let block = class
            .and_then(|class| self.alloc_in(class).or_else(|| self.alloc_above(class, layout)))
            .map(|block| (block, false))
            .or_else(|| self.alloc_range(layout));
        match block.and_then(|(block, zeros)| Some((NonNull::new(block)?, zeros))) {
            Some(block) => {
                self.note_alloc();
                Some(block)
            }
            None => {
                self.sums.failures += 1;
                None
            }
        }
    }

    /// Counts a block that is handed out.
    pub(super) fn note_alloc(&mut self) {
        self.sums.allocs += 1;
        self.sums.high_water = self.sums.high_water.max(self.sums.live);
    }

    /// A block of exactly this class.
    pub(super) fn alloc_in(&mut self, class: usize) -> Option<Block> {
        self.pop(class).or_else(|| self.add_slab(class).and_then(|()| self.pop(class))).or_else(
            || {
                self.reclaim().then_some(())?;
                self.add_slab(class)?;
                self.pop(class)
            },
        )
    }

    /// A block of a larger class than asked for: there is no memory for another slab.
    #[cold]
    fn alloc_above(&mut self, class: usize, layout: Layout) -> Option<Block> {
        let mut above = (class + 1..CLASSES).filter(|&class| serves(class, layout.align()));
        above.find_map(|class| self.pop(class))
    }

    fn alloc_range(&mut self, layout: Layout) -> Option<(Block, bool)> {
        let bytes = range_bytes(layout)?;
        let align = layout.align().max(GRAIN);
        let mut taken = self.region.as_mut()?.ranges().take(bytes, align, End::Low);
        if taken.is_none() && self.reclaim() {
            taken = self.region.as_mut()?.ranges().take(bytes, align, End::Low);
        }
        let taken = taken?;
        self.sums.live += bytes;
        Some(taken)
    }

    /// Takes a block of a listed slab.
    fn pop(&mut self, class: usize) -> Option<Block> {
        let listed = &self.classes[class].listed;
        // SAFETY: listed slabs are set up, in the table, and the core's.
        let slab = unsafe { listed.first().as_ref() }?;
        self.empty -= usize::from(slab.out() == 0);
        // SAFETY: the core owns the slab; a listed slab has a free block, linked or not.
        let block = unsafe {
            slab.pop(self.key).or_else(|| {
                slab.link_untouched(self.start_of(slab), self.key);
                slab.pop(self.key)
            })
        };
        if slab.is_full() {
            // SAFETY: listed.
            unsafe { listed.remove(slab) };
        }
        self.classes[class].live += 1;
        self.sums.live += block_bytes(class);
        if let Some(block) = block {
            poison::open(block, block_bytes(class));
        }
        block
    }

    /// Lists a fresh slab.
    fn add_slab(&mut self, class: usize) -> Option<()> {
        let (start, _) = self.region.as_mut()?.ranges().take(SLICE, SLICE, End::High)?;
        let slab = self.entry((start.addr() - self.base) / SLICE)?;
        slab.set_up(class, info(class));
        poison::close(start, SLICE);
        // SAFETY: the slab is new, so in no list.
        unsafe { self.classes[class].listed.push(slab) };
        self.classes[class].slabs += 1;
        self.empty += 1;
        Some(())
    }

    /// Gives every empty slab back to the region; whether there was one.
    #[cold]
    fn reclaim(&mut self) -> bool {
        if self.empty == 0 {
            return false;
        }
        for class in 0..CLASSES {
            let mut next = self.classes[class].listed.first();
            // SAFETY: as in `pop`.
            while let Some(slab) = unsafe { next.as_ref() } {
                // SAFETY: listed; read before it goes.
                next = unsafe { self.classes[class].listed.after(slab) };
                if slab.out() == 0 {
                    self.give_back(class, slab);
                }
            }
        }
        true
    }

    /// Gives a listed, empty slab back to the region.
    fn give_back(&mut self, class: usize, slab: &Slab) {
        let start = self.start_of(slab);
        // SAFETY: listed; no block of it is out, so nobody uses the slice.
        let back = unsafe {
            self.classes[class].listed.remove(slab);
            let ranges = self.region.as_mut().map(FixedRegion::ranges);
            ranges.is_some_and(|ranges| ranges.insert(start, SLICE, false))
        };
        if !back {
            os::fatal(format_args!("the slab at {start:p} is free already: the heap is damaged"));
        }
        slab.slices.set(0);
        self.classes[class].slabs -= 1;
        self.empty -= 1;
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// The block came from this heap, was last asked for with `layout`, and is given up.
    pub(super) unsafe fn free(&mut self, block: NonNull<u8>, layout: Layout) {
        self.sums.frees += 1;
        match self.place_of(block.as_ptr()) {
            // SAFETY: by contract, as far as it is not checked there.
            Place::Slab(slab) => unsafe { self.free_block(slab, block.as_ptr()) },
            Place::Range => match range_bytes(layout) {
                // SAFETY: by contract.
                Some(bytes) => unsafe { self.free_range(block.as_ptr(), bytes) },
                None => os::fatal(format_args!("free of {block:p} with an impossible layout")),
            },
        }
    }

    /// # Safety
    /// As [`free`](Self::free).
    unsafe fn free_block(&mut self, slab: &Slab, block: Block) {
        self.check_block(slab, block);
        let class = usize::from(slab.class.get());
        let was_full = slab.is_full();
        poison::close(block, block_bytes(class));
        // SAFETY: the core owns the slab; the block is one of it and given up.
        unsafe { slab.push(self.key, block) };
        let emptied = slab.out() == 0;
        self.classes[class].live -= 1;
        self.sums.live -= block_bytes(class);
        let listed = &self.classes[class].listed;
        if was_full {
            // SAFETY: full slabs are in no list.
            unsafe { listed.push(slab) };
        }
        if emptied {
            self.empty += 1;
            // SAFETY: the slab is listed, now or already.
            let only = ptr::eq(listed.first(), slab) && unsafe { listed.after(slab) }.is_null();
            if !only {
                self.give_back(class, slab);
            }
        }
    }

    /// Ends the program if `block` is not the start of a block of the slab, or is free.
    fn check_block(&self, slab: &Slab, block: Block) {
        let start = self.start_of(slab);
        let bytes = slab.block_bytes.get();
        let offset = block.addr() - start.addr();
        let linked = (slab.linked() * bytes) as usize;
        if !slab.starts_block(offset) || offset >= linked {
            os::fatal(format_args!(
                "free of {block:p}, which is no block: inside one of {bytes} bytes"
            ));
        }
        // SAFETY: a block of the slab, which is the core's if it is free and the caller's if not.
        let next = unsafe { self.key.next(block) };
        if !(next.is_null() || slab.is_block_from(start, next)) {
            return;
        }
        // It reads like a free block, which a block in use does by chance. The list tells.
        let mut free = slab.free();
        while !free.is_empty() {
            if free.first() == block {
                os::fatal(format_args!("double free of {block:p}, a block of {bytes} bytes"));
            }
            // SAFETY: a block on the free list is free and linked.
            free = unsafe { self.key.rest(free.first()) };
        }
    }

    /// # Safety
    /// `start` is a range of so many bytes, or the end of one, and is given up.
    pub(super) unsafe fn free_range(&mut self, start: Block, bytes: usize) {
        let region = self.region.as_mut();
        let Some(region) = region.filter(|region| region.contains(start)) else {
            os::fatal(format_args!("free of {start:p}, which is not in the heap's region"));
        };
        let bound = start.addr().is_multiple_of(GRAIN);
        // SAFETY: by contract, as far as it is not checked.
        if !bound || !unsafe { region.ranges().insert(start, bytes, false) } {
            os::fatal(format_args!(
                "free of {start:p}, which is no block: free already, or inside one"
            ));
        }
        self.sums.live -= bytes;
    }

    /// Makes a range longer in place, if what is behind it is free; whether it did.
    pub(super) fn extend_range(&mut self, start: Block, bytes: usize, more: usize) -> bool {
        let Some(region) = self.region.as_mut() else { return false };
        let done = region.ranges().take_at(start.wrapping_add(bytes), more);
        if done {
            self.sums.live += more;
            self.sums.high_water = self.sums.high_water.max(self.sums.live);
        }
        done
    }

    /// What an address of the heap is in.
    pub(super) fn place_of(&self, address: Block) -> Place {
        let slice = address.addr().wrapping_sub(self.base) / SLICE;
        match self.entry(slice) {
            Some(slab) if slab.slices.get() != 0 => Place::Slab(slab),
            _ => Place::Range,
        }
    }

    fn entry(&self, slice: usize) -> Option<&'static Slab> {
        // SAFETY: the table has so many entries, all zeros or set up, and stays as long as the region,
        // which the heap never gives back; `'static` says only that no borrow tracks it.
        (slice < self.slices).then(|| unsafe { &*self.table.add(slice) })
    }

    /// Where a slab's first block lies.
    fn start_of(&self, slab: &Slab) -> Block {
        let slice = (ptr::from_ref(slab).addr() - self.table.addr()) / size_of::<Slab>();
        // The region exposed its provenance.
        ptr::with_exposed_provenance_mut(self.base + slice * SLICE)
    }

    #[cfg(debug_assertions)]
    pub(super) fn debug_validate(&mut self) {
        let mut slabs = [0; CLASSES];
        let mut out = [0; CLASSES];
        let mut empty = 0;
        for slab in (0..self.slices).filter_map(|slice| self.entry(slice)) {
            if slab.slices.get() == 0 {
                continue;
            }
            let class = usize::from(slab.class.get());
            let mut free = 0;
            let mut list = slab.free();
            while !list.is_empty() {
                let block = list.first();
                assert!(slab.is_block_from(self.start_of(slab), block), "a list leaves its slab");
                free += 1;
                // SAFETY: a block on the free list is free and linked.
                list = unsafe { self.key.rest(block) };
                assert_eq!(list.len() + free, slab.free().len(), "a list has another length");
            }
            assert_eq!(slab.out() + free, slab.linked());
            slabs[class] += 1;
            out[class] += slab.out() as usize;
            empty += usize::from(slab.out() == 0);
            let mut listed = self.classes[class].listed.first();
            while !listed.is_null() && !ptr::eq(listed, slab) {
                // SAFETY: listed.
                listed = unsafe { self.classes[class].listed.after(listed) };
            }
            assert_eq!(
                listed.is_null(),
                slab.is_full(),
                "listed if and only if it has free blocks"
            );
        }
        assert_eq!(empty, self.empty);
        for (class, (slabs, out)) in self.classes.iter().zip(slabs.into_iter().zip(out)) {
            assert_eq!((class.slabs, class.live), (slabs, out));
        }
        let stats = self.stats();
        assert_eq!(stats.residual(), 0, "{stats:?}");
    }
}

/// Bytes of the range for a request; `None` if there can be none.
pub(super) fn range_bytes(layout: Layout) -> Option<usize> {
    layout.size().checked_next_multiple_of(GRAIN)
}
