//! What the slab refuses, and how it gives the value back.

use std::fmt;

/// The system gave no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no memory for the slab to grow")
    }
}

impl std::error::Error for OutOfMemory {}

/// Why there is no slot for another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoSlot {
    /// Every slot that the slab may have is taken: by a value, by one whose grace period is not over,
    /// or by a thread that keeps a few at hand.
    #[non_exhaustive]
    Full {
        /// The most slots that the slab may have.
        limit: usize,
    },
    /// The system gave no memory.
    OutOfMemory,
}

impl fmt::Display for NoSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { limit } => write!(f, "all {limit} slots of the slab are taken"),
            Self::OutOfMemory => OutOfMemory.fmt(f),
        }
    }
}

impl std::error::Error for NoSlot {}

impl From<OutOfMemory> for NoSlot {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// A value that was not inserted. It holds the value.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct InsertError<T> {
    /// What was to be inserted.
    pub rejected: T,
    /// Why not.
    pub reason: NoSlot,
}

impl<T> InsertError<T> {
    /// Gives the value back.
    pub fn into_inner(self) -> T {
        self.rejected
    }
}

impl<T> fmt::Debug for InsertError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InsertError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for InsertError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<T> std::error::Error for InsertError<T> {}
