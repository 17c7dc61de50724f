//! Being told when the process forks.
//!
//! Owns one registration with `pthread_atfork`, kept for the life of the process. Handlers run in
//! the forking thread: *prepare* before, *parent* and *child* after. What is registered early runs
//! last before and first after, so an allocator registers with its first slow path and others'
//! handlers may allocate.

use crate::sync::{Ordering, process};

/// Asks that the handlers run at every fork. Further calls do nothing.
pub(crate) fn arm_fork_handlers(
    prepare: unsafe extern "C" fn(),
    parent: unsafe extern "C" fn(),
    child: unsafe extern "C" fn(),
) {
    static ARMED: process::AtomicUsize = process::AtomicUsize::new(0);
    // Relaxed: the flag stands for itself. Whoever reads 1 relies on a registration that is done
    // or being done by the thread that wrote it. A fork by a third thread in between runs without
    // handlers, as one a moment earlier would: waiting for the registration here could mean waiting for
    // that very fork. Programs have one thread when they allocate first.
    if ARMED.load(Ordering::Relaxed) != 0 || ARMED.swap(1, Ordering::Relaxed) != 0 {
        return;
    }
    // SAFETY: the handlers are functions of the program and have the type the call wants. The call
    // may allocate, through us: the nested call finds the flag set. A refusal for want of memory
    // leaves forks without handlers, as before.
    unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
}
