//! Heaps of any class table and backing under any sequence of operations on several threads.
//!
//! Owns the script: what a heap is built with, and the steps, each on one of a few threads. The threads
//! take turns, so a script always runs the same way and the model knows at each step
//! what must hold; between the steps blocks lie in outboxes, inboxes and retired batches, and the threads
//! keep shards, guards and parked leases.

mod crew;
mod model;

use std::ptr::NonNull;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use flagstone_slab::port::{Backing, FailAfter, FixedRegion, OsPages, System, Tracing};
use flagstone_slab::{ClassTable, Heap, HeapBuilder, OwnedHeap};

use crew::Crew;
use model::Model;

/// Threads of a script.
pub const THREADS: u8 = 4;
/// Steps that are run at most: more find nothing new and take time.
const STEPS: usize = 400;
/// Bytes of the caller's buffer that stands in for a machine's memory.
const REGION_BYTES: usize = 24 << 20;

/// A heap and what is done with it.
#[derive(Arbitrary, Clone, Debug)]
pub struct Script {
    /// Its class table.
    pub table: Table,
    /// Its shards.
    pub shards: Shards,
    /// Where its memory comes from.
    pub source: Source,
    /// From which request on the source fails, if it does.
    pub fails_from: Option<u8>,
    /// Most memory in units of a mebibyte, if there is a limit.
    pub cap: Option<u8>,
    /// Whether every free is retired.
    pub retires: bool,
    /// Whether free pages go back at the first occasion.
    pub no_decay: bool,
    /// Whether blocks are left when the heap ends.
    pub leaves_blocks: bool,
    /// What is done.
    pub steps: Vec<Step>,
}

/// A class table.
#[derive(Arbitrary, Clone, Debug)]
pub enum Table {
    /// The default.
    Standard,
    /// [`ClassTable::SMALL_POOL`].
    SmallPool,
    /// [`ClassTable::SMALL_OBJECTS`].
    SmallObjects,
    /// These block sizes in words, in ascending order and each once.
    Words(Vec<u16>),
    /// These block sizes in bytes as they are, which need not be a table.
    Bytes(Vec<u32>),
}

/// How many shards.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Shards {
    /// As threads come.
    OnDemand,
    /// As threads come, up to so many.
    UpTo(u8),
    /// So many, made at the start, fewer than five.
    Fixed(u8),
}

/// Where memory comes from.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Source {
    /// Pages of the system.
    Pages,
    /// The system's allocator.
    System,
    /// A buffer.
    Region,
}

/// One step.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Step {
    /// Which thread does it, modulo [`THREADS`].
    pub thread: u8,
    /// What it does.
    pub deed: Deed,
}

/// What a thread does. Sizes and alignments are folded into sensible ones by [`Size::bytes`] and
/// [`Align::bytes`], choices of blocks by the number of those there are.
#[derive(Arbitrary, Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names say it; fields as in the calls")]
pub enum Deed {
    Alloc { size: Size, align: Align, zeroed: bool },
    AllocMany { size: Size, count: u8 },
    Resize { which: u16, size: Size, align: Align },
    Free { which: u16 },
    FreeMany { which: u16, count: u8 },
    Retire { which: u16 },
    Check { which: u16 },
    Enter,
    Leave,
    Advance,
    Collect,
    Park,
    GiveBack,
    Flush,
    Scavenge,
    Purge,
    Snapshot,
    Exit,
}

/// A size.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Size(pub u32);

impl Size {
    /// Mostly small; some around the edges between classes, tiers, slices and segments; few large.
    pub fn bytes(self) -> usize {
        const EDGES: [usize; 7] = [128, 1 << 10, 4 << 10, 8 << 10, 64 << 10, 512 << 10, 4 << 20];
        let (kind, rest) = (self.0 % 16, (self.0 / 16) as usize);
        match kind {
            0..=7 => rest % 300,
            8..=10 => 300 + rest % 5_000,
            11 | 12 => 5_000 + rest % 100_000,
            13 => 100_000 + rest % (1 << 20),
            14 => EDGES[rest % EDGES.len()] + rest / EDGES.len() % 3 - 1,
            _ => (1 << 20) + rest % (5 << 20),
        }
    }
}

/// An alignment.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Align(pub u8);

impl Align {
    /// A power of two: mostly at most 16, at most 8 MiB.
    pub fn bytes(self) -> usize {
        match self.0 {
            0..=199 => 1 << (self.0 % 5),
            200..=239 => 1 << (5 + self.0 % 13),
            _ => 1 << (18 + self.0 % 6),
        }
    }
}

type Traced = Tracing<FailAfter<Box<dyn Backing>>>;

/// Runs the script that some bytes stand for.
pub fn run(data: &[u8]) {
    if let Ok(script) = Script::arbitrary_take_rest(Unstructured::new(data)) {
        script.run();
    }
}

impl Script {
    /// Runs it.
    ///
    /// # Panics
    /// When something does not hold.
    pub fn run(&self) {
        // Outlives the heap.
        let mut room = match self.source {
            Source::Region => vec![0; REGION_BYTES],
            _ => Vec::new(),
        };
        let Some(heap) = self.build(&mut room) else { return };
        let limited = self.is_limited();
        let model = Mutex::new(Model::new(&heap, self.class_table(), limited));
        thread::scope(|scope| {
            let mut crew = Crew::new(scope, &model);
            for step in self.steps.iter().take(STEPS) {
                crew.run(usize::from(step.thread % THREADS), step.deed);
            }
            crew.settle();
            if !self.leaves_blocks {
                let live = model.lock().unwrap().live();
                for turn in 0..live {
                    crew.run(turn % usize::from(THREADS), Deed::Free { which: 0 });
                }
                crew.settle();
                assert_eq!(model.lock().unwrap().live(), 0);
                assert_eq!(heap.live_bytes(), 0);
            }
            crew.end();
        });
        drop(model);
        heap.into_backing().assert_nothing_outstanding();
    }

    /// Whether memory may run out.
    fn is_limited(&self) -> bool {
        let region = matches!(self.source, Source::Region);
        self.fails_from.is_some() || self.cap.is_some() || region
    }

    /// The class table, if it is one.
    fn class_table(&self) -> Option<ClassTable> {
        match &self.table {
            Table::Standard => Some(ClassTable::standard()),
            Table::SmallPool => Some(ClassTable::SMALL_POOL),
            Table::SmallObjects => Some(ClassTable::SMALL_OBJECTS),
            Table::Words(words) => {
                let mut sizes: Vec<usize> = words
                    .iter()
                    .map(|&word| {
                        (usize::from(word) * 8).clamp(ClassTable::SMALLEST, ClassTable::LARGEST)
                    })
                    .collect();
                sizes.sort_unstable();
                sizes.dedup();
                sizes.truncate(ClassTable::MOST);
                let table = ClassTable::new(&sizes);
                assert_eq!(table.is_err(), sizes.is_empty(), "{sizes:?}");
                table.ok()
            }
            Table::Bytes(bytes) => {
                let sizes: Vec<usize> = bytes.iter().map(|&bytes| bytes as usize).collect();
                let sound = (1..=ClassTable::MOST).contains(&sizes.len())
                    && sizes.windows(2).all(|pair| pair[0] < pair[1])
                    && sizes.iter().all(|&bytes| {
                        bytes % 8 == 0
                            && (ClassTable::SMALLEST..=ClassTable::LARGEST).contains(&bytes)
                    });
                let table = ClassTable::new(&sizes);
                assert_eq!(table.is_ok(), sound, "{sizes:?}: {table:?}");
                table.ok()
            }
        }
    }

    /// The heap, if it can be built.
    fn build(&self, room: &mut [u8]) -> Option<OwnedHeap<Traced>> {
        let source: Box<dyn Backing> = match self.source {
            Source::Pages => Box::new(OsPages),
            Source::System => Box::new(System::SYSTEM),
            Source::Region => {
                let start = NonNull::from(&mut *room).cast();
                // SAFETY: the room outlives the heap, is used by nothing else, and is zeros.
                Box::new(unsafe { FixedRegion::from_raw_parts(start, room.len(), true) })
            }
        };
        let first = self.fails_from.map_or(usize::MAX, usize::from);
        let traced = Tracing::new(FailAfter::new(source, first));
        let mut builder: HeapBuilder<'_, Traced> =
            Heap::builder().name("fuzz").backing(traced).retire_frees(self.retires);
        if let Some(table) = self.class_table() {
            builder = builder.class_table(table);
        }
        builder = match self.shards {
            Shards::OnDemand => builder,
            Shards::UpTo(most) => builder.shards_on_demand(usize::from(most)),
            Shards::Fixed(count) => builder.shards(usize::from(count % 5)),
        };
        if let Some(mebibytes) = self.cap {
            builder = builder.cap(usize::from(mebibytes) << 20);
        }
        if self.no_decay {
            builder = builder.decay(Duration::ZERO);
        }
        match builder.build() {
            Ok(heap) => Some(heap),
            Err(error) => {
                assert!(self.is_limited(), "{:?}", error.failure);
                error.backing.assert_nothing_outstanding();
                None
            }
        }
    }
}
