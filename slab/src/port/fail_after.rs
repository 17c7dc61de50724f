//! Fault injection: every request from the N-th on is refused, or the N-th alone (requirement G7).
//!
//! Owns a count. Wraps any port: a backing, whose requests are ranges, or a port for blocks. It keeps
//! refusing until told otherwise, because a program that survives one failure and then gets memory
//! again has not been tested. The other half is [`FailAfter::fail_once`]: what a single refusal left
//! half done is found by what comes after it.

use std::alloc::Layout;
use std::error::Error;
use std::fmt;
use std::num::ParseIntError;
use std::ptr::NonNull;

use super::{AllocError, Backing, BlockPort, Remapped};
use crate::sync::{AtomicUsize, Ordering, const_off_loom};

/// A port whose requests fail from a given one on.
///
/// ```
/// use flagstone_slab::port::{BlockPort, FailAfter, System};
/// use std::alloc::Layout;
///
/// let port = FailAfter::new(System::SYSTEM, 2);
/// let layout = Layout::new::<u64>();
/// let block = port.try_alloc(layout).expect("the first request is served");
/// assert!(port.try_alloc(layout).is_err() && port.try_alloc(layout).is_err());
/// port.fail_never();
/// // SAFETY: allocated above.
/// unsafe { port.dealloc(block, layout) };
/// assert_eq!((port.requests(), port.refused()), (3, 2));
/// ```
#[derive(Debug)]
pub struct FailAfter<P> {
    inner: P,
    requests: AtomicUsize,
    refused: AtomicUsize,
    /// Number of the first request that fails; `usize::MAX` for none.
    first: AtomicUsize,
    /// Number of the last one.
    last: AtomicUsize,
}

/// The environment variable's text is no number.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailAfterEnvError {
    /// What the variable holds.
    pub text: String,
    /// What is wrong with it.
    pub error: ParseIntError,
}

impl<P> FailAfter<P> {
    /// The environment variable that [`from_env`](Self::from_env) reads.
    pub const VARIABLE: &'static str = "FLAGSTONE_FAIL_AFTER";

    const_off_loom! {
        /// Refuses requests from the `first` on, counted from 1.
        pub fn new(inner: P, first: usize) -> Self {
            Self {
                inner,
                requests: AtomicUsize::new(0),
                refused: AtomicUsize::new(0),
                first: AtomicUsize::new(first),
                last: AtomicUsize::new(usize::MAX),
            }
        }
    }

    /// The same with the number from the environment variable `FLAGSTONE_FAIL_AFTER`; refuses
    /// nothing if that is not set.
    ///
    /// # Errors
    /// The variable holds no number.
    pub fn from_env(inner: P) -> Result<Self, FailAfterEnvError> {
        let Some(text) = std::env::var_os(Self::VARIABLE) else {
            return Ok(Self::new(inner, usize::MAX));
        };
        let text = text.to_string_lossy().into_owned();
        match text.trim().parse() {
            Ok(first) => Ok(Self::new(inner, first)),
            Err(error) => Err(FailAfterEnvError { text, error }),
        }
    }

    /// From now on refuses every request from the `count`-th after this call on, counted from 1.
    pub fn fail_after(&self, count: usize) {
        self.refuse_between(count, usize::MAX);
    }

    /// From now on refuses the `count`-th request after this call, counted from 1, and no other.
    pub fn fail_once(&self, count: usize) {
        self.refuse_between(count, count);
    }

    /// Requests that other threads make meanwhile may still find the bounds before.
    fn refuse_between(&self, first: usize, last: usize) {
        let so_far = self.requests.load(Ordering::Relaxed);
        // Nothing is refused while the bounds change.
        self.first.store(usize::MAX, Ordering::Relaxed);
        self.last.store(so_far.saturating_add(last), Ordering::Relaxed);
        self.first.store(so_far.saturating_add(first), Ordering::Relaxed);
    }

    /// From now on refuses nothing.
    pub fn fail_never(&self) {
        self.first.store(usize::MAX, Ordering::Relaxed);
    }

    /// Requests so far, refused ones included.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Requests refused so far.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// The port behind this.
    pub fn inner(&self) -> &P {
        &self.inner
    }

    /// Counts a request; its number if it is to be refused.
    fn refuse(&self) -> Option<usize> {
        // Relaxed: each request gets its number, which is all that is promised.
        let request = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let (first, last) = (self.first.load(Ordering::Relaxed), self.last.load(Ordering::Relaxed));
        if !(first..=last).contains(&request) {
            return None;
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Some(request)
    }

    fn injected(&self, layout: Layout) -> Result<(), AllocError> {
        match self.refuse() {
            None => Ok(()),
            Some(request) => Err(AllocError::Injected { layout, request: request as u64 }),
        }
    }
}

// SAFETY: what the inner backing hands out is handed out; a refusal changes nothing.
unsafe impl<P: Backing> Backing for FailAfter<P> {
    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        if self.refuse().is_some() {
            return None;
        }
        self.inner.map(bytes, align)
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller's contract.
        unsafe { self.inner.unmap(start, bytes) }
    }

    unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's contract.
        unsafe { self.inner.purge(start, bytes) }
    }

    unsafe fn remap(&self, from: NonNull<u8>, old: usize, to: NonNull<u8>, new: usize) -> Remapped {
        // Not a request: both ranges are there already.
        // SAFETY: the caller's contract.
        unsafe { self.inner.remap(from, old, to, new) }
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

// SAFETY: as above; a resize that is refused leaves the block to the caller.
unsafe impl<P: BlockPort> BlockPort for FailAfter<P> {
    fn try_alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.injected(layout)?;
        self.inner.try_alloc(layout)
    }

    fn try_alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.injected(layout)?;
        self.inner.try_alloc_zeroed(layout)
    }

    unsafe fn dealloc(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { self.inner.dealloc(block, layout) }
    }

    unsafe fn try_realloc(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocError> {
        self.injected(new)?;
        // SAFETY: the caller's contract.
        unsafe { self.inner.try_realloc(block, old, new) }
    }
}

impl fmt::Display for FailAfterEnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FLAGSTONE_FAIL_AFTER={}: {}", self.text, self.error)
    }
}

impl Error for FailAfterEnvError {}
