//! The write side of a connection: replies and pushes waiting for the socket.
//!
//! Small pieces are copied into one growing tail, so that a pipeline of replies leaves in one write.
//! Large values are queued as shared [`Bytes`] and never copied. The queue has a byte limit: past it
//! it takes nothing more and says so, and the connection is closed instead of growing.
//!
//! Where there is no memory to queue something, the queue is *starved*: it takes nothing more until it
//! is set back to a [`Mark`], which takes the beginning of the reply out again. So a reply is there as a
//! whole or an error is in its place.

use std::collections::{TryReserveError, VecDeque};
use std::io::IoSlice;

use bytes::Bytes;

/// From this size on a shared value is queued as it is instead of being copied.
pub const SHARE_FROM: usize = 16 * 1024;

/// Tails above this size are not kept for reuse.
const TAIL_KEPT: usize = 64 * 1024;

/// Bytes on their way to one client.
#[derive(Debug)]
pub struct Output {
    /// Finished chunks, in order, before the tail.
    sealed: VecDeque<Bytes>,
    tail: Vec<u8>,
    /// Bytes of the first chunk that are written.
    written: usize,
    /// Bytes not yet written.
    len: usize,
    limit: usize,
    overflowed: bool,
    starved: bool,
    muted: bool,
}

/// How much was queued at a moment, to be set back to.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// Finished chunks, and bytes behind them in the tail.
    sealed: usize,
    tail: usize,
    len: usize,
}

impl Output {
    /// An empty queue for at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            sealed: VecDeque::new(),
            tail: Vec::new(),
            written: 0,
            len: 0,
            limit,
            overflowed: false,
            starved: false,
            muted: false,
        }
    }

    /// Appends a copy of `bytes`.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        if self.admits(bytes.len()) && self.has_room(bytes.len()) {
            self.tail.extend_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    /// Sees to room in the tail, so that as many bytes can be put whatever becomes of memory.
    ///
    /// # Errors
    /// There is no memory for it.
    #[inline]
    pub fn reserve(&mut self, bytes: usize) -> Result<(), TryReserveError> {
        match self.tail.try_reserve(bytes) {
            Ok(()) => Ok(()),
            Err(refused) => self.reserve_apart(bytes, refused),
        }
    }

    /// The tail cannot grow where it is: it becomes a chunk, and the next tail is only as large as needed.
    #[cold]
    fn reserve_apart(
        &mut self,
        bytes: usize,
        refused: TryReserveError,
    ) -> Result<(), TryReserveError> {
        if self.tail.is_empty() || self.sealed.try_reserve(1).is_err() {
            return Err(refused);
        }
        let mut next = Vec::new();
        next.try_reserve_exact(bytes)?;
        self.seal();
        self.tail = next;
        Ok(())
    }

    /// Appends a shared value; copies it if it is small, and if there is memory for a copy.
    pub fn put_shared(&mut self, bytes: Bytes) {
        if bytes.len() < SHARE_FROM && self.tail.try_reserve(bytes.len()).is_ok() {
            return self.put(&bytes);
        }
        // Two chunks at most.
        if self.admits(bytes.len()) && self.sealed.try_reserve(2).is_ok() {
            self.seal();
            self.len += bytes.len();
            self.sealed.push_back(bytes);
        } else if !self.muted && !self.overflowed {
            self.starved = true;
        }
    }

    /// What is queued now.
    pub fn mark(&self) -> Mark {
        Mark { sealed: self.sealed.len(), tail: self.tail.len(), len: self.len }
    }

    /// Takes out what was put since `mark`, of which nothing was written, and takes more again.
    pub fn set_back(&mut self, mark: Mark) {
        self.starved = false;
        if self.sealed.len() == mark.sealed {
            self.tail.truncate(mark.tail);
        } else {
            // The first chunk since then began as the tail.
            self.tail.clear();
            self.sealed.truncate(mark.sealed + 1);
            if let Some(chunk) = self.sealed.back_mut() {
                chunk.truncate(mark.tail);
            }
            if mark.tail == 0 {
                self.sealed.pop_back();
            }
        }
        self.len = mark.len;
    }

    /// Bytes not yet written.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether everything is written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether something did not fit. What is queued is then cut off in the middle of a reply.
    pub fn has_overflowed(&self) -> bool {
        self.overflowed
    }

    /// Whether something could not be queued for want of memory. What is queued is then cut off in the
    /// middle of a reply, unless it is [set back](Self::set_back).
    pub fn is_starved(&self) -> bool {
        self.starved
    }

    /// Drops what is put from now on (`CLIENT REPLY OFF`) or takes it again.
    pub fn set_muted(&mut self, muted: bool) {
        self.muted = muted;
    }

    /// Changes the limit for what is put from now on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Fills `slices` with the front of the queue and returns how many were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let chunks = self.sealed.iter().map(|chunk| &chunk[..]).chain([self.tail.as_slice()]);
        let mut skip = self.written;
        let mut filled = 0;
        for chunk in chunks {
            let chunk = &chunk[std::mem::take(&mut skip)..];
            if chunk.is_empty() {
                continue;
            }
            let Some(slot) = slices.get_mut(filled) else { break };
            *slot = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    /// Takes `n` written bytes off the front.
    ///
    /// # Panics
    /// If there are not that many.
    pub fn advance(&mut self, mut n: usize) {
        self.len = self.len.checked_sub(n).expect("no more is written than was queued");
        while let Some(first) = self.sealed.front() {
            let left = first.len() - self.written;
            if n < left {
                self.written += n;
                return;
            }
            n -= left;
            self.written = 0;
            self.sealed.pop_front();
        }
        self.written += n;
        if self.written == self.tail.len() {
            self.written = 0;
            self.tail.clear();
            if self.tail.capacity() > TAIL_KEPT {
                self.tail = Vec::new();
            }
        }
    }

    /// Gives back memory that is not needed while nothing is sent. Called before waiting.
    pub fn rest(&mut self) {
        if self.is_empty() {
            self.tail = Vec::new();
            self.sealed = VecDeque::new();
        }
    }

    /// Bytes that the queue holds of the heap, shared values counted whole.
    pub fn held(&self) -> usize {
        self.sealed.iter().map(Bytes::len).sum::<usize>() + self.tail.capacity()
    }

    #[inline]
    fn admits(&mut self, bytes: usize) -> bool {
        if self.muted || self.starved {
            return false;
        }
        if self.len + bytes > self.limit || self.overflowed {
            self.overflowed = true;
            return false;
        }
        true
    }

    #[inline]
    fn has_room(&mut self, bytes: usize) -> bool {
        self.starved = self.reserve(bytes).is_err();
        !self.starved
    }

    /// Makes the tail a finished chunk. If it was the first chunk, `written` goes on counting in it.
    fn seal(&mut self) {
        if self.tail.len() > if self.sealed.is_empty() { self.written } else { 0 } {
            self.sealed.push_back(Bytes::from(std::mem::take(&mut self.tail)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contents(output: &Output) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = output.slices(&mut slices);
        slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn order_is_kept_across_copies_and_shared_values() {
        let mut output = Output::new(usize::MAX);
        let large = Bytes::from(vec![b'x'; SHARE_FROM]);
        output.put(b"ab");
        output.advance(1);
        output.put_shared(large.clone());
        output.put(b"c");
        output.put_shared(Bytes::from_static(b"d"));
        let mut expected = b"b".to_vec();
        expected.extend_from_slice(&large);
        expected.extend_from_slice(b"cd");
        assert_eq!(contents(&output), expected);
        assert_eq!(output.len(), expected.len());
        output.advance(expected.len());
        assert!(output.is_empty());
        output.rest();
        assert_eq!(output.held(), 0);
    }

    #[test]
    fn past_the_limit_nothing_more_is_taken() {
        let mut output = Output::new(4);
        output.put(b"abc");
        assert!(!output.has_overflowed());
        output.put(b"de");
        assert!(output.has_overflowed());
        output.put(b"f");
        assert_eq!(contents(&output), b"abc");
    }

    #[test]
    fn what_was_put_since_a_mark_is_taken_out() {
        let large = Bytes::from(vec![b'x'; SHARE_FROM]);
        for before in [b"".as_slice(), b"abc"] {
            for (small, shared) in [(0, 0), (1, 0), (0, 1), (2, 1), (1, 2)] {
                let mut output = Output::new(usize::MAX);
                output.put_shared(large.clone());
                output.put(before);
                let mark = output.mark();
                (0..small).for_each(|_| output.put(b"reply"));
                (0..shared).for_each(|_| output.put_shared(large.clone()));
                output.put(b"end");
                output.set_back(mark);
                output.put(b"d");
                assert_eq!(contents(&output), [&large, before, b"d".as_slice()].concat());
                assert_eq!(output.len(), SHARE_FROM + before.len() + 1);
                output.advance(output.len());
                output.rest();
                assert_eq!(output.held(), 0);
            }
        }
    }

    #[test]
    fn without_memory_nothing_is_taken_until_it_is_set_back() {
        let mut output = Output::new(usize::MAX);
        output.put(b"ab");
        let mark = output.mark();
        output.starved = true;
        output.put(b"c");
        output.put_shared(Bytes::from(vec![b'x'; SHARE_FROM]));
        assert!(output.is_starved() && output.reserve(usize::MAX).is_err());
        output.set_back(mark);
        assert!(!output.is_starved());
        output.put(b"d");
        assert_eq!(contents(&output), b"abd");
    }

    #[test]
    fn muted_output_is_dropped_without_overflow() {
        let mut output = Output::new(2);
        output.set_muted(true);
        output.put(b"abc");
        output.set_muted(false);
        output.put(b"d");
        assert_eq!(contents(&output), b"d");
        assert!(!output.has_overflowed());
    }

    proptest! {
        #[test]
        fn a_queue_of_bytes(steps in prop::collection::vec((0usize..40_000, any::<bool>(), 0usize..50_000), 0..30)) {
            let mut output = Output::new(usize::MAX);
            let mut model: VecDeque<u8> = VecDeque::new();
            for (i, (size, shared, take)) in steps.into_iter().enumerate() {
                let piece = vec![i as u8; size];
                model.extend(&piece);
                if shared { output.put_shared(piece.into()) } else { output.put(&piece) }
                let take = take.min(output.len());
                output.advance(take);
                model.drain(..take);
                prop_assert_eq!(output.len(), model.len());
                prop_assert_eq!(contents(&output), model.iter().copied().collect::<Vec<_>>());
            }
        }
    }
}
