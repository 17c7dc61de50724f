//! Class tables of heap instances: sizes of the caller's choice, validated once.
//!
//! Owns the table that a heap's slow paths and an instance's fast paths read. The global heap has
//! the default table twice: here, and as constants in [`classes`](super::classes), which its fast
//! path uses; a test holds the two against each other.
//!
//! A request finds its class by size in one load up to a kibibyte, above by binary search. Blocks
//! lie at multiples of their size from a slice bound, so a class serves an alignment if and only if
//! its size is a multiple of it: with sizes of the caller's choice the lookup goes on from the first
//! class that is large enough to the first that is also a multiple.

use std::error::Error;
use std::fmt;

use super::class::ClassInfo;
use super::classes::{CLASSES, LARGEST, MAX_CLASSES, SMALLEST, TABLE_MAX, block_bytes};
use super::segment::SLICE_BYTES;

const SMALL_PLACES: usize = TABLE_MAX / 8 + 1;
/// Stands in the small table for "no class is large enough".
const NO_CLASS: u8 = u8::MAX;

const _: () = assert!(MAX_CLASSES < NO_CLASS as usize);

/// A validated table of size classes (requirement D3).
///
/// Block sizes are ascending multiples of 8 from [`SMALLEST`](Self::SMALLEST) to
/// [`LARGEST`](Self::LARGEST) bytes. Requests above the largest class of the table, or with an
/// alignment that no class large enough is a multiple of, go to the heap's fallback tier.
///
/// ```
/// use flagstone_slab::{ClassTable, ClassTableError};
///
/// let table = ClassTable::new(&[16, 48, 256])?;
/// assert_eq!(table.block_bytes_for(40, 8), Some(48));
/// assert_eq!(table.block_bytes_for(40, 32), Some(256), "48 is no multiple of 32");
/// assert_eq!(table.block_bytes_for(257, 8), None, "the fallback serves it");
/// assert_eq!(
///     ClassTable::new(&[16, 20]).unwrap_err(),
///     ClassTableError::NotAMultipleOf8 { index: 1, bytes: 20 },
/// );
/// # Ok::<(), ClassTableError>(())
/// ```
#[derive(Clone, Copy)]
pub struct ClassTable {
    len: usize,
    infos: [ClassInfo; MAX_CLASSES],
    /// For sizes up to `TABLE_MAX`, rounded up to 8: the first class that is large enough.
    small: [u8; SMALL_PLACES],
}

/// The table of the global heap.
pub(crate) static DEFAULT_TABLE: ClassTable = ClassTable::standard();

/// Why a list of sizes is no class table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClassTableError {
    /// The list is empty.
    Empty,
    /// The list has more sizes than a table holds.
    TooMany {
        /// Sizes in the list.
        sizes: usize,
        /// Sizes that a table holds.
        most: usize,
    },
    /// A block must hold two words.
    TooSmall {
        /// Place of the size in the list.
        index: usize,
        /// The size in bytes.
        bytes: usize,
    },
    /// Larger blocks are the fallback tier's.
    TooLarge {
        /// Place of the size in the list.
        index: usize,
        /// The size in bytes.
        bytes: usize,
    },
    /// Blocks are aligned to words.
    NotAMultipleOf8 {
        /// Place of the size in the list.
        index: usize,
        /// The size in bytes.
        bytes: usize,
    },
    /// The size is not larger than the one before it.
    NotAscending {
        /// Place of the size in the list.
        index: usize,
        /// The size in bytes.
        bytes: usize,
    },
}

impl ClassTable {
    /// Bytes of the smallest possible block.
    pub const SMALLEST: usize = SMALLEST;
    /// Bytes of the largest possible block of a class.
    pub const LARGEST: usize = LARGEST;
    /// Most classes of a table.
    pub const MOST: usize = MAX_CLASSES;

    /// 16, 24, 32, 48, 64, 96, 128, 192, 256: the sizes of a time-series database's sharded pool.
    pub const SMALL_POOL: ClassTable = Self::preset(&[16, 24, 32, 48, 64, 96, 128, 192, 256]);
    /// 32, 64, 128, 256: the small objects of a graph store.
    pub const SMALL_OBJECTS: ClassTable = Self::preset(&[32, 64, 128, 256]);

    /// A table of the given block sizes in bytes.
    ///
    /// # Errors
    /// Says which size is refused and why; see [`ClassTableError`].
    pub const fn new(sizes: &[usize]) -> Result<ClassTable, ClassTableError> {
        if sizes.is_empty() {
            return Err(ClassTableError::Empty);
        }
        if sizes.len() > MAX_CLASSES {
            return Err(ClassTableError::TooMany { sizes: sizes.len(), most: MAX_CLASSES });
        }
        let mut table = ClassTable {
            len: sizes.len(),
            infos: [ClassInfo::NONE; MAX_CLASSES],
            small: [NO_CLASS; SMALL_PLACES],
        };
        let mut index = 0;
        while index < sizes.len() {
            let bytes = sizes[index];
            if bytes < SMALLEST {
                return Err(ClassTableError::TooSmall { index, bytes });
            }
            if bytes > LARGEST {
                return Err(ClassTableError::TooLarge { index, bytes });
            }
            if !bytes.is_multiple_of(8) {
                return Err(ClassTableError::NotAMultipleOf8 { index, bytes });
            }
            if index > 0 && bytes <= sizes[index - 1] {
                return Err(ClassTableError::NotAscending { index, bytes });
            }
            table.infos[index] = ClassInfo::of(bytes);
            index += 1;
        }
        let (mut place, mut class) = (0, 0);
        while place < SMALL_PLACES {
            while class < sizes.len() && sizes[class] < place * 8 {
                class += 1;
            }
            if class < sizes.len() {
                table.small[place] = class as u8;
            }
            place += 1;
        }
        Ok(table)
    }

    /// The default table: steps of at most 12.5 % from 16 bytes to 512 KiB.
    pub const fn standard() -> ClassTable {
        if cfg!(flagstone_loom) {
            // As large as models can have it.
            return Self::SMALL_POOL;
        }
        let mut sizes = [0; CLASSES];
        let mut class = 0;
        while class < CLASSES {
            sizes[class] = block_bytes(class);
            class += 1;
        }
        Self::preset(&sizes)
    }

    /// Block sizes in bytes, ascending. Index = class number.
    pub fn sizes(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.infos[..self.len].iter().map(|info| info.block_bytes as usize)
    }

    /// Bytes of the block that serves a request, or `None` when the fallback tier does. `align` is a
    /// power of two.
    pub fn block_bytes_for(&self, bytes: usize, align: usize) -> Option<usize> {
        let class = self.class_of_layout(bytes, align)?;
        Some(self.infos[class].block_bytes as usize)
    }

    /// Number of classes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The shape of a class, below [`len`](Self::len).
    #[inline(always)]
    pub(crate) fn info(&self, class: usize) -> &ClassInfo {
        &self.infos[class]
    }

    /// The class of a request with an alignment, or `None` when the fallback serves it.
    #[inline]
    pub(crate) fn class_of_layout(&self, bytes: usize, align: usize) -> Option<usize> {
        if align <= 8 && bytes <= TABLE_MAX {
            let class = self.small[bytes.div_ceil(8)];
            return (class != NO_CLASS).then_some(class as usize);
        }
        self.class_of_uncommon(bytes, align)
    }

    fn class_of_uncommon(&self, bytes: usize, align: usize) -> Option<usize> {
        if align > SLICE_BYTES {
            return None;
        }
        let infos = &self.infos[..self.len];
        let first = if bytes <= TABLE_MAX {
            match self.small[bytes.div_ceil(8)] {
                NO_CLASS => return None,
                class => class as usize,
            }
        } else {
            infos.partition_point(|info| (info.block_bytes as usize) < bytes)
        };
        let multiple = |info: &ClassInfo| info.block_bytes as usize & (align - 1) == 0;
        infos[first..].iter().position(multiple).map(|further| first + further)
    }

    const fn preset(sizes: &[usize]) -> ClassTable {
        match Self::new(sizes) {
            Ok(table) => table,
            Err(_) => panic!("a preset is not a class table"),
        }
    }
}

impl Default for ClassTable {
    fn default() -> Self {
        Self::standard()
    }
}

impl PartialEq for ClassTable {
    fn eq(&self, other: &Self) -> bool {
        self.sizes().eq(other.sizes())
    }
}

impl Eq for ClassTable {}

impl fmt::Debug for ClassTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.sizes()).finish()
    }
}

impl fmt::Display for ClassTableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty => f.write_str("a class table needs at least one size"),
            Self::TooMany { sizes, most } => {
                write!(f, "{sizes} sizes are more than the {most} that a class table holds")
            }
            Self::TooSmall { index, bytes } => {
                write!(f, "size {index}, {bytes} bytes, is below the {SMALLEST} of two words")
            }
            Self::TooLarge { index, bytes } => {
                write!(f, "size {index}, {bytes} bytes, is above the largest class of {LARGEST}")
            }
            Self::NotAMultipleOf8 { index, bytes } => {
                write!(f, "size {index}, {bytes} bytes, is not a multiple of 8")
            }
            Self::NotAscending { index, bytes } => {
                write!(f, "size {index}, {bytes} bytes, is not above the one before it")
            }
        }
    }
}

impl Error for ClassTableError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{class_of_common, class_of_layout};
    use super::*;

    /// From one byte on: `GlobalAlloc` is never asked for none.
    // requirement: D3
    #[test]
    fn the_default_table_is_the_global_heaps() {
        let mut align = 1;
        while align <= 2 * SLICE_BYTES {
            for bytes in (1..=4096).chain((4096..=LARGEST + 64).step_by(61)) {
                let expected = class_of_layout(bytes, align);
                assert_eq!(
                    DEFAULT_TABLE.class_of_layout(bytes, align),
                    expected,
                    "{bytes}/{align}"
                );
                if let Some(class) = class_of_common(bytes, align) {
                    assert_eq!(Some(class), expected, "{bytes}/{align}");
                }
            }
            align *= 2;
        }
    }

    #[test]
    fn a_refused_list_says_which_size_and_why() {
        use ClassTableError::*;
        assert_eq!(ClassTable::new(&[]), Err(Empty));
        assert_eq!(ClassTable::new(&[8, 16]), Err(TooSmall { index: 0, bytes: 8 }));
        assert_eq!(ClassTable::new(&[16, 16]), Err(NotAscending { index: 1, bytes: 16 }));
        assert_eq!(ClassTable::new(&[32, 24]), Err(NotAscending { index: 1, bytes: 24 }));
        assert_eq!(ClassTable::new(&[16, 28]), Err(NotAMultipleOf8 { index: 1, bytes: 28 }));
        let above = LARGEST + 8;
        assert_eq!(ClassTable::new(&[above]), Err(TooLarge { index: 0, bytes: above }));
        let many: Vec<usize> = (2..MAX_CLASSES + 3).map(|i| i * 8).collect();
        let too_many = TooMany { sizes: MAX_CLASSES + 1, most: MAX_CLASSES };
        assert_eq!(ClassTable::new(&many), Err(too_many));
        assert!(ClassTable::new(&many[1..]).is_ok());
    }

    proptest! {
        #[test]
        fn a_request_gets_the_first_class_that_is_large_and_aligned_enough(
            sizes in proptest::collection::btree_set(2usize..=LARGEST / 8, 1..MAX_CLASSES),
            bytes in prop_oneof![0usize..2048, 0..=LARGEST + 8],
            align in 0u32..18,
        ) {
            let sizes: Vec<usize> = sizes.into_iter().map(|words| words * 8).collect();
            let align = 1usize << align;
            let table = ClassTable::new(&sizes).expect("ascending multiples of 8");
            let fits = |size: &&usize| **size >= bytes && size.is_multiple_of(align);
            let expected = (align <= SLICE_BYTES).then(|| sizes.iter().find(fits)).flatten();
            prop_assert_eq!(table.block_bytes_for(bytes, align), expected.copied());
            for (class, &size) in sizes.iter().enumerate() {
                let info = table.info(class);
                prop_assert!(info.capacity as usize * size <= info.slab_bytes());
                prop_assert!(info.capacity >= 8 || size > SLICE_BYTES && info.capacity == 1);
            }
        }
    }
}
