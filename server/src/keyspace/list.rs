//! Lists: a ring of exactly sized elements.
//!
//! Each element is one block of its own, pushed on one thread and often freed on another, so a queue
//! between clients is a stream of cross-thread frees for the allocator. The ring grows by doubling
//! and shrinks when it is a quarter full, so a long queue that was read empty gives its memory back.

use std::collections::VecDeque;
use std::ops::Range;

use crate::allocator::block_bytes;

/// Rings of at most this many slots are not shrunk.
const RING_KEPT: usize = 64;

/// One end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The head: `LPUSH`, `LPOP`.
    Left,
    /// The tail: `RPUSH`, `RPOP`.
    Right,
}

/// A list of byte strings.
#[derive(Debug, Default)]
pub struct List {
    items: VecDeque<Box<[u8]>>,
    /// Sum of the elements' blocks.
    bytes: usize,
}

impl List {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a copy of `element` at `end`.
    pub fn push(&mut self, end: End, element: &[u8]) {
        self.push_owned(end, element.into());
    }

    /// Adds `element` at `end`.
    pub fn push_owned(&mut self, end: End, element: Box<[u8]>) {
        self.bytes += element_bytes(&element);
        match end {
            End::Left => self.items.push_front(element),
            End::Right => self.items.push_back(element),
        }
    }

    /// Takes the element at `end`.
    pub fn pop(&mut self, end: End) -> Option<Box<[u8]>> {
        let element = match end {
            End::Left => self.items.pop_front(),
            End::Right => self.items.pop_back(),
        }?;
        self.bytes -= element_bytes(&element);
        if self.items.capacity() > RING_KEPT && self.items.len() < self.items.capacity() / 4 {
            self.items.shrink_to(2 * self.items.len());
        }
        Some(element)
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The element at `index`; negative counts from the end, -1 is the last.
    pub fn get(&self, index: i64) -> Option<&[u8]> {
        let index = if index < 0 { index.checked_add_unsigned(self.len() as u64)? } else { index };
        self.items.get(usize::try_from(index).ok()?).map(|element| &**element)
    }

    /// The positions from `start` to `stop`, both included, negative ones counted from the end,
    /// clipped to what there is.
    pub fn positions(&self, start: i64, stop: i64) -> Range<usize> {
        let len = self.len() as i64;
        let from = if start < 0 { (start.saturating_add(len)).max(0) } else { start };
        let to = if stop < 0 { stop.saturating_add(len) } else { stop.min(len - 1) };
        if from > to || from >= len { 0..0 } else { from as usize..to as usize + 1 }
    }

    /// The elements at `positions`.
    pub fn range(&self, positions: Range<usize>) -> impl ExactSizeIterator<Item = &[u8]> {
        self.items.range(positions).map(|element| &**element)
    }

    /// Bytes of the heap that the list takes: elements and ring.
    pub fn heap_bytes(&self) -> usize {
        self.bytes + self.items.capacity() * size_of::<Box<[u8]>>()
    }
}

fn element_bytes(element: &[u8]) -> usize {
    block_bytes(element.as_ptr(), element.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(n: usize) -> List {
        let mut list = List::new();
        for i in 0..n {
            list.push(End::Right, i.to_string().as_bytes());
        }
        list
    }

    #[test]
    fn positions_clip_to_the_list() {
        let list = list(3);
        assert_eq!(list.positions(0, -1), 0..3);
        assert_eq!(list.positions(-2, -1), 1..3);
        assert_eq!(list.positions(-100, 1), 0..2);
        assert_eq!(list.positions(1, 100), 1..3);
        assert_eq!(list.positions(3, 5), 0..0);
        assert_eq!(list.positions(2, 1), 0..0);
        assert_eq!(list.positions(0, -4), 0..0);
        assert_eq!(list.positions(i64::MIN, i64::MAX), 0..3);
        assert_eq!(List::new().positions(0, -1), 0..0);
    }

    #[test]
    fn an_emptied_list_gives_its_memory_back() {
        let mut list = list(100_000);
        let full = list.heap_bytes();
        while list.len() > 10 {
            list.pop(End::Left).unwrap();
        }
        assert!(list.heap_bytes() < full / 100, "{} of {full}", list.heap_bytes());
        assert_eq!(list.get(0), Some(b"99990".as_slice()));
        assert_eq!(list.get(-1), Some(b"99999".as_slice()));
        assert_eq!(list.get(10), None);
        assert_eq!(list.get(-11), None);
        assert_eq!(list.get(i64::MIN), None);
    }

    proptest! {
        #[test]
        fn bytes_are_the_sum_of_the_elements(steps in prop::collection::vec((any::<bool>(), any::<bool>(), 0usize..200), 0..200)) {
            let mut list = List::new();
            for (push, left, size) in steps {
                let end = if left { End::Left } else { End::Right };
                if push { list.push(end, &vec![b'x'; size]) } else { drop(list.pop(end)) }
                let sum: usize = list.range(0..list.len()).map(element_bytes).sum();
                prop_assert_eq!(list.bytes, sum);
            }
        }
    }
}
