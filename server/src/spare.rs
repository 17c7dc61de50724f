//! Whether the system still has memory, asked before it is needed.
//!
//! Most of what a command allocates comes from collections that cannot be refused: without memory they end
//! the process. So the server sees to it that there is some: before a command that needs more, it asks the
//! heap whether the system would give it `HEADROOM` and a multiple of the request. What is in use may then
//! grow by `STEP` before it asks again. A no is an `-OOM` reply, before anything has changed; commands that
//! free go on.
//!
//! The headroom covers what is not asked for one by one: what all workers need for the commands that they
//! are at, tables that double, tasks, buffers. It is not set aside: what is between two questions may be taken
//! by another thread or, where they share a limit, by another process. A memory limit (`maxmemory`) below the
//! system's is the better way to live; this is for those who have none, or set it too high.

use flagstone::Heap;

use crate::sync::Counter;

/// Bytes that the system must be willing to give beyond the request: eight of the heap's segments.
const HEADROOM: usize = 32 << 20;

/// Growth of what is in use, after a yes, up to which nobody asks again.
const STEP: u64 = 16 << 20;

/// Requests from this size on are always asked about.
const LARGE: usize = 64 << 10;

/// Bytes that a request may take for each that it has: its copy, and what its table grows by.
const PER_REQUEST_BYTE: usize = 4;

/// What was last known.
#[derive(Debug, Default)]
pub struct Spare {
    /// Bytes in use when there was enough, plus one; zero before that.
    enough_at: Counter,
}

impl Spare {
    /// Whether there is memory for a request of so many bytes, where `in_use` bytes are in use.
    #[inline]
    pub fn admits(&self, request: usize, in_use: u64) -> bool {
        let known = self.enough_at.get();
        (known != 0 && request < LARGE && in_use < known + STEP) || self.ask(request, in_use)
    }

    #[cold]
    fn ask(&self, request: usize, in_use: u64) -> bool {
        let wanted = request.saturating_mul(PER_REQUEST_BYTE).saturating_add(HEADROOM);
        let enough = Heap::global().can_grow(wanted);
        // After a no everybody asks, until there is a yes.
        self.enough_at.set(if enough { in_use + 1 } else { 0 });
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_again_after_a_step_and_for_large_requests() {
        let spare = Spare::default();
        assert!(spare.admits(10, 1000));
        assert_eq!(spare.enough_at.get(), 1001);
        assert!(spare.admits(10, 1000 + STEP));
        assert_eq!(spare.enough_at.get(), 1001, "nobody asked");
        assert!(spare.admits(10, 1001 + STEP));
        assert_eq!(spare.enough_at.get(), 1002 + STEP);
        // More than any system has.
        assert!(!spare.admits(usize::MAX / 8, 0));
        assert_eq!(spare.enough_at.get(), 0);
        assert!(spare.admits(10, 5));
        assert_eq!(spare.enough_at.get(), 6);
    }
}
