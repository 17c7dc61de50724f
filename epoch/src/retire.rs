//! Retiring: what a caller gives, what is promised, what is refused.
//!
//! Each way to retire comes twice: one that takes the object whatever is pending, and a `try_` one
//! that gives it back when the hard limit would be passed. Both reserve the object's bytes before it
//! joins the open batch (rule L1); the common case is a comparison with the batch's quota.

use std::alloc::handle_alloc_error;
use std::fmt;
use std::ptr::NonNull;

use crate::batch::chunk::{Chunk, Entry, ReclaimUnlinked};
use crate::batch::node::{Linked, Reclaim, RetireNode};
use crate::batch::open::Room;
use crate::domain::{Config, Core};
use crate::memory::OutOfMemory;
use crate::participant::Participant;
use crate::sync::Ordering;

/// An object that was not retired. It holds the object; nothing has happened to it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetireError<T> {
    /// What was to be retired.
    pub rejected: T,
    /// Why it was not.
    pub refusal: RetireRefusal,
    /// Bytes that it counts for.
    pub bytes: u64,
    /// Bytes reserved when it was refused.
    pub reserved: u64,
    /// The limit in bytes.
    pub limit: u64,
}

/// Why an object is not retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetireRefusal {
    /// The hard limit would be passed, and collecting did not help.
    Limit,
    /// There is no memory for a link, or for handing over what was retired before.
    OutOfMemory,
}

impl<T> RetireError<T> {
    pub(crate) fn new(
        rejected: T,
        refusal: RetireRefusal,
        bytes: u64,
        reserved: u64,
        core: &Core,
    ) -> Self {
        Self { rejected, refusal, bytes, reserved, limit: core.ledger.limit() }
    }

    /// Gives the object back.
    pub fn into_inner(self) -> T {
        self.rejected
    }

    pub(crate) fn map<U>(self, f: impl FnOnce(T) -> U) -> RetireError<U> {
        let Self { rejected, refusal, bytes, reserved, limit } = self;
        RetireError { rejected: f(rejected), refusal, bytes, reserved, limit }
    }
}

impl<T> fmt::Debug for RetireError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetireError")
            .field("refusal", &self.refusal)
            .field("bytes", &self.bytes)
            .field("reserved", &self.reserved)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Display for RetireError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, reserved, limit, .. } = self;
        write!(f, "cannot retire {bytes} bytes: ")?;
        match self.refusal {
            RetireRefusal::Limit => write!(f, "{reserved} of {limit} bytes wait for readers"),
            RetireRefusal::OutOfMemory => f.write_str("out of memory"),
        }
    }
}

impl<T> std::error::Error for RetireError<T> {}

impl Participant {
    /// Retires an object through the node inside it, whatever is pending. Allocates nothing by itself;
    /// one batch in its turn costs the collector about 2 KiB.
    ///
    /// `bytes` is what the object counts for in statistics and limits. `reclaim` runs once, some time
    /// after every guard held now is gone, in no particular order with others.
    ///
    /// # Safety
    /// - `node` is valid, in an object that stays in place until `reclaim` has run, and in no batch.
    /// - No reader that takes its guard from now on can find the object, and those who found it hold a
    ///   guard of this domain. Nobody but us touches the node; the rest of the object may be read.
    /// - `reclaim` may be called with `node` on any thread, at any later time, the drop of the domain
    ///   included.
    #[inline]
    pub unsafe fn retire(&self, node: NonNull<RetireNode>, bytes: usize, reclaim: Reclaim) {
        let room = self.make_room(bytes);
        // SAFETY: the caller's promises are rules R1 to R4.
        let complete = unsafe { self.open().push(self.record(), room, node, reclaim) };
        self.joined(complete);
    }

    /// Like [`retire`](Self::retire), within the hard limit.
    ///
    /// # Errors
    /// [`RetireError`] gives the node back when the limit would be passed, after an attempt to collect.
    ///
    /// # Safety
    /// As for [`retire`](Self::retire).
    #[inline]
    pub unsafe fn try_retire(
        &self,
        node: NonNull<RetireNode>,
        bytes: usize,
        reclaim: Reclaim,
    ) -> Result<(), RetireError<NonNull<RetireNode>>> {
        let room = self.try_make_room(bytes).map_err(|full| full.map(|()| node))?;
        // SAFETY: as in `retire`.
        let complete = unsafe { self.open().push(self.record(), room, node, reclaim) };
        self.joined(complete);
        Ok(())
    }

    /// Retires a box of a [`Linked`] value, whatever is pending. Allocates nothing, as
    /// [`retire`](Self::retire).
    ///
    /// # Safety
    /// - `linked` came from [`Box::into_raw`], and is retired once.
    /// - No reader that takes its guard from now on can find it, and those who found it hold a guard of
    ///   this domain.
    #[inline]
    pub unsafe fn retire_linked<T: Send + 'static>(&self, linked: NonNull<Linked<T>>) {
        // SAFETY: the caller's promises; `T` is `Send` and `'static`, so it may drop anywhere, later.
        unsafe { self.retire(linked.cast(), size_of::<Linked<T>>(), Linked::<T>::reclaim) }
    }

    /// Like [`retire_linked`](Self::retire_linked), within the hard limit.
    ///
    /// # Errors
    /// As for [`try_retire`](Self::try_retire).
    ///
    /// # Safety
    /// As for [`retire_linked`](Self::retire_linked).
    #[inline]
    pub unsafe fn try_retire_linked<T: Send + 'static>(
        &self,
        linked: NonNull<Linked<T>>,
    ) -> Result<(), RetireError<NonNull<Linked<T>>>> {
        // SAFETY: as in `retire_linked`.
        unsafe { self.try_retire(linked.cast(), size_of::<Linked<T>>(), Linked::<T>::reclaim) }
            .map_err(|full| full.map(NonNull::cast))
    }

    /// Retires an object that has no node, because readers may look at every byte of it. The link is
    /// kept out of line, which allocates about 1 KiB for every 40 objects.
    ///
    /// # Safety
    /// - `object` stays in place until `reclaim` has run, which is called once, with it and `context`.
    /// - No reader that takes its guard from now on can find it, and those who found it hold a guard of
    ///   this domain.
    /// - `reclaim` may be called on any thread, at any later time, the drop of the domain included.
    #[inline]
    pub unsafe fn retire_unlinked(
        &self,
        object: NonNull<u8>,
        bytes: usize,
        context: usize,
        reclaim: ReclaimUnlinked,
    ) {
        let entry = Entry { object, context, reclaim };
        // SAFETY: the caller's promises.
        if unsafe { self.push_entry(entry, bytes) }.is_err() {
            // SAFETY: as above; nothing has happened.
            unsafe { self.push_entry_again(entry, bytes) };
        }
    }

    /// Whatever is pending, adds an object without a node.
    ///
    /// # Safety
    /// As for [`retire_unlinked`](Self::retire_unlinked).
    #[inline]
    unsafe fn push_entry(&self, entry: Entry, bytes: usize) -> Result<(), OutOfMemory> {
        let room = self.make_room(bytes);
        // SAFETY: the caller's promises are rules R1, R3 and R4.
        let complete = unsafe { self.open().push_entry(self.record(), room, entry, self.core()) };
        self.joined(complete?);
        Ok(())
    }

    /// The same after there was no memory: what can be reclaimed may be what is missing.
    ///
    /// # Safety
    /// As for [`retire_unlinked`](Self::retire_unlinked).
    #[cold]
    unsafe fn push_entry_again(&self, entry: Entry, bytes: usize) {
        self.collect();
        // SAFETY: the caller's promises.
        if unsafe { self.push_entry(entry, bytes) }.is_err() {
            handle_alloc_error(Chunk::LAYOUT);
        }
    }

    /// Like [`retire_unlinked`](Self::retire_unlinked), within the hard limit.
    ///
    /// # Errors
    /// As for [`try_retire`](Self::try_retire).
    ///
    /// # Safety
    /// As for [`retire_unlinked`](Self::retire_unlinked).
    #[inline]
    pub unsafe fn try_retire_unlinked(
        &self,
        object: NonNull<u8>,
        bytes: usize,
        context: usize,
        reclaim: ReclaimUnlinked,
    ) -> Result<(), RetireError<NonNull<u8>>> {
        let room = self.try_make_room(bytes).map_err(|full| full.map(|()| object))?;
        let entry = Entry { object, context, reclaim };
        // SAFETY: as in `retire_unlinked`.
        match unsafe { self.open().push_entry(self.record(), room, entry, self.core()) } {
            Ok(complete) => self.joined(complete),
            Err(OutOfMemory) => {
                if self.open().is_empty() {
                    self.core().ledger.release(self.open().ungrant(self.record()));
                    self.record().not_opened();
                }
                return Err(self.out_of_memory(bytes).map(|()| object));
            }
        }
        Ok(())
    }

    /// Retires a box, whatever is pending. For objects without a node: allocates about 1 KiB for every
    /// 40 of them.
    ///
    /// # Safety
    /// - `object` came from [`Box::into_raw`], and is retired once.
    /// - No reader that takes its guard from now on can find it, and those who found it hold a guard of
    ///   this domain.
    #[inline]
    pub unsafe fn retire_box<T: Send + 'static>(&self, object: NonNull<T>) {
        // SAFETY: the caller's promises; `T` is `Send` and `'static`, so it may drop anywhere, later.
        unsafe { self.retire_unlinked(object.cast(), size_of::<T>(), 0, drop_box::<T>) }
    }

    /// Like [`retire_box`](Self::retire_box), within the hard limit.
    ///
    /// # Errors
    /// As for [`try_retire`](Self::try_retire).
    ///
    /// # Safety
    /// As for [`retire_box`](Self::retire_box).
    #[inline]
    pub unsafe fn try_retire_box<T: Send + 'static>(
        &self,
        object: NonNull<T>,
    ) -> Result<(), RetireError<NonNull<T>>> {
        // SAFETY: as in `retire_box`.
        unsafe { self.try_retire_unlinked(object.cast(), size_of::<T>(), 0, drop_box::<T>) }
            .map_err(|full| full.map(NonNull::cast))
    }

    /// Drops `object` after a grace period, whatever is pending. Safe, for the caller owns it alone:
    /// what this defers is the work of the drop, or what the drop does to others.
    pub fn defer_drop<T: Send + 'static>(&self, object: Box<T>) {
        // SAFETY: it comes from `Box::into_raw` here, and a box has no other reader.
        unsafe { self.retire_box(NonNull::from(Box::leak(object))) };
    }

    /// Like [`defer_drop`](Self::defer_drop), within the hard limit.
    ///
    /// # Errors
    /// [`RetireError`] gives the box back.
    pub fn try_defer_drop<T: Send + 'static>(
        &self,
        object: Box<T>,
    ) -> Result<(), RetireError<Box<T>>> {
        // SAFETY: as in `defer_drop`.
        unsafe { self.try_retire_box(NonNull::from(Box::leak(object))) }.map_err(|full| {
            // SAFETY: it was leaked three lines up, and has not been retired.
            full.map(|object| unsafe { Box::from_raw(object.as_ptr()) })
        })
    }

    /// Reserves room for an object of `bytes`.
    #[inline]
    pub(crate) fn make_room(&self, bytes: usize) -> Room {
        let bytes = countable(bytes);
        match self.open().room(self.record(), bytes) {
            Some(room) => room,
            None => self.make_room_slow(bytes),
        }
    }

    #[inline]
    pub(crate) fn try_make_room(&self, bytes: usize) -> Result<Room, RetireError<()>> {
        let bytes = countable(bytes);
        match self.open().room(self.record(), bytes) {
            Some(room) => Ok(room),
            None => self.try_make_room_slow(bytes),
        }
    }

    #[cold]
    fn make_room_slow(&self, bytes: u64) -> Room {
        self.hand_over();
        self.try_grant(bytes).unwrap_or_else(|_| {
            self.core().ledger.reserve(bytes);
            self.grant(bytes, bytes)
        })
    }

    #[cold]
    fn try_make_room_slow(&self, bytes: u64) -> Result<Room, RetireError<()>> {
        self.hand_over();
        if !self.open().is_empty() && self.is_short() {
            return Err(self.out_of_memory(bytes as usize));
        }
        if let Ok(room) = self.try_grant(bytes) {
            return Ok(room);
        }
        self.collect();
        self.try_grant(bytes).map_err(|reserved| {
            let core = self.core();
            core.shared.refusals.fetch_add(1, Ordering::Relaxed);
            core.check_stalls();
            RetireError::new((), RetireRefusal::Limit, bytes, reserved, core)
        })
    }

    #[cold]
    fn out_of_memory(&self, bytes: usize) -> RetireError<()> {
        let core = self.core();
        let reserved = core.ledger.reserved();
        core.shared.refusals.fetch_add(1, Ordering::Relaxed);
        RetireError::new((), RetireRefusal::OutOfMemory, countable(bytes), reserved, core)
    }

    /// Room for an object of `bytes`: that of a whole batch is reserved with it if none is open and the
    /// limit allows.
    fn try_grant(&self, bytes: u64) -> Result<Room, u64> {
        // Reclaim functions that ran in the hand-over may have begun a batch.
        if let Some(room) = self.open().room(self.record(), bytes) {
            return Ok(room);
        }
        let ledger = &self.core().ledger;
        let whole = bytes.max(self.core().config.batch_bytes);
        if self.open().is_empty() && ledger.try_reserve(whole).is_ok() {
            return Ok(self.grant(bytes, whole));
        }
        ledger.try_reserve(bytes)?;
        Ok(self.grant(bytes, bytes))
    }

    /// Gives `granted` reserved bytes to the open batch, and takes room for an object of `bytes` out of
    /// them.
    fn grant(&self, bytes: u64, granted: u64) -> Room {
        let (open, record) = (self.open(), self.record());
        if open.is_empty() {
            record.opened(self.core().now());
        }
        open.grant(record, granted, self.core().config.batch_blocks);
        let room = open.room(record, bytes);
        // A batch that is full was handed over by the retire that filled it, or could not be, and then
        // the grant made room.
        room.unwrap_or_else(|| unreachable!("granted {granted} bytes have no room for {bytes}"))
    }

    /// An object has joined the open batch, and completed it or not.
    #[inline]
    pub(crate) fn joined(&self, complete: bool) {
        if complete || self.record().is_asked() {
            self.hand_over();
        }
    }
}

/// What an object of `bytes` counts for.
#[inline]
pub(crate) fn countable(bytes: usize) -> u64 {
    (bytes as u64).min(Config::MAX_OBJECT)
}

/// # Safety
/// `object` came from [`Box::<T>::into_raw`](Box::into_raw); called once (rules R3, R4).
unsafe fn drop_box<T>(object: NonNull<u8>, _: usize) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(object.cast::<T>().as_ptr()) });
}
