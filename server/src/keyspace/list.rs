//! Lists: a deque that one writer changes while anybody reads, without a lock between them.
//!
//! Elements lie in *chunks* of write-once places. A list is a row of pieces of chunks, and *bounds*: where
//! in the first piece and where in the last the elements begin and end. The row never changes; the bounds
//! are one word. So a reader loads one word and has the whole list as it was at that moment, for as long as
//! it holds the list: a place within the bounds was written before they said so, and is not written again.
//!
//! The writer (one at a time: who holds the lock of the key's shard) pushes into free places of an end's
//! chunk and pops by moving a bound. When the chunk has no free place (at its end, or one that a popped
//! element has used), and when a pop takes the last element out of an end's chunk, the writer makes a new
//! list of other pieces of the same chunks and publishes that. A push or pop of several elements is one
//! change in both cases.
//!
//! Popped elements stay in memory until their chunk goes: at most [`CHUNK_BYTES`], or 1/64 of the list,
//! per chunk; a chunk of which less than half is in use is copied when the end moves on to another. Each
//! element is a block of its own, often made on one thread and freed on another, so a queue between
//! clients is a stream of cross-thread frees for the allocator.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::allocator::block_bytes;
use crate::fallible::{NoMemory, try_boxed, try_collected};
use crate::sync::{Counter, Word};

/// Most places of a chunk. Chosen so that the row of a million elements has a thousand pieces, which are
/// copied every thousand pushes; not measured.
const MOST_PLACES: usize = 1024;

/// Bytes of elements from which on a chunk takes no further one, unless the list is 64 times as large.
pub const CHUNK_BYTES: usize = 4 * 1024;

/// Elements whose freeing a connection's task may be kept busy with.
const DROP_HERE: usize = 1024;

/// One end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The head: `LPUSH`, `LPOP`.
    Left,
    /// The tail: `RPUSH`, `RPOP`.
    Right,
}

/// A list of byte strings.
pub struct List {
    /// Never empty.
    pieces: Box<[Piece]>,
    /// In the first piece's chunk, the place of the first element; in the last piece's, one past the
    /// place of the last: half a word each.
    bounds: Word,
    /// Elements of the pieces between the first and the last.
    inner: usize,
    /// Blocks of all elements in the pieces' chunks, popped ones included.
    element_bytes: Counter,
    /// Bytes of the chunks' places.
    place_bytes: usize,
}

type Element = Box<[u8]>;

struct Chunk {
    places: Box<[OnceLock<Element>]>,
    /// Elements that were ever put in, and the bytes of their blocks. The writer's.
    used: Counter,
    bytes: Counter,
}

/// A part of a chunk. Where the first piece begins and the last one ends, the bounds say.
#[derive(Clone)]
struct Piece {
    chunk: Arc<Chunk>,
    from: u32,
    to: u32,
}

/// What a pop leaves.
#[must_use]
pub enum Left {
    /// The list, changed in place.
    Same,
    /// Another list, to be published in its place.
    Other(List),
    /// Nothing; the list was not touched.
    Nothing,
}

/// A list at one moment.
#[derive(Clone, Copy)]
pub struct View<'a> {
    list: &'a List,
    low: u32,
    high: u32,
}

impl List {
    /// A list of `elements`, pushed one after the other at `end`, and taken out of the slice; `None` if
    /// there are none.
    ///
    /// # Errors
    /// There is no memory for it. The elements are where they were.
    pub fn try_of(end: End, elements: &mut [Element]) -> Result<Option<Self>, NoMemory> {
        if elements.is_empty() {
            return Ok(None);
        }
        let piece = Chunk::try_filled(end, Vec::new(), elements, 4)?;
        Ok(Some(Self::from_pieces(vec![piece])))
    }

    /// The list now. One load; what it shows does not change.
    pub fn view(&self) -> View<'_> {
        let bounds = self.bounds.get();
        View { list: self, low: (bounds >> 32) as u32, high: bounds as u32 }
    }

    /// Adds elements at `end`, one after the other, and takes them out of the slice. False, and nothing
    /// changed, if they do not fit in: then it is [`try_extended`](Self::try_extended)'s. The writer's.
    #[must_use]
    pub fn push(&self, end: End, elements: &mut [Element]) -> bool {
        let view = self.view();
        let count = elements.len();
        let chunk = &view.end_piece(end).chunk;
        let bytes = elements.iter().map(|element| element_bytes(element) as u64).sum::<u64>();
        if !view.has_room(end, count) || (chunk.bytes.get() + bytes) as usize > view.most_bytes() {
            return count == 0;
        }
        for (at, element) in elements.iter_mut().enumerate() {
            chunk.put(view.next_place(end, at as u32), std::mem::take(element));
        }
        chunk.bytes.set(chunk.bytes.get() + bytes);
        self.element_bytes.set(self.element_bytes.get() + bytes);
        match end {
            End::Left => self.set_bounds(view.low - count as u32, view.high),
            End::Right => self.set_bounds(view.low, view.high + count as u32),
        }
        true
    }

    /// The list with more elements at `end`, taken out of the slice, to be published in this one's place.
    /// The writer's.
    ///
    /// # Errors
    /// There is no memory for it. The elements are where they were.
    pub fn try_extended(&self, end: End, elements: &mut [Element]) -> Result<Self, NoMemory> {
        self.view().try_extended(end, elements)
    }

    /// Takes up to `count` elements off at `end`; they are those that [`View::ends`] shows. The
    /// writer's.
    ///
    /// # Errors
    /// There is no memory for the list to be published. Nothing has changed.
    pub fn try_pop(&self, end: End, count: usize) -> Result<Left, NoMemory> {
        let view = self.view();
        let Some(rest) = view.len().checked_sub(count).filter(|rest| *rest > 0) else {
            return Ok(Left::Nothing);
        };
        // The piece at that end keeps an element: only a bound moves.
        let in_piece = view.range_of(match end {
            End::Left => 0,
            End::Right => self.pieces.len() - 1,
        });
        if count < in_piece.len() {
            match end {
                End::Left => self.set_bounds(view.low + count as u32, view.high),
                End::Right => self.set_bounds(view.low, view.high - count as u32),
            }
            return Ok(Left::Same);
        }
        let kept = match end {
            End::Left => count..view.len(),
            End::Right => 0..rest,
        };
        Ok(Left::Other(Self::from_pieces(view.try_pieces(kept, 0)?)))
    }

    /// Bytes of the heap that the list takes: elements, those included that were popped and whose chunk
    /// is still there, places and pieces.
    pub fn heap_bytes(&self) -> usize {
        self.element_bytes.get() as usize + self.place_bytes + self.own_bytes()
    }

    /// Bytes that this list does not share with the one that takes its place.
    pub fn own_bytes(&self) -> usize {
        let pieces: &[Piece] = &self.pieces;
        block_bytes(pieces, size_of_val(pieces))
    }

    fn set_bounds(&self, low: u32, high: u32) {
        self.bounds.set(u64::from(low) << 32 | u64::from(high));
    }

    fn from_pieces(pieces: Vec<Piece>) -> Self {
        let (first, last) = (&pieces[0], &pieces[pieces.len() - 1]);
        let (low, high) = (first.from, last.to);
        let between = pieces.get(1..pieces.len() - 1).unwrap_or_default();
        let list = Self {
            bounds: Word::default(),
            inner: between.iter().map(Piece::len).sum(),
            element_bytes: Counter::new(),
            place_bytes: pieces.iter().map(|piece| piece.chunk.place_bytes()).sum(),
            // As long as its room: it stays where it is.
            pieces: pieces.into_boxed_slice(),
        };
        let bytes = list.pieces.iter().map(|piece| piece.chunk.bytes.get()).sum();
        list.element_bytes.set(bytes);
        list.set_bounds(low, high);
        list
    }
}

impl<'a> View<'a> {
    /// How many elements there are.
    pub fn len(self) -> usize {
        match self.list.pieces.as_ref() {
            [_] => (self.high - self.low) as usize,
            [first, .., last] => {
                (first.to - self.low) as usize + self.list.inner + (self.high - last.from) as usize
            }
            [] => 0,
        }
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The element at `index`; negative counts from the end, -1 is the last.
    pub fn get(self, index: i64) -> Option<&'a [u8]> {
        let index = if index < 0 { index.checked_add_unsigned(self.len() as u64)? } else { index };
        let index = usize::try_from(index).ok().filter(|index| *index < self.len())?;
        self.range(index..index + 1).next()
    }

    /// The positions from `start` to `stop`, both included, negative ones counted from the end,
    /// clipped to what there is.
    pub fn positions(self, start: i64, stop: i64) -> Range<usize> {
        let len = self.len() as i64;
        let from = if start < 0 { (start.saturating_add(len)).max(0) } else { start };
        let to = if stop < 0 { stop.saturating_add(len) } else { stop.min(len - 1) };
        if from > to || from >= len { 0..0 } else { from as usize..to as usize + 1 }
    }

    /// The elements at `positions`, which are within the list.
    pub fn range(self, positions: Range<usize>) -> Elements<'a> {
        let mut skip = positions.start;
        let mut piece = 0;
        while piece + 1 < self.list.pieces.len() && skip >= self.range_of(piece).len() {
            skip -= self.range_of(piece).len();
            piece += 1;
        }
        let range = self.range_of(piece);
        let at = range.start + skip as u32..range.end;
        Elements { view: self, piece, at, left: positions.len() }
    }

    /// Up to `count` elements at `end`, in the list's order.
    pub fn ends(self, end: End, count: usize) -> Elements<'a> {
        let count = count.min(self.len());
        match end {
            End::Left => self.range(0..count),
            End::Right => self.range(self.len() - count..self.len()),
        }
    }

    /// The same, the outermost first.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn try_outermost(self, end: End, count: usize) -> Result<Vec<&'a [u8]>, NoMemory> {
        let mut elements = try_collected(self.ends(end, count))?;
        if end == End::Right {
            elements.reverse();
        }
        Ok(elements)
    }

    /// The places of a piece that hold elements.
    fn range_of(self, number: usize) -> Range<u32> {
        let piece = &self.list.pieces[number];
        let from = if number == 0 { self.low } else { piece.from };
        let to = if number + 1 == self.list.pieces.len() { self.high } else { piece.to };
        from..to
    }

    fn end_piece(self, end: End) -> &'a Piece {
        let pieces = &self.list.pieces;
        match end {
            End::Left => &pieces[0],
            End::Right => &pieces[pieces.len() - 1],
        }
    }

    /// Whether an end's chunk has so many free places.
    fn has_room(self, end: End, count: usize) -> bool {
        let chunk = &self.end_piece(end).chunk;
        // Places are used from one on outwards: if the next one is free, all behind it are.
        match end {
            End::Left => self.low as usize >= count && chunk.is_free(self.low.wrapping_sub(1)),
            End::Right => {
                self.high as usize + count <= chunk.places.len() && chunk.is_free(self.high)
            }
        }
    }

    /// Bytes of elements that a chunk may have and take another.
    fn most_bytes(self) -> usize {
        CHUNK_BYTES.max(self.list.element_bytes.get() as usize / 64)
    }

    /// The place of the element number `at` of those pushed at `end`.
    fn next_place(self, end: End, at: u32) -> u32 {
        match end {
            End::Left => self.low - 1 - at,
            End::Right => self.high + at,
        }
    }

    /// The pieces of the elements at `kept`, and room for as many `more`.
    fn try_pieces(self, kept: Range<usize>, more: usize) -> Result<Vec<Piece>, NoMemory> {
        // Counted first: the room has to be exact.
        let mut count = more;
        self.each_piece(&kept, |_, _| count += 1);
        let mut pieces = Vec::new();
        pieces.try_reserve_exact(count)?;
        self.each_piece(&kept, |number, range| {
            let chunk = Arc::clone(&self.list.pieces[number].chunk);
            pieces.push(Piece { chunk, from: range.start, to: range.end });
        });
        Ok(pieces)
    }

    /// Visits the pieces of the elements at `kept`: their numbers, and their places of these elements.
    fn each_piece(self, kept: &Range<usize>, mut visit: impl FnMut(usize, Range<u32>)) {
        let mut start = 0;
        for number in 0..self.list.pieces.len() {
            let range = self.range_of(number);
            let end = start + range.len();
            let (from, to) = (kept.start.max(start), kept.end.min(end));
            if from < to {
                let places = [from, to].map(|at| range.start + (at - start) as u32);
                visit(number, places[0]..places[1]);
            }
            start = end;
        }
    }

    /// The list with `elements` in a chunk of their own at `end`.
    fn try_extended(self, end: End, elements: &mut [Element]) -> Result<List, NoMemory> {
        let number = match end {
            End::Left => 0,
            End::Right => self.list.pieces.len() - 1,
        };
        let live = self.range_of(number).len();
        let sparse = 2 * live <= self.end_piece(end).chunk.used.get() as usize;
        let (kept, moved) = if sparse {
            // Copied in the order in which they would have been pushed.
            let mut moved = Vec::new();
            moved.try_reserve_exact(live)?;
            for element in self.ends(end, live) {
                moved.push(try_boxed(element)?);
            }
            let kept = match end {
                End::Left => {
                    moved.reverse();
                    live..self.len()
                }
                End::Right => 0..self.len() - live,
            };
            (kept, moved)
        } else {
            (0..self.len(), Vec::new())
        };
        let places = (self.len() / 2).clamp(4, MOST_PLACES);
        let mut pieces = self.try_pieces(kept, 1)?;
        let piece = Chunk::try_filled(end, moved, elements, places)?;
        match end {
            End::Left => pieces.insert(0, piece),
            End::Right => pieces.push(piece),
        }
        Ok(List::from_pieces(pieces))
    }
}

impl Chunk {
    /// A chunk of at least `places` places, and a piece of it with the `first` elements and those taken out
    /// of `then`, pushed one after the other at `end`.
    ///
    /// # Errors
    /// There is no memory for it; nothing was taken.
    fn try_filled(
        end: End,
        first: Vec<Element>,
        then: &mut [Element],
        places: usize,
    ) -> Result<Piece, NoMemory> {
        let count = first.len() + then.len();
        let places = places.max(count);
        let chunk = Self {
            places: try_collected((0..places).map(|_| OnceLock::new()))?.into_boxed_slice(),
            used: Counter::new(),
            bytes: Counter::new(),
        };
        let elements = first.into_iter().chain(then.iter_mut().map(std::mem::take));
        for (at, element) in elements.enumerate() {
            chunk.bytes.set(chunk.bytes.get() + element_bytes(&element) as u64);
            let place = match end {
                End::Left => places - 1 - at,
                End::Right => at,
            };
            chunk.put(place as u32, element);
        }
        let (from, to) = match end {
            End::Left => (places - count, places),
            End::Right => (0, count),
        };
        Ok(Piece { chunk: Arc::new(chunk), from: from as u32, to: to as u32 })
    }

    fn put(&self, place: u32, element: Element) {
        self.used.set(self.used.get() + 1);
        let put = self.places[place as usize].set(element);
        debug_assert!(put.is_ok(), "a place is written once");
    }

    fn is_free(&self, place: u32) -> bool {
        self.places.get(place as usize).is_some_and(|place| place.get().is_none())
    }

    fn place_bytes(&self) -> usize {
        let places: &[OnceLock<Element>] = &self.places;
        block_bytes(self, size_of::<Self>() + 2 * size_of::<usize>())
            + block_bytes(places, size_of_val(places))
    }
}

impl Piece {
    fn len(&self) -> usize {
        (self.to - self.from) as usize
    }
}

impl Drop for List {
    /// A list of many elements is freed aside, so that no connection waits for it.
    fn drop(&mut self) {
        let alone = self.pieces.iter().filter(|piece| Arc::strong_count(&piece.chunk) == 1);
        let cost: usize = alone.map(|piece| piece.chunk.used.get() as usize).sum();
        if cost > DROP_HERE && tokio::runtime::Handle::try_current().is_ok() {
            let pieces = std::mem::take(&mut self.pieces);
            drop(flagstone::runtime::spawn_blocking(move || drop(pieces)));
        }
    }
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List").field("len", &self.view().len()).finish_non_exhaustive()
    }
}

/// Elements of a list at one moment, in order.
pub struct Elements<'a> {
    view: View<'a>,
    piece: usize,
    at: Range<u32>,
    left: usize,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        while self.at.is_empty() {
            self.piece += 1;
            if self.piece == self.view.list.pieces.len() {
                return None;
            }
            self.at = self.view.range_of(self.piece);
        }
        let place = self.at.next()? as usize;
        let list: &'a List = self.view.list;
        // Within the bounds: written before they were.
        list.pieces[self.piece].chunk.places[place].get().map(|element| &**element)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Elements<'_> {}

fn element_bytes(element: &[u8]) -> usize {
    block_bytes(element, element.len())
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
