//! One handle, several allocators: the mode is chosen when the program is compiled (requirement D1).
//!
//! Owns the modes, which are a closed set: a program that names another does not compile. All have
//! the same surface, `init`, `allocator`, `deinit`, so a system can start on the system's allocator
//! and move later without touching the code that allocates (requirement W3). The two modes that pass
//! through have no state, and what they hand out is the inner allocator and nothing else
//! (requirement Z2).

use std::error::Error;
use std::fmt;

use super::{BuildFailure, Heap, HeapBuilder, OwnedHeap};
use crate::layout::ClassTable;
#[cfg(feature = "mimalloc")]
use crate::port::Mimalloc as MimallocPort;
use crate::port::{BlockPort, System as SystemPort};

/// An allocator in one of the [modes](Mode).
///
/// ```
/// use flagstone_slab::mode::{AllocatorHandle, InitError, Mode, Sharded, System};
/// use flagstone_slab::port::BlockPort;
/// use std::alloc::Layout;
///
/// fn work<M: Mode>() -> Result<(), InitError> {
///     let handle = AllocatorHandle::<M>::init()?;
///     let allocator = handle.allocator();
///     let layout = Layout::new::<[u64; 4]>();
///     let block = allocator.try_alloc(layout).expect("memory");
///     // SAFETY: allocated above with this layout.
///     unsafe { allocator.dealloc(block, layout) };
///     assert_eq!(handle.deinit().outstanding_bytes.unwrap_or(0), 0);
///     Ok(())
/// }
///
/// work::<System>()?;
/// work::<Sharded>()?;
/// # Ok::<(), InitError>(())
/// ```
///
/// A type that is no mode is refused:
///
/// ```compile_fail,E0277
/// use flagstone_slab::mode::AllocatorHandle;
///
/// struct Unknown;
/// let handle = AllocatorHandle::<Unknown>::init();
/// ```
///
/// and nobody can make one:
///
/// ```compile_fail,E0277
/// struct Unknown;
/// impl flagstone_slab::mode::Mode for Unknown {
///     const NAME: &'static str = "unknown";
///     type Allocator<'a> = &'a flagstone_slab::Heap;
/// }
/// ```
pub struct AllocatorHandle<M: Mode> {
    state: M::State,
}

/// What a handle's end left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deinit {
    /// Bytes of blocks that were still out, which are gone with the heap; `None` where the allocator
    /// does not count them, and keeps them.
    pub outstanding_bytes: Option<u64>,
}

/// Why a mode could not be initialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitError {
    /// The mode's heap could not be built.
    Heap(BuildFailure),
}

/// An allocator that a handle can be made for. A closed set.
pub trait Mode: sealed::State {
    /// The mode's name, as configurations spell it.
    const NAME: &'static str;

    /// What blocks are taken from. Cheap to copy; an `Allocator` for collections as well.
    type Allocator<'a>: BlockPort + Copy
    where
        Self: 'a;
}

/// The system's allocator, passed through.
#[derive(Clone, Copy, Debug)]
pub enum System {}

/// mimalloc, passed through.
#[cfg(feature = "mimalloc")]
#[derive(Clone, Copy, Debug)]
pub enum Mimalloc {}

/// A heap instance of the handle's own.
#[derive(Clone, Copy, Debug)]
pub enum Sharded {}

impl<M: Mode> AllocatorHandle<M> {
    /// Makes the mode's allocator ready.
    ///
    /// # Errors
    /// The mode needs a heap and there is no memory or no heap number for it. The modes that pass
    /// through cannot fail.
    pub fn init() -> Result<Self, InitError> {
        Ok(Self { state: M::init(None)? })
    }

    /// The same with the size classes of a configuration, so that they can be passed on whatever the
    /// mode. Modes that pass through have classes of their own, and take no notice.
    ///
    /// # Errors
    /// As [`init`](Self::init).
    pub fn init_with_classes(table: ClassTable) -> Result<Self, InitError> {
        Ok(Self { state: M::init(Some(table))? })
    }

    /// What blocks are taken from.
    #[inline]
    pub fn allocator(&self) -> M::Allocator<'_> {
        M::allocator(&self.state)
    }

    /// Ends the allocator, and says what had not come back.
    pub fn deinit(self) -> Deinit {
        Deinit { outstanding_bytes: M::outstanding(&self.state) }
    }
}

impl AllocatorHandle<Sharded> {
    /// A sharded handle over a heap built to order: class table, shards, cap, name, decay.
    ///
    /// # Errors
    /// The heap could not be built.
    pub fn init_with(builder: HeapBuilder<'_>) -> Result<Self, InitError> {
        let heap = builder.build().map_err(|error| InitError::Heap(error.failure))?;
        Ok(Self { state: heap })
    }

    /// The handle's heap, for its statistics.
    pub fn heap(&self) -> &Heap {
        &self.state
    }
}

impl Mode for System {
    const NAME: &'static str = "default";
    type Allocator<'a> = SystemPort;
}

#[cfg(feature = "mimalloc")]
impl Mode for Mimalloc {
    const NAME: &'static str = "mimalloc";
    type Allocator<'a> = &'static MimallocPort;
}

impl Mode for Sharded {
    const NAME: &'static str = "small_pool";
    type Allocator<'a> = &'a Heap;
}

mod sealed {
    use super::{ClassTable, InitError, Mode};

    /// What a mode does. Private, so that the set is closed.
    pub trait State {
        type State;

        fn init(table: Option<ClassTable>) -> Result<Self::State, InitError>;

        fn allocator<'a>(state: &'a Self::State) -> Self::Allocator<'a>
        where
            Self: Mode;

        fn outstanding(state: &Self::State) -> Option<u64>;
    }
}

impl sealed::State for System {
    type State = ();

    fn init(_: Option<ClassTable>) -> Result<(), InitError> {
        Ok(())
    }

    #[inline]
    fn allocator((): &()) -> SystemPort {
        SystemPort::SYSTEM
    }

    fn outstanding((): &()) -> Option<u64> {
        None
    }
}

#[cfg(feature = "mimalloc")]
impl sealed::State for Mimalloc {
    type State = ();

    fn init(_: Option<ClassTable>) -> Result<(), InitError> {
        Ok(())
    }

    #[inline]
    fn allocator((): &()) -> &'static MimallocPort {
        &MimallocPort::MIMALLOC
    }

    fn outstanding((): &()) -> Option<u64> {
        None
    }
}

impl sealed::State for Sharded {
    type State = OwnedHeap;

    fn init(table: Option<ClassTable>) -> Result<OwnedHeap, InitError> {
        let table = table.unwrap_or_else(ClassTable::standard);
        let built = Heap::builder().name(Sharded::NAME).class_table(table).build();
        built.map_err(|error| InitError::Heap(error.failure))
    }

    #[inline]
    fn allocator(heap: &OwnedHeap) -> &Heap {
        heap
    }

    fn outstanding(heap: &OwnedHeap) -> Option<u64> {
        // What this thread has gathered for other shards of the heap is not out, but on its way.
        crate::thread::flush();
        Some(heap.live_bytes())
    }
}

impl<M: Mode> fmt::Debug for AllocatorHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllocatorHandle").field("mode", &M::NAME).finish_non_exhaustive()
    }
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Heap(failure) => failure.fmt(f),
        }
    }
}

impl Error for InitError {}
