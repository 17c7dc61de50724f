//! Threads of the library's own inside somebody else's program.
//!
//! Owns how they are started: detached, with all signals blocked, on a small stack, and without the
//! standard library's thread-locals on the starting thread, which may be in the middle of anything.

use std::ffi::{CStr, c_void};
use std::mem::MaybeUninit;
use std::ptr;

use crate::guarded;

/// What a thread runs.
struct Start {
    name: &'static CStr,
    body: Box<dyn FnOnce() + Send>,
}

/// Starts a thread that runs `body`; returns whether the system agreed. The name has at most 15
/// bytes.
pub(crate) fn start(
    name: &'static CStr,
    stack_bytes: usize,
    body: impl FnOnce() + Send + 'static,
) -> bool {
    let start = Box::into_raw(Box::new(Start { name, body: Box::new(body) }));
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
    // SAFETY:
    // 1. each object is initialised by the first call that gets it, and only then used;
    // 2. the thread inherits the mask of this one, which is put back right after;
    // 3. `main` has the type the call wants, and gets the box for itself if the call succeeds.
    unsafe {
        if libc::pthread_attr_init(attributes.as_mut_ptr()) != 0 {
            drop(Box::from_raw(start));
            return false;
        }
        libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), stack_bytes);
        libc::pthread_attr_setdetachstate(attributes.as_mut_ptr(), libc::PTHREAD_CREATE_DETACHED);
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        let refused = libc::pthread_create(
            thread.as_mut_ptr(),
            attributes.as_ptr(),
            main,
            start.cast::<c_void>(),
        );
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        if refused != 0 {
            drop(Box::from_raw(start));
        }
        refused == 0
    }
}

extern "C" fn main(start: *mut c_void) -> *mut c_void {
    // SAFETY: the pointer is the box that `start` gave to this thread.
    let start = unsafe { Box::from_raw(start.cast::<Start>()) };
    #[cfg(target_os = "linux")]
    // SAFETY: the calling thread exists, and the name ends in NUL.
    unsafe {
        libc::pthread_setname_np(libc::pthread_self(), start.name.as_ptr());
    }
    guarded((), start.body);
    ptr::null_mut()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_thread_runs_its_body_with_signals_blocked() {
        let (send, receive) = mpsc::channel();
        assert!(start(c"test", 256 << 10, move || {
            let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
            // SAFETY: the call initialises the mask that the next one reads.
            let blocked = unsafe {
                libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), mask.as_mut_ptr());
                libc::sigismember(mask.as_ptr(), libc::SIGTERM)
            };
            send.send(blocked).expect("the test waits");
        }));
        assert_eq!(receive.recv(), Ok(1));
    }
}
