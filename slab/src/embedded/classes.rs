//! The size classes of the embedded heap.
//!
//! Owns a table that fits slabs of one small slice: few classes, because each class in use holds a slice
//! of a buffer that may have sixteen, and sizes that fill a slice to within 7 %. Up to 256 bytes a block
//! is at most a third larger than the class below it; above, at most half.

use crate::layout::ClassInfo;

/// Bytes of a slice, and so of a slab.
pub(super) const SLICE: usize = 4096;
/// Block sizes in bytes.
const SIZES: [usize; 20] = [
    16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 256, 336, 400, 512, 672, 816, 1024, 1360, 2048,
];
/// Number of classes.
pub(super) const CLASSES: usize = SIZES.len();
/// Bytes of the largest class.
const LARGEST: usize = SIZES[CLASSES - 1];

static INFOS: [ClassInfo; CLASSES] = {
    let mut infos = [ClassInfo::NONE; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let bytes = SIZES[class];
        let capacity = SLICE / bytes;
        assert!(bytes.is_multiple_of(8) && capacity >= 2);
        assert!(SLICE - capacity * bytes <= SLICE * 7 / 100);
        infos[class] = ClassInfo::new(bytes, capacity, 1);
        class += 1;
    }
    infos
};

/// For sizes rounded up to 8: the first class that is large enough.
static BY_SIZE: [u8; LARGEST / 8 + 1] = {
    let mut places = [0; LARGEST / 8 + 1];
    let (mut place, mut class) = (0, 0);
    while place < places.len() {
        while SIZES[class] < place * 8 {
            class += 1;
        }
        places[place] = class as u8;
        place += 1;
    }
    places
};

/// The shape of a class.
pub(super) fn info(class: usize) -> &'static ClassInfo {
    &INFOS[class]
}

/// Bytes of a class's blocks.
pub(super) fn block_bytes(class: usize) -> usize {
    SIZES[class]
}

/// The class of a request, or `None` if it is a range's.
///
/// Blocks lie at multiples of their size from a slice bound, so a class serves an alignment if its
/// size is a multiple of it.
pub(super) fn class_of(bytes: usize, align: usize) -> Option<usize> {
    if bytes > LARGEST || align > LARGEST {
        return None;
    }
    (usize::from(BY_SIZE[bytes.div_ceil(8)])..CLASSES).find(|&class| serves(class, align))
}

/// Whether the blocks of a class have an alignment.
pub(super) fn serves(class: usize, align: usize) -> bool {
    SIZES[class] & (align - 1) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_gets_the_first_class_that_is_large_and_aligned_enough() {
        for align in (0..14).map(|shift| 1usize << shift) {
            for bytes in 0..=LARGEST + 8 {
                let fits =
                    |&class: &usize| SIZES[class] >= bytes && SIZES[class].is_multiple_of(align);
                assert_eq!(class_of(bytes, align), (0..CLASSES).find(fits), "{bytes}/{align}");
            }
        }
    }

    #[test]
    fn steps_are_as_small_as_the_top_of_the_file_says() {
        for pair in SIZES.windows(2).filter(|pair| pair[0] >= 32) {
            let most = if pair[1] <= 256 { pair[0] / 2 } else { pair[0] * 51 / 100 };
            assert!(pair[1] - pair[0] <= most, "{pair:?}");
        }
    }
}
