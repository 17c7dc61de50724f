//! Being told of a fault: somebody touched memory that is not there to be touched.
//!
//! Owns one handler's place for the signal of a fault, kept for the life of the process, and what was in
//! that place before. Only installed with the feature `hardened`.
//!
//! Rust's runtime installs a handler of its own before `main`, for the message about a stack that
//! overflows, and only where none is: so ours has to come after it, and allocations come earlier. The
//! handler is installed by the first call that finds another one in its place, that of the runtime or of
//! the program, and hands over to that one whatever is not its own. Where there is none, no runtime of Rust
//! has started yet, or the program is none of Rust's: only a later call installs it there. A program that
//! installs one afterwards, as crash reporters do, has its own called first, and ours if that hands over.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr;

use crate::sync::{Ordering, process};

/// The signal of an access that a mapping's protection forbids.
const FAULT: libc::c_int =
    if cfg!(any(target_os = "macos", target_os = "ios")) { libc::SIGBUS } else { libc::SIGSEGV };

/// Calls after which the handler is installed where there was none: more than Rust's runtime makes
/// slabs before it has its own.
const CALLS_BEFORE_MAIN: usize = 16;

/// What a handler is given: the signal, what is known of it, and the registers.
pub(crate) type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

/// What was installed before. Written once, before the handler is installed; read by the handler.
struct Before(UnsafeCell<MaybeUninit<libc::sigaction>>);

// SAFETY: written by one thread, before anybody reads it; see `arm_fault_handler`.
unsafe impl Sync for Before {}

static BEFORE: Before = Before(UnsafeCell::new(MaybeUninit::uninit()));

/// Installs a handler, if it is time; see the top. Every caller of a process passes the same one.
pub(crate) fn arm_fault_handler(handler: Handler) {
    static CALLS: process::AtomicUsize = process::AtomicUsize::new(0);
    static ARMED: process::AtomicUsize = process::AtomicUsize::new(0);
    // Relaxed: the flag stands for itself, as in `fork`.
    if ARMED.load(Ordering::Relaxed) != 0 {
        return;
    }
    let calls = CALLS.fetch_add(1, Ordering::Relaxed);
    let mut before = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: only asks, and writes to the place given.
    if unsafe { libc::sigaction(FAULT, ptr::null(), before.as_mut_ptr()) } != 0 {
        return;
    }
    // SAFETY: written by the call.
    let before = unsafe { before.assume_init() };
    let nobody = matches!(before.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN);
    if nobody && calls < CALLS_BEFORE_MAIN || ARMED.swap(1, Ordering::Relaxed) != 0 {
        return;
    }
    // SAFETY:
    // 1. this thread alone came here, and no handler that reads the place is installed yet;
    // 2. the handler has the type that the flag says. The signals and most of the flags of the one that
    //    was there are kept, so that it runs as it would have. If the kernel refuses, nothing changes.
    unsafe {
        (*BEFORE.0.get()).write(before);
        let mut ours = before;
        ours.sa_sigaction = handler as usize;
        let kept = before.sa_flags & (libc::SA_NODEFER | libc::SA_RESTART);
        ours.sa_flags = kept | libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(FAULT, &ours, ptr::null_mut());
    }
}

/// The address that could not be touched; `None` for a signal that somebody sent.
///
/// # Safety
/// What a [`Handler`] was given.
pub(crate) unsafe fn fault_address(info: *mut libc::siginfo_t) -> Option<usize> {
    // SAFETY: by contract; the kernel's own signals of this number have an address.
    unsafe { ((*info).si_code > 0).then(|| (*info).si_addr().addr()) }
}

/// Does with a signal what would have been done without our handler.
///
/// # Safety
/// Called by the [`Handler`] that was installed, with what it was given, as the last thing that it does.
pub(crate) unsafe fn hand_over(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: written before the handler was installed. Handlers have the type that their flags say.
    unsafe {
        let before = (*BEFORE.0.get()).assume_init_ref();
        let faulted = fault_address(info).is_some();
        match before.sa_sigaction {
            libc::SIG_IGN if !faulted => {}
            libc::SIG_DFL | libc::SIG_IGN => {
                back_to_default(signal);
                // A fault comes again when the access is tried again, on return.
                if !faulted {
                    libc::raise(signal);
                }
            }
            handler => {
                if before.sa_flags & libc::SA_RESETHAND != 0 {
                    back_to_default(signal);
                }
                if before.sa_flags & libc::SA_SIGINFO != 0 {
                    std::mem::transmute::<usize, Handler>(handler)(signal, info, context);
                } else {
                    type Plain = extern "C" fn(libc::c_int);
                    std::mem::transmute::<usize, Plain>(handler)(signal);
                }
            }
        }
    }
}

fn back_to_default(signal: libc::c_int) {
    // SAFETY: a `sigaction` of zeros is one of the default action; nothing else is changed.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, &default, ptr::null_mut());
    }
}
