//! Frees that a correct program does not make: twice, inside a block, to another heap.
//!
//! Owns the checks of the slow path and the messages. The fast path turns suspicious blocks away
//! without deciding anything; here the suspicion is proved, and the process ends with a line that
//! names the address, its class and its owner, or the free goes on.
//!
//! A free block carries in its first word the encoded link to another free block of its slab, to none, or,
//! on its way to its owner, to itself; an allocation clears the word. So a block that is freed and carries
//! such a link was freed before, unless the program wrote one of a few million words out of 2^64 that it
//! cannot know, and one that fits to where it leads.

use std::fmt;

use super::Heap;
use super::registry::Visit;
use crate::layout::{Block, HeapId, Kind, OwnerKind, SegmentMap, Slab, slab_of};
use crate::os::fatal;
use crate::shard::{Shard, owner_word};

impl Heap {
    /// Ends the process if `block` is not the start of a block of `slab`, or free already.
    ///
    /// # Safety
    /// The slab is in use, of this heap, and the caller gives up `block`, which lies in it.
    pub(super) unsafe fn check_free(&self, slab: &Slab, block: Block) {
        if !slab.is_block(block) {
            fatal(format_args!(
                "free of {block:p}, which is not the start of a block: {}",
                Whose(slab, self.name)
            ));
        }
        let key = self.key();
        // SAFETY: by contract.
        if unsafe { key.looks_free(block) && slab.is_linked(key, block) } {
            self.fatal_twice(slab, block);
        }
    }

    #[cold]
    fn fatal_twice(&self, slab: &Slab, block: Block) -> ! {
        fatal(format_args!("double free of {block:p}: {}", Whose(slab, self.name)))
    }

    /// Ends the process over a block of heap `id` that was freed to this one, and says whose it is
    /// (requirement G9).
    #[cold]
    pub(super) fn fatal_foreign(&self, block: Block, id: HeapId) -> ! {
        let visit = Visit::to_any(id.0);
        let owner = match &visit {
            Some(visit) => visit.heap().name,
            None if id == HeapId::GLOBAL => Heap::global().name,
            None => "that is gone",
        };
        let to = self.name;
        if SegmentMap::kind(block.addr()) == Kind::Large(id) {
            fatal(format_args!("free of {block:p} to heap {to}: a large block of heap {owner}"))
        }
        // SAFETY: the map says that the head may be read (rule M1); its owner is not this heap, but
        // the block, if it is one, is in use.
        let slab = unsafe { slab_of(block) };
        if owner_word(slab).get().kind() == OwnerKind::None {
            fatal(format_args!("free of {block:p} to heap {to}: in no slab of heap {owner}"))
        }
        fatal(format_args!("free of {block:p} to heap {to}: {}", Whose(slab, owner)))
    }
}

/// Ends the process over a block that was freed again and found out when its slab's blocks were linked: on
/// its way to its owner a block is not touched where frees are not checked. From wherever that is, with or without locks.
#[cold]
pub(crate) fn freed_twice(slab: &Slab, block: Block) -> ! {
    match Visit::to_any(slab.segment().table.heap().0) {
        Some(visit) => visit.heap().fatal_twice(slab, block),
        None => Heap::global().fatal_twice(slab, block),
    }
}

/// Says what a slab's blocks are and whose: the slab, and its heap's name.
pub(super) struct Whose<'a>(pub(super) &'a Slab, pub(super) &'a str);

impl fmt::Display for Whose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(slab, heap) = self;
        let (class, bytes) = (slab.class.get(), slab.block_bytes.get());
        write!(f, "a block of {bytes} bytes, class {class}, of heap {heap}, ")?;
        match owner_word(slab).get().kind() {
            OwnerKind::Shard(address) => {
                let shard: *const Shard = std::ptr::with_exposed_provenance(address);
                // SAFETY: shards are never freed before their heap, which is there.
                write!(f, "shard {}", unsafe { (*shard).index })
            }
            OwnerKind::Bucket => write!(f, "in a bucket"),
            OwnerKind::None => write!(f, "in no shard"),
        }
    }
}

#[cfg(all(test, not(flagstone_loom)))]
mod tests {
    use super::*;
    use crate::layout::List;
    use crate::untyped;

    /// Freed without complaint: the word leads to a block that is not in a list as long as the word says.
    #[test]
    fn a_word_that_reads_like_a_link_does_not_make_a_block_free() {
        let blocks = [(); 3].map(|()| untyped::alloc(48));
        let key = Heap::global().key();
        for len in [1, 2, 100] {
            let [block, other, _] = blocks;
            // SAFETY: blocks in use, of one class.
            unsafe {
                other.cast::<usize>().write(7);
                key.set_rest(block, List::starting(other, len));
                assert!(key.looks_free(block));
                Heap::global().check_free(slab_of(block), block);
            }
        }
        for block in blocks {
            // SAFETY: allocated above.
            unsafe { untyped::free(block) };
        }
    }
}
