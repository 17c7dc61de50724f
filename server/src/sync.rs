//! The crate's door to locks and atomics.
//!
//! Everything shared between connections goes through the types here, so that each has one written
//! meaning: [`Mutex`] guards data, [`Flag`] hands something over, [`Word`] and [`Tag`] are changed by
//! one writer at a time and looked at by anybody, [`Counter`] and [`Level`] only count and order
//! nothing.

#![allow(clippy::disallowed_types, reason = "the facade itself")]

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{MutexGuard, PoisonError, TryLockError};

/// A mutual exclusion lock that a panic does not poison.
///
/// A panic ends one connection's task. What the lock guards stays usable by the others: every
/// update of guarded data in this crate is complete between two calls that can panic.
#[derive(Debug, Default)]
pub struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Waits for the lock. Never held across an `.await`.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, if nobody has it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// A number that one writer at a time changes and that anybody looks at.
#[derive(Debug, Default)]
pub struct Word(AtomicU64);

impl Word {
    /// A word that holds `n`.
    pub const fn new(n: u64) -> Self {
        Self(AtomicU64::new(n))
    }

    /// The number now. Acquire: pairs with the release in [`set`](Self::set); who sees a number sees
    /// what was written before it, who does not yet sees the one before.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Puts `n` in its place. Release, see [`get`](Self::get). For the one writer.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Release);
    }
}

/// A [`Word`] of half the size.
#[derive(Debug, Default)]
pub struct Tag(AtomicU32);

impl Tag {
    /// As [`Word::get`].
    #[inline]
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// As [`Word::set`].
    #[inline]
    pub fn set(&self, n: u32) {
        self.0.store(n, Ordering::Release);
    }
}

/// A number that only grows, for statistics. Orders nothing: all accesses are relaxed.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter at zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `n` and returns the number from before.
    pub fn add(&self, n: u64) -> u64 {
        self.0.fetch_add(n, Ordering::Relaxed)
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Puts `n` in its place.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Raises the number to `n` if it is lower.
    pub fn raise(&self, n: u64) {
        self.0.fetch_max(n, Ordering::Relaxed);
    }
}

/// A number that goes up and down. Orders nothing: all accesses are relaxed.
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

impl Level {
    /// A level of zero.
    pub const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    /// Adds `n`, which may be negative, and returns the level from before.
    pub fn add(&self, n: i64) -> i64 {
        self.0.fetch_add(n, Ordering::Relaxed)
    }

    /// The level now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Puts the level back to zero and returns what it was.
    pub fn take(&self) -> i64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// A switch that is read more often than it is set.
#[derive(Debug, Default)]
pub struct Flag(AtomicBool);

impl Flag {
    /// A flag that is down.
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Raises the flag; true if this call raised it. Pairs with [`is_raised`](Self::is_raised): who
    /// sees the flag up also sees what was written before it went up.
    pub fn raise(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// Lowers the flag.
    pub fn lower(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// Whether the flag is up.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A value on cache lines of its own, so that neighbours do not slow each other down. 128 bytes:
/// the adjacent-line prefetcher of x86-64 works on pairs of lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Padded<T>(pub T);

impl<T> Deref for Padded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Padded<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}
