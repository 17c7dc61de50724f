//! Whether there is memory to spare for an answer.
//!
//! Rendering and hyper allocate without asking, and without memory that ends the process. So the admin
//! server asks the heap first whether it could have more than an answer has ever taken: where it could
//! not, the answer is 503 and a new connection waits. Monitoring is refused before the program that it
//! watches is harmed; and that its memory is short is what it then says.
//!
//! The question is about what the system gives, and not about blocks: taking a block and giving it back
//! would show in the figures that are about to be read.

use std::sync::{Mutex, PoisonError};

use flagstone_slab::Heap;

/// What must be there at least: room for a segment wherever the system puts it, which is the largest step
/// in which small blocks may need memory.
const LEAST: usize = 12 << 20;

/// Bytes that an answer may take for each that it has: JSON is a tree before it is text.
const PER_REPLY_BYTE: usize = 32;

/// How much the answers take, as far as seen.
#[derive(Debug, Default)]
pub(super) struct Spare {
    largest_reply: Mutex<usize>,
}

impl Spare {
    /// Whether there is memory for another answer, or for a connection.
    pub(super) fn is_there(&self) -> bool {
        Heap::global().can_grow(self.wanted())
    }

    /// Notes the size of a reply.
    pub(super) fn replied(&self, bytes: usize) {
        let mut largest = self.largest_reply.lock().unwrap_or_else(PoisonError::into_inner);
        *largest = bytes.max(*largest);
    }

    fn wanted(&self) -> usize {
        let largest = *self.largest_reply.lock().unwrap_or_else(PoisonError::into_inner);
        LEAST.saturating_add(largest.saturating_mul(PER_REPLY_BYTE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_asked_for_where_replies_are_larger() {
        let spare = Spare::default();
        assert!(spare.is_there());
        assert_eq!(spare.wanted(), LEAST);
        spare.replied(1000);
        spare.replied(10);
        assert_eq!(spare.wanted(), LEAST + 1000 * PER_REPLY_BYTE);
        spare.replied(usize::MAX);
        assert!(!spare.is_there(), "nobody has that much");
    }
}
