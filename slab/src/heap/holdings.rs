//! What an instance holds of its backing: how much, at most how much, and where.
//!
//! Owns the cap and a coarse map of the regions of the address space in which ranges were taken.
//! Protocol: bytes are reserved before the backing is asked and rolled back when it refuses, so that
//! the sum never exceeds the cap, however many threads ask at once; they are released after a range
//! has gone back. A heap's end looks for what it still holds in the noted regions only.

use std::ptr::NonNull;

use crate::counter::SharedCounter;
use crate::layout::ADDRESS_BITS;
use crate::port::{Backing, Remapped};
use crate::sync::{AtomicUsize, Ordering, process, weakened};

/// Bytes of a region: 16,384 entries of the segment map.
const REGION_BITS: u32 = 36;
const WORDS: usize = 1 << (ADDRESS_BITS - REGION_BITS - usize::BITS.ilog2());

/// A backing with a cap and a memory.
pub(crate) struct Holdings<B> {
    backing: B,
    cap: usize,
    held: AtomicUsize,
    peak: SharedCounter,
    refusals: SharedCounter,
    /// Where, for the end, which comes after everything else: in models, words that they do not see.
    regions: [process::AtomicUsize; WORDS],
}

impl<B: Backing> Holdings<B> {
    pub(crate) fn new(backing: B, cap: usize) -> Self {
        Self {
            backing,
            cap,
            held: AtomicUsize::new(0),
            peak: SharedCounter::new(),
            refusals: SharedCounter::new(),
            regions: [const { process::AtomicUsize::new(0) }; WORDS],
        }
    }

    /// Bytes taken and not given back.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Address ranges in which the heap may still hold something.
    pub(crate) fn regions(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let bit = |at: usize| self.regions[at / 64].load(Ordering::Relaxed) & 1 << (at % 64) != 0;
        let noted = (0..WORDS * 64).filter(move |&at| bit(at));
        noted.map(|at| at << REGION_BITS..(at + 1) << REGION_BITS)
    }

    pub(crate) fn backing(&self) -> &B {
        &self.backing
    }

    pub(crate) fn into_backing(self) -> B {
        self.backing
    }

    fn reserve(&self, bytes: usize) -> bool {
        if weakened("cap_look_then_add") {
            if self.held() + bytes > self.cap {
                return false;
            }
            self.held.fetch_add(bytes, Ordering::Relaxed);
            return true;
        }
        // Relaxed: the sum stands for itself; each exchange works on the latest one.
        let reserved = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            held.checked_add(bytes).filter(|&sum| sum <= self.cap)
        });
        match reserved {
            Ok(before) => self.peak.raise_to((before + bytes) as u64),
            Err(_) => self.refusals.add(1),
        }
        reserved.is_ok()
    }

    fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn note(&self, start: usize, bytes: usize) {
        for region in start >> REGION_BITS..=(start + bytes - 1) >> REGION_BITS {
            // Addresses beyond the segment map go back at once: see its `covers`.
            if let Some(word) = self.regions.get(region / 64) {
                // Relaxed: read by the heap's end, which happens after all that was done to it.
                word.fetch_or(1 << (region % 64), Ordering::Relaxed);
            }
        }
    }
}

/// The figures of the holdings, whatever the backing.
pub(crate) trait Figures: Sync {
    /// Bytes that may be taken; `usize::MAX` where nothing was said.
    fn cap(&self) -> usize;
    /// Bytes taken and not given back.
    fn held(&self) -> usize;
    /// Largest sum of bytes taken.
    fn peak(&self) -> u64;
    /// Requests that the cap refused.
    fn refusals(&self) -> u64;
}

impl<B: Backing> Figures for Holdings<B> {
    fn cap(&self) -> usize {
        self.cap
    }

    fn held(&self) -> usize {
        self.held()
    }

    fn peak(&self) -> u64 {
        self.peak.get()
    }

    fn refusals(&self) -> u64 {
        self.refusals.get()
    }
}

// SAFETY: the inner backing's promises, passed on; the sums are kept without panic or lock.
unsafe impl<B: Backing> Backing for Holdings<B> {
    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        if !self.reserve(bytes) {
            return None;
        }
        let start = self.backing.map(bytes, align);
        match start {
            Some(start) => self.note(start.addr().get(), bytes),
            None if weakened("cap_no_rollback") => {}
            None => self.release(bytes),
        }
        start
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
        let early = weakened("cap_release_first");
        if early {
            self.release(bytes);
        }
        // SAFETY: the caller's contract.
        unsafe { self.backing.unmap(start, bytes) };
        if !early {
            self.release(bytes);
        }
    }

    unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's contract.
        unsafe { self.backing.purge(start, bytes) }
    }

    unsafe fn remap(&self, from: NonNull<u8>, old: usize, to: NonNull<u8>, new: usize) -> Remapped {
        // SAFETY: the caller's contract.
        let outcome = unsafe { self.backing.remap(from, old, to, new) };
        match outcome {
            Remapped::Moved => self.release(old),
            Remapped::Unsupported => {}
            // Whether it went back is not known; the heap will not give it back again.
            Remapped::Failed => self.release(new),
        }
        outcome
    }

    unsafe fn advise_huge(&self, start: NonNull<u8>, bytes: usize, huge: bool) {
        // SAFETY: the caller's contract.
        unsafe { self.backing.advise_huge(start, bytes, huge) }
    }

    unsafe fn guard(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's contract.
        unsafe { self.backing.guard(start, bytes) }
    }

    unsafe fn unguard(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's contract.
        unsafe { self.backing.unguard(start, bytes) }
    }

    fn before_fork(&self) {
        self.backing.before_fork();
    }

    unsafe fn after_fork(&self) {
        // SAFETY: the caller's contract.
        unsafe { self.backing.after_fork() }
    }

    fn joins(&self) -> bool {
        self.backing.joins()
    }

    fn can_split(&self) -> bool {
        self.backing.can_split()
    }
}

#[cfg(all(test, not(flagstone_loom)))]
mod tests {
    use super::*;
    use crate::port::OsPages;

    #[test]
    fn the_regions_hold_what_was_taken() {
        let holdings = Holdings::new(OsPages, usize::MAX);
        let page = crate::os::page_size();
        let start = holdings.map(page, page).expect("a page");
        let holds = |at: usize| holdings.regions().any(|region| region.contains(&at));
        assert!(holds(start.addr().get()) && holds(start.addr().get() + page - 1));
        assert_eq!(holdings.regions().count(), 1);
        assert_eq!(holdings.held(), page);
        // SAFETY: mapped above.
        unsafe { holdings.unmap(start, page) };
        assert_eq!(holdings.held(), 0);
    }
}
