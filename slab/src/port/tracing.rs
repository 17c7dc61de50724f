//! Tracing: what a port has handed out and not got back, and where it was asked for (requirement G8).
//!
//! Owns a ledger of live ranges by address, under a lock, in memory of the program's own allocator:
//! this is for tests, not for production. It wraps any port: a backing, whose ranges may go back in
//! parts, or a port for blocks. "Where" is the caller of the port's method, as `#[track_caller]` tells
//! it; through collections that is a line of the collection, so backtraces can be asked for.

use std::alloc::Layout;
use std::backtrace::Backtrace;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::{Arc, PoisonError};

use super::{AllocError, Backing, BlockPort, Remapped};
use crate::sync::{Mutex, MutexGuard, const_off_loom};

/// A port that knows what is out.
///
/// ```
/// use flagstone_slab::port::{BlockPort, System, Tracing};
/// use std::alloc::Layout;
///
/// let port = Tracing::new(System::SYSTEM);
/// let layout = Layout::new::<u64>();
/// let block = port.try_alloc(layout)?;
/// assert_eq!(port.bytes_outstanding(), 8);
/// assert_eq!(port.leaks()[0].site.line(), line!() - 2, "where it was asked for");
/// // SAFETY: allocated above.
/// unsafe { port.dealloc(block, layout) };
/// port.assert_nothing_outstanding();
/// # Ok::<(), flagstone_slab::port::AllocError>(())
/// ```
#[derive(Debug)]
pub struct Tracing<P> {
    inner: P,
    backtraces: bool,
    ledger: Mutex<Ledger>,
}

/// Something that is out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Leak {
    /// Its address.
    pub address: usize,
    /// Its bytes, as asked for.
    pub bytes: usize,
    /// Its alignment.
    pub align: usize,
    /// The number of the request, from 1. Deterministic programs leak the same number again.
    pub request: u64,
    /// Who asked.
    pub site: &'static Location<'static>,
    backtrace: Option<Arc<Backtrace>>,
}

#[derive(Debug, Default)]
struct Ledger {
    live: BTreeMap<usize, Leak>,
    outstanding: usize,
    peak: usize,
    requests: u64,
    failures: u64,
}

impl<P> Tracing<P> {
    const_off_loom! {
        /// Traces what `inner` hands out.
        pub fn new(inner: P) -> Self {
            let ledger =
                Ledger { live: BTreeMap::new(), outstanding: 0, peak: 0, requests: 0, failures: 0 };
            Self { inner, backtraces: false, ledger: Mutex::new(ledger) }
        }
    }

    /// Takes a backtrace at each request: slow, and tells who asks through a collection.
    #[must_use]
    pub fn with_backtraces(mut self) -> Self {
        self.backtraces = true;
        self
    }

    /// Bytes handed out and not given back.
    pub fn bytes_outstanding(&self) -> usize {
        self.lock().outstanding
    }

    /// Largest sum of bytes out at a time.
    pub fn peak_bytes(&self) -> usize {
        self.lock().peak
    }

    /// Requests so far, failed ones included.
    pub fn requests(&self) -> u64 {
        self.lock().requests
    }

    /// Requests that the inner port refused.
    pub fn failures(&self) -> u64 {
        self.lock().failures
    }

    /// What is out, oldest first.
    pub fn leaks(&self) -> Vec<Leak> {
        let mut leaks: Vec<Leak> = self.lock().live.values().cloned().collect();
        leaks.sort_by_key(|leak| leak.request);
        leaks
    }

    /// For the end of a test.
    ///
    /// # Panics
    /// If something is out; the message lists it.
    #[track_caller]
    pub fn assert_nothing_outstanding(&self) {
        let leaks = self.leaks();
        if leaks.is_empty() {
            return;
        }
        let lines: String = leaks.iter().map(|leak| format!("\n  {leak}")).collect();
        panic!("{} bytes outstanding in {} pieces:{lines}", self.bytes_outstanding(), leaks.len());
    }

    /// The port behind this.
    pub fn inner(&self) -> &P {
        &self.inner
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[track_caller]
    fn came(&self, start: Option<NonNull<u8>>, bytes: usize, align: usize) {
        let backtrace = match start {
            Some(_) if self.backtraces => Some(Arc::new(Backtrace::force_capture())),
            _ => None,
        };
        let site = Location::caller();
        let mut ledger = self.lock();
        ledger.requests += 1;
        let Some(start) = start else {
            ledger.failures += 1;
            return;
        };
        if bytes == 0 {
            return;
        }
        let (address, request) = (start.addr().get(), ledger.requests);
        ledger.live.insert(address, Leak { address, bytes, align, request, site, backtrace });
        ledger.outstanding += bytes;
        ledger.peak = ledger.peak.max(ledger.outstanding);
    }

    /// Takes a range off the ledger: a whole one, a part, or several that touch. What of it was not
    /// on the ledger is left out. Returns what was on it.
    fn went(&self, start: usize, bytes: usize) -> Vec<Leak> {
        let mut off = Vec::new();
        let mut ledger = self.lock();
        let end = start + bytes;
        while let Some((_, last)) = ledger.live.range(..end).next_back()
            && last.address + last.bytes > start
        {
            let address = last.address;
            let Some(whole) = ledger.live.remove(&address) else { return off };
            let whole_end = address + whole.bytes;
            let gone = whole_end.min(end) - address.max(start);
            ledger.outstanding -= gone;
            off.push(Leak { address: address.max(start), bytes: gone, ..whole.clone() });
            if end < whole_end {
                let above = Leak { address: end, bytes: whole_end - end, ..whole.clone() };
                ledger.live.insert(end, above);
            }
            if address < start {
                let below = Leak { bytes: start - address, ..whole };
                ledger.live.insert(address, below);
            }
        }
        off
    }

    /// What was taken off the ledger is out after all.
    fn stayed(&self, off: Vec<Leak>) {
        let mut ledger = self.lock();
        for leak in off {
            ledger.outstanding += leak.bytes;
            ledger.live.insert(leak.address, leak);
        }
    }

    #[track_caller]
    fn block_went(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() == 0 {
            return;
        }
        let whole = self.lock().live.get(&block.addr().get()).map(|leak| leak.bytes);
        assert_eq!(
            whole,
            Some(layout.size()),
            "{block:p} was not handed out so, or came back twice"
        );
        self.went(block.addr().get(), layout.size());
    }
}

// SAFETY: the inner backing's ranges. The ledger's memory is the program's allocator's: a heap on
// this backing must not be that (see the contract).
unsafe impl<P: Backing> Backing for Tracing<P> {
    #[track_caller]
    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let start = self.inner.map(bytes, align);
        self.came(start, bytes, align);
        start
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
        self.went(start.addr().get(), bytes);
        // SAFETY: the caller's contract.
        unsafe { self.inner.unmap(start, bytes) }
    }

    unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's contract.
        unsafe { self.inner.purge(start, bytes) }
    }

    unsafe fn remap(&self, from: NonNull<u8>, old: usize, to: NonNull<u8>, new: usize) -> Remapped {
        // Off the ledger first: either place may be another's before the call has come back.
        let (old_place, new_place) =
            (self.went(from.addr().get(), old), self.went(to.addr().get(), new));
        // SAFETY: the caller's contract.
        let outcome = unsafe { self.inner.remap(from, old, to, new) };
        if outcome != Remapped::Moved {
            self.stayed(old_place);
        }
        if outcome != Remapped::Failed {
            self.stayed(new_place);
        }
        outcome
    }

    unsafe fn advise_huge(&self, start: NonNull<u8>, bytes: usize, huge: bool) {
        // SAFETY: the caller's contract.
        unsafe { self.inner.advise_huge(start, bytes, huge) }
    }

    unsafe fn guard(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's contract.
        unsafe { self.inner.guard(start, bytes) }
    }

    unsafe fn unguard(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's contract.
        unsafe { self.inner.unguard(start, bytes) }
    }

    fn before_fork(&self) {
        self.inner.before_fork();
    }

    unsafe fn after_fork(&self) {
        // SAFETY: the caller's contract.
        unsafe { self.inner.after_fork() }
    }

    fn joins(&self) -> bool {
        self.inner.joins()
    }

    fn can_split(&self) -> bool {
        self.inner.can_split()
    }
}

// SAFETY: the inner port's blocks.
unsafe impl<P: BlockPort> BlockPort for Tracing<P> {
    #[track_caller]
    fn try_alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let block = self.inner.try_alloc(layout);
        self.came(block.ok(), layout.size(), layout.align());
        block
    }

    #[track_caller]
    fn try_alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let block = self.inner.try_alloc_zeroed(layout);
        self.came(block.ok(), layout.size(), layout.align());
        block
    }

    #[track_caller]
    unsafe fn dealloc(&self, block: NonNull<u8>, layout: Layout) {
        self.block_went(block, layout);
        // SAFETY: the caller's contract.
        unsafe { self.inner.dealloc(block, layout) }
    }

    #[track_caller]
    unsafe fn try_realloc(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocError> {
        // Off the ledger first: the moment it is free in there, the address may be another's.
        let before = self.lock().live.get(&block.addr().get()).cloned();
        self.block_went(block, old);
        // SAFETY: the caller's contract.
        let moved = unsafe { self.inner.try_realloc(block, old, new) };
        match (&moved, before) {
            (Err(_), Some(before)) => {
                let mut ledger = self.lock();
                ledger.requests += 1;
                ledger.failures += 1;
                ledger.outstanding += before.bytes;
                ledger.live.insert(before.address, before);
            }
            _ => self.came(moved.ok(), new.size(), new.align()),
        }
        moved
    }
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, bytes, align, request, site, .. } = self;
        write!(
            f,
            "{bytes} bytes aligned to {align} at {address:#x}, request {request}, from {site}"
        )?;
        match &self.backtrace {
            Some(backtrace) => write!(f, "\n{backtrace}"),
            None => Ok(()),
        }
    }
}
