//! Being told when a thread ends.
//!
//! Owns one pthread key. A `thread_local!` with a destructor would not do: registering one
//! allocates, and Rust's and C++'s thread-local destructors run before key destructors, so frees
//! they make still find the thread's shard. Keys also serve threads that Rust did not start.

use crate::sync::{Ordering, process};

/// Asks that `on_exit` runs when the calling thread ends. Returns whether the system agreed.
///
/// Every caller of a process passes the same function: the key is made once.
pub(crate) fn arm_thread_exit(on_exit: extern "C" fn(*mut libc::c_void)) -> bool {
    if cfg!(flagstone_loom) {
        // The threads of a model are none of the system's; each says itself that it ends.
        return true;
    }
    // 0 = no key yet, else key + 1.
    static KEY: process::AtomicUsize = process::AtomicUsize::new(0);
    // Acquire pairs with the release half of the exchange below. If we see the key, its creation
    // happened before; if we do not, we make a second key and lose the exchange.
    let mut known = KEY.load(Ordering::Acquire);
    if known == 0 {
        let mut key: libc::pthread_key_t = 0;
        // SAFETY: `key` is a valid place; the destructor has the type the call wants.
        if unsafe { libc::pthread_key_create(&mut key, Some(on_exit)) } != 0 {
            return false;
        }
        match KEY.compare_exchange(0, key as usize + 1, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => known = key as usize + 1,
            Err(other) => {
                // SAFETY: the key was made above and no thread has used it.
                unsafe { libc::pthread_key_delete(key) };
                known = other;
            }
        }
    }
    // Any value but null makes the destructor run.
    // SAFETY: the key exists for the life of the process.
    unsafe {
        libc::pthread_setspecific(
            (known - 1) as libc::pthread_key_t,
            std::ptr::dangling::<libc::c_void>(),
        ) == 0
    }
}
