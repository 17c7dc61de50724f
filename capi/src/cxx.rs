//! C++ `operator new` and `operator delete` in all forms, by their mangled names (Itanium ABI, 64 bits).
//!
//! Owns no state. A program's own replacements, being the program's, are found before these. The
//! throwing forms follow the standard: call the new-handler and try again while there is one, else
//! throw `std::bad_alloc`. Both are the C++ library's, found by name when memory has run out, so
//! that C programs need no C++ library; without one, the program ends with a message.
//!
//! The standard's nothrow forms call the throwing ones and turn what these throw into null. Only C++ can
//! catch that, so when memory has run out they hand over to the C++ library's own nothrow forms, which
//! come after ours in the order of symbols and do just so: its `operator new` is ours again, or the
//! program's.

use std::ffi::{CStr, c_void};

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
fn new_nothrow(size: usize, align: usize, nothrow: NoThrow, form: &CStr) -> *mut c_void {
    let block = untyped::alloc_aligned(size, align);
    if block.is_null() { new_nothrow_again(size, align, nothrow, form) } else { block.cast() }
}

/// What the C++ library's form of this name gives; null where there is none to ask.
#[cold]
#[inline(never)]
fn new_nothrow_again(size: usize, align: usize, nothrow: NoThrow, form: &CStr) -> *mut c_void {
    type Plain = extern "C" fn(usize, NoThrow) -> *mut c_void;
    type Aligned = extern "C" fn(usize, usize, NoThrow) -> *mut c_void;
    let theirs = find_hidden(form);
    if theirs.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: functions of this mangled name have one of these types, and those with an alignment the
    // second. They do not throw.
    unsafe {
        if form.to_bytes().windows(ALIGNED.len()).any(|part| part == ALIGNED) {
            std::mem::transmute::<*mut c_void, Aligned>(theirs)(size, align, nothrow)
        } else {
            std::mem::transmute::<*mut c_void, Plain>(theirs)(size, nothrow)
        }
    }
}

/// `std::align_val_t` in a mangled name.
const ALIGNED: &[u8] = b"St11align_val_t";

#[inline(always)]
unsafe fn delete(block: *mut c_void) {
    if !block.is_null() {
        // SAFETY: the callers pass on a block that the program gives up.
        unsafe { untyped::free(block.cast()) };
    }
}

macro_rules! operators {
    ($(#[$doc:meta] new $name:ident($($arg:ident: $type:ty),*) = $call:expr;)*) => { $(
        #[$doc]
        #[cfg_attr(all(flagstone_exported, not(test)), unsafe(no_mangle))]
        #[allow(non_snake_case, reason = "mangled")]
        pub extern "C-unwind" fn $name($($arg: $type),*) -> *mut c_void {
            $call
        }
    )* };
}

macro_rules! deletes {
    ($(#[$doc:meta] delete $name:ident($($type:ty),*);)*) => { $(
        #[$doc]
        ///
        /// # Safety
        /// The block is null, or in use and given up.
        #[cfg_attr(all(flagstone_exported, not(test)), unsafe(no_mangle))]
        #[allow(non_snake_case, reason = "mangled")]
        pub unsafe extern "C" fn $name(block: *mut c_void, $(_: $type),*) {
            // SAFETY: the caller's promise.
            unsafe { delete(block) }
        }
    )* };
}

operators! {
    /// `operator new(std::size_t)`
    new _Znwm(size: usize) = new(size, 1);
    /// `operator new[](std::size_t)`
    new _Znam(size: usize) = new(size, 1);
    /// `operator new(std::size_t, std::nothrow_t const&)`
    new _ZnwmRKSt9nothrow_t(size: usize, nothrow: NoThrow)
        = new_nothrow(size, 1, nothrow, c"_ZnwmRKSt9nothrow_t");
    /// `operator new[](std::size_t, std::nothrow_t const&)`
    new _ZnamRKSt9nothrow_t(size: usize, nothrow: NoThrow)
        = new_nothrow(size, 1, nothrow, c"_ZnamRKSt9nothrow_t");
    /// `operator new(std::size_t, std::align_val_t)`
    new _ZnwmSt11align_val_t(size: usize, align: usize) = new(size, align);
    /// `operator new[](std::size_t, std::align_val_t)`
    new _ZnamSt11align_val_t(size: usize, align: usize) = new(size, align);
    /// `operator new(std::size_t, std::align_val_t, std::nothrow_t const&)`
    new _ZnwmSt11align_val_tRKSt9nothrow_t(size: usize, align: usize, nothrow: NoThrow)
        = new_nothrow(size, align, nothrow, c"_ZnwmSt11align_val_tRKSt9nothrow_t");
    /// `operator new[](std::size_t, std::align_val_t, std::nothrow_t const&)`
    new _ZnamSt11align_val_tRKSt9nothrow_t(size: usize, align: usize, nothrow: NoThrow)
        = new_nothrow(size, align, nothrow, c"_ZnamSt11align_val_tRKSt9nothrow_t");
}

deletes! {
    /// `operator delete(void*)`
    delete _ZdlPv();
    /// `operator delete[](void*)`
    delete _ZdaPv();
    /// `operator delete(void*, std::size_t)`
    delete _ZdlPvm(usize);
    /// `operator delete[](void*, std::size_t)`
    delete _ZdaPvm(usize);
    /// `operator delete(void*, std::nothrow_t const&)`
    delete _ZdlPvRKSt9nothrow_t(NoThrow);
    /// `operator delete[](void*, std::nothrow_t const&)`
    delete _ZdaPvRKSt9nothrow_t(NoThrow);
    /// `operator delete(void*, std::align_val_t)`
    delete _ZdlPvSt11align_val_t(usize);
    /// `operator delete[](void*, std::align_val_t)`
    delete _ZdaPvSt11align_val_t(usize);
    /// `operator delete(void*, std::size_t, std::align_val_t)`
    delete _ZdlPvmSt11align_val_t(usize, usize);
    /// `operator delete[](void*, std::size_t, std::align_val_t)`
    delete _ZdaPvmSt11align_val_t(usize, usize);
    /// `operator delete(void*, std::align_val_t, std::nothrow_t const&)`
    delete _ZdlPvSt11align_val_tRKSt9nothrow_t(usize, NoThrow);
    /// `operator delete[](void*, std::align_val_t, std::nothrow_t const&)`
    delete _ZdaPvSt11align_val_tRKSt9nothrow_t(usize, NoThrow);
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
