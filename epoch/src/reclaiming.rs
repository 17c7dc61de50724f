//! Which domains' objects this thread is reclaiming right now.
//!
//! Reclaim functions run inside calls that drive the collector: taking a guard, handing over, stepping
//! the service handle. They may retire more and take guards themselves; what they must not do is drive
//! the collector again, or stacks would grow with the garbage (rule R6). So each batch puts a frame on
//! a list of the thread while it runs, and whoever is about to drive looks there first. It costs a batch
//! two stores, and a guard nothing.
//!
//! A list and not a flag, because reclaiming for one domain may drive another.

use std::cell::Cell;
use std::ptr;

use crate::sync::thread_cell;

thread_cell!(TOP: Cell<*const Frame> = Cell::new(ptr::null()));

struct Frame {
    domain: u64,
    below: *const Frame,
}

/// Runs `reclaim`, functions of the domain numbered `domain`, with the thread knowing it.
pub(crate) fn within<R>(domain: u64, reclaim: impl FnOnce() -> R) -> R {
    /// Takes the frame off, in a panic as well.
    struct Pop(*const Frame);
    impl Drop for Pop {
        fn drop(&mut self) {
            TOP.with(|top| top.set(self.0));
        }
    }
    let frame = Frame { domain, below: TOP.with(Cell::get) };
    let _pop = Pop(frame.below);
    TOP.with(|top| top.set(&raw const frame));
    reclaim()
}

/// True inside [`within`] for the same domain, however far up the stack.
pub(crate) fn is_going_on(domain: u64) -> bool {
    let mut at = TOP.with(Cell::get);
    // SAFETY: the list's frames are locals of calls to `within` on this thread that have not returned:
    // each takes its own off before it does, and nobody else changes the list.
    while let Some(frame) = unsafe { at.as_ref() } {
        if frame.domain == domain {
            return true;
        }
        at = frame.below;
    }
    false
}

#[cfg(all(test, not(flagstone_loom)))]
mod tests {
    use super::*;

    #[test]
    fn frames_nest_and_come_off_in_a_panic() {
        assert!(!is_going_on(1));
        within(1, || {
            assert!(is_going_on(1) && !is_going_on(2));
            let panicked = std::panic::catch_unwind(|| within(2, || panic!("expected")));
            assert!(panicked.is_err());
            assert!(is_going_on(1) && !is_going_on(2));
            within(2, || assert!(is_going_on(1) && is_going_on(2)));
        });
        assert!(!is_going_on(1));
    }
}
