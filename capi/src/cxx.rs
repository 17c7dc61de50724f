//! C++ `operator new` and `operator delete` in all forms, by their mangled names (Itanium ABI, 64 bits).
//!
//! Owns one word: whether the program has replaced a form that others are made of. A program's own
//! replacements, being the program's, are found before these. The throwing forms follow the standard:
//! call the new-handler and try again while there is one, else throw `std::bad_alloc`. Both are the C++
//! library's, found by name when memory has run out, so that C programs need no C++ library; without
//! one, the program ends with a message.
//!
//! By the standard the other forms call the plain ones: arrays, sized deletes, and the nothrow forms,
//! which turn what is thrown into null, as only C++ can. Two cases cannot do without: a program that
//! has replaced a plain form, whose blocks are its own, and a nothrow form when memory has run out.
//! Then the C++ library's definition of the same form has the word. It comes after ours in the order of
//! symbols, and what it calls is ours again or the program's.

#![allow(clippy::disallowed_types, reason = "the flag below is no part of a protocol")]

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicU8, Ordering};

use flagstone_slab::untyped;

/// `std::nothrow_t const&`: an address that nobody reads.
type NoThrow = *const c_void;

fn find(symbol: &CStr) -> *mut c_void {
    // SAFETY: the name ends in NUL; RTLD_DEFAULT asks the program's own scope.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, symbol.as_ptr()) }
}

/// The definition of a symbol that ours hides: that of a library loaded after ours, or linked with the
/// program that ours is in.
fn find_hidden(symbol: &CStr) -> *mut c_void {
    // SAFETY: the name ends in NUL; RTLD_NEXT asks behind the object that this code is in.
    unsafe { libc::dlsym(libc::RTLD_NEXT, symbol.as_ptr()) }
}

/// Where the program or library starts that an address is in; null if it is in none.
fn object_of(address: *const c_void) -> *const c_void {
    let mut found = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the place is valid for writing, and all zeros are a value of it.
    unsafe {
        libc::dladdr(address, found.as_mut_ptr());
        found.assume_init().dli_fbase
    }
}

/// Calls the program's new-handler; returns whether there was one. It may throw.
fn call_new_handler() -> bool {
    let getter = find(c"_ZSt15get_new_handlerv");
    if getter.is_null() {
        return false;
    }
    // SAFETY: `std::get_new_handler()` takes nothing and gives a function of this type or null.
    let handler = unsafe {
        let getter: extern "C" fn() -> Option<extern "C-unwind" fn()> = std::mem::transmute(getter);
        getter()
    };
    handler.map(|handler| handler()).is_some()
}

#[cold]
fn throw_bad_alloc() -> ! {
    let throw = find(c"_ZSt17__throw_bad_allocv");
    if !throw.is_null() {
        // SAFETY: `std::__throw_bad_alloc()` takes nothing and does not come back.
        let throw: extern "C-unwind" fn() -> ! = unsafe { std::mem::transmute(throw) };
        throw();
    }
    crate::tell(c"out of memory, and no C++ library to throw std::bad_alloc");
    std::process::abort()
}

#[inline(always)]
fn new(size: usize, align: usize) -> *mut c_void {
    let block = untyped::alloc_aligned(size, align);
    if block.is_null() { new_again(size, align) } else { block.cast() }
}

#[cold]
#[inline(never)]
fn new_again(size: usize, align: usize) -> *mut c_void {
    while call_new_handler() {
        let block = untyped::alloc_aligned(size, align);
        if !block.is_null() {
            return block.cast();
        }
    }
    throw_bad_alloc()
}

#[inline(always)]
fn new_or_null(size: usize, align: usize) -> *mut c_void {
    untyped::alloc_aligned(size, align).cast()
}

const UNKNOWN: u8 = 0;
const OURS: u8 = 1;
const REPLACED: u8 = 2;

/// Whether the program has its own of one of the forms that the others are made of.
#[inline(always)]
fn replaced() -> bool {
    static KNOWN: AtomicU8 = AtomicU8::new(UNKNOWN);
    // Relaxed: the value stands for itself, and whoever finds none finds out the same.
    match KNOWN.load(Ordering::Relaxed) {
        OURS => false,
        REPLACED => true,
        _ => find_out(&KNOWN),
    }
}

#[cold]
#[inline(never)]
fn find_out(known: &AtomicU8) -> bool {
    // Not compared with addresses of functions here: a library's own names, too, mean the program's.
    let ours = object_of(find_out as *const c_void);
    let plain = [c"_Znwm", c"_ZdlPv", c"_ZnwmSt11align_val_t", c"_ZdlPvSt11align_val_t"];
    let replaced = plain.into_iter().any(|name| {
        let found = find(name).cast_const();
        !found.is_null() && object_of(found) != ours
    });
    known.store(if replaced { REPLACED } else { OURS }, Ordering::Relaxed);
    replaced
}

#[inline(always)]
unsafe fn delete(block: *mut c_void) {
    if !block.is_null() {
        // SAFETY: the callers pass on a block that the program gives up.
        unsafe { untyped::free(block.cast()) };
    }
}

/// The C++ library's definition of a form, if there is one.
macro_rules! theirs {
    ($name:ident: $type:ty) => {{
        const NAME: &CStr =
            match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!("a name without an end"),
            };
        let found = find_hidden(NAME);
        // SAFETY: a function of this mangled name has this type.
        (!found.is_null()).then(|| unsafe { std::mem::transmute::<*mut c_void, $type>(found) })
    }};
}

macro_rules! operators {
    ($(#[$doc:meta] $kind:ident $name:ident($($arg:ident: $type:ty),*) = $call:expr;)*) => { $(
        #[$doc]
        #[cfg_attr(all(flagstone_exported, not(test)), unsafe(no_mangle))]
        #[allow(non_snake_case, reason = "mangled")]
        pub extern "C-unwind" fn $name($($arg: $type),*) -> *mut c_void {
            operators!(@$kind $name($($arg: $type),*) $call)
        }
    )* };
    (@plain $name:ident($($arg:ident: $type:ty),*) $call:expr) => { $call };
    (@derived $name:ident($($arg:ident: $type:ty),*) $call:expr) => {{
        if replaced()
            && let Some(theirs) = theirs!($name: extern "C-unwind" fn($($type),*) -> *mut c_void)
        {
            return theirs($($arg),*);
        }
        $call
    }};
    (@nothrow $name:ident($($arg:ident: $type:ty),*) $call:expr) => {{
        if !replaced() {
            let block = $call;
            if !block.is_null() {
                return block;
            }
        }
        match theirs!($name: extern "C-unwind" fn($($type),*) -> *mut c_void) {
            Some(theirs) => theirs($($arg),*),
            // No C++ library, so nobody has a new-handler.
            None => $call,
        }
    }};
}

macro_rules! deletes {
    ($(#[$doc:meta] $kind:ident $name:ident($($arg:ident: $type:ty),*);)*) => { $(
        #[$doc]
        ///
        /// # Safety
        /// The block is null, or in use and given up.
        #[cfg_attr(all(flagstone_exported, not(test)), unsafe(no_mangle))]
        #[allow(non_snake_case, reason = "mangled")]
        pub unsafe extern "C" fn $name(block: *mut c_void, $($arg: $type),*) {
            deletes!(@$kind $name(block, $($arg: $type),*))
        }
    )* };
    (@plain $name:ident($block:ident, $($arg:ident: $type:ty),*)) => {{
        $(let _ = $arg;)*
        // SAFETY: the caller's promise.
        unsafe { delete($block) }
    }};
    (@derived $name:ident($block:ident, $($arg:ident: $type:ty),*)) => {{
        if replaced()
            && let Some(theirs) = theirs!($name: unsafe extern "C" fn(*mut c_void, $($type),*))
        {
            // SAFETY: the caller's promise.
            return unsafe { theirs($block, $($arg),*) };
        }
        // SAFETY: the caller's promise.
        unsafe { delete($block) }
    }};
}

operators! {
    /// `operator new(std::size_t)`
    plain _Znwm(size: usize) = new(size, 1);
    /// `operator new[](std::size_t)`
    derived _Znam(size: usize) = new(size, 1);
    /// `operator new(std::size_t, std::nothrow_t const&)`
    nothrow _ZnwmRKSt9nothrow_t(size: usize, nothrow: NoThrow) = new_or_null(size, 1);
    /// `operator new[](std::size_t, std::nothrow_t const&)`
    nothrow _ZnamRKSt9nothrow_t(size: usize, nothrow: NoThrow) = new_or_null(size, 1);
    /// `operator new(std::size_t, std::align_val_t)`
    plain _ZnwmSt11align_val_t(size: usize, align: usize) = new(size, align);
    /// `operator new[](std::size_t, std::align_val_t)`
    derived _ZnamSt11align_val_t(size: usize, align: usize) = new(size, align);
    /// `operator new(std::size_t, std::align_val_t, std::nothrow_t const&)`
    nothrow _ZnwmSt11align_val_tRKSt9nothrow_t(size: usize, align: usize, nothrow: NoThrow)
        = new_or_null(size, align);
    /// `operator new[](std::size_t, std::align_val_t, std::nothrow_t const&)`
    nothrow _ZnamSt11align_val_tRKSt9nothrow_t(size: usize, align: usize, nothrow: NoThrow)
        = new_or_null(size, align);
}

deletes! {
    /// `operator delete(void*)`
    plain _ZdlPv();
    /// `operator delete[](void*)`
    derived _ZdaPv();
    /// `operator delete(void*, std::size_t)`
    derived _ZdlPvm(size: usize);
    /// `operator delete[](void*, std::size_t)`
    derived _ZdaPvm(size: usize);
    /// `operator delete(void*, std::nothrow_t const&)`
    derived _ZdlPvRKSt9nothrow_t(nothrow: NoThrow);
    /// `operator delete[](void*, std::nothrow_t const&)`
    derived _ZdaPvRKSt9nothrow_t(nothrow: NoThrow);
    /// `operator delete(void*, std::align_val_t)`
    plain _ZdlPvSt11align_val_t(align: usize);
    /// `operator delete[](void*, std::align_val_t)`
    derived _ZdaPvSt11align_val_t(align: usize);
    /// `operator delete(void*, std::size_t, std::align_val_t)`
    derived _ZdlPvmSt11align_val_t(size: usize, align: usize);
    /// `operator delete[](void*, std::size_t, std::align_val_t)`
    derived _ZdaPvmSt11align_val_t(size: usize, align: usize);
    /// `operator delete(void*, std::align_val_t, std::nothrow_t const&)`
    derived _ZdlPvSt11align_val_tRKSt9nothrow_t(align: usize, nothrow: NoThrow);
    /// `operator delete[](void*, std::align_val_t, std::nothrow_t const&)`
    derived _ZdaPvSt11align_val_tRKSt9nothrow_t(align: usize, nothrow: NoThrow);
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    #[test]
    fn every_form_allocates_aligned_and_frees() {
        let nothrow = ptr::null();
        // SAFETY: each block is given up once; null is allowed.
        unsafe {
            for size in [0, 1, 40, 3000, 1 << 20] {
                _ZdlPv(_Znwm(size));
                _ZdaPvm(_Znam(size), size);
                _ZdlPvRKSt9nothrow_t(_ZnwmRKSt9nothrow_t(size, nothrow), nothrow);
                let block = _ZnwmSt11align_val_t(size, 4096);
                assert!(block.addr().is_multiple_of(4096));
                _ZdlPvmSt11align_val_t(block, size, 4096);
                let block = _ZnamSt11align_val_tRKSt9nothrow_t(size, 64, nothrow);
                assert!(block.addr().is_multiple_of(64));
                _ZdaPvSt11align_val_t(block, 64);
            }
            assert!(_ZnwmRKSt9nothrow_t(usize::MAX, nothrow).is_null());
            _ZdlPv(ptr::null_mut());
        }
    }
}
