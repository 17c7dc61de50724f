//! Memory comes back in any program: a thread that scavenges, started when there is much to return.
//!
//! Owns that thread. A small program never gets one: it starts with the allocation that brings the
//! heap to [`MUCH`], from inside that allocation and not from a free, because the C library frees
//! under the very lock that starting a thread takes. It ends when the heap has been small for
//! [`QUIET_PASSES`] and is started again by the next growth. A forked child has no such thread and
//! starts its own when it grows. It holds no shard between its passes and touches only the heap.

use std::time::Duration;

use flagstone_slab::{Heap, thread};

use crate::background;

/// Populated bytes from which on a heap gets a scavenger.
const MUCH: u64 = 32 << 20;
/// Passes over a heap smaller than half of [`MUCH`] after which the thread ends.
const QUIET_PASSES: u32 = 4;
/// Bytes of its stack: a pass needs a few kibibytes.
const STACK_BYTES: usize = 128 << 10;

/// Whether and when the thread is started; `FLAGSTONE_SCAVENGER`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scavenger {
    /// When the heap has grown.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// Arranges for the thread, in this process and in children that it forks.
pub(crate) fn arrange(scavenger: Scavenger) {
    if scavenger == Scavenger::Auto {
        arm();
        // SAFETY: the handler has the type the call wants. A refusal leaves children without a
        // scavenger, and slow paths return memory all the same.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    }
}

fn arm() {
    Heap::on_growth(MUCH, start);
}

unsafe extern "C" fn in_child() {
    arm();
}

/// Starts the thread. If the system refuses, slow paths go on returning memory by themselves.
fn start() {
    background::start(c"flagstone-scav", STACK_BYTES, scavenge_while_large);
}

fn scavenge_while_large() {
    let heap = Heap::global();
    let mut quiet = 0;
    while quiet < QUIET_PASSES {
        thread::give_back();
        // What was freed right after a pass is returned two waits later at most.
        std::thread::sleep(heap.decay().max(Duration::from_millis(10)));
        heap.scavenge();
        quiet = if heap.populated_bytes() < MUCH / 2 { quiet + 1 } else { 0 };
    }
    arm();
}
