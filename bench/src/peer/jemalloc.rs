//! jemalloc.

use std::ffi::{CStr, c_char, c_uint, c_void};

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static GLOBAL: Jemalloc = Jemalloc;

/// Its name in the table.
pub const NAME: &str = "jemalloc";
/// What [`owns`] looks at.
pub const PROOF: &str = "mallctl arenas.lookup, and its refusal for a foreign address";
/// Whether the C library's accounts must move.
pub const IS_SYSTEM: bool = false;

/// Whether jemalloc finds an arena for the block, and none for one that is none of its.
pub fn owns(ptr: *const u8, _size: usize) -> bool {
    static FOREIGN: u64 = 0;
    has_arena(ptr) && !has_arena((&raw const FOREIGN).cast())
}

/// What `mallctl("version")` says.
pub fn version() -> String {
    let mut text: *const c_char = std::ptr::null();
    let mut size = size_of_val(&text);
    // SAFETY: the name is a C string; the answer is a pointer of the size given.
    let rc = unsafe {
        tikv_jemalloc_sys::mallctl(
            c"version".as_ptr(),
            (&raw mut text).cast(),
            &mut size,
            std::ptr::null_mut(),
            0,
        )
    };
    if rc != 0 || text.is_null() {
        return String::from("jemalloc");
    }
    // SAFETY: jemalloc's version is a constant C string.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    format!("jemalloc {text}")
}

/// Whether the library is the one asked for, beyond its name.
pub fn is_as_built() -> Result<(), &'static str> {
    Ok(())
}

/// Told by a thread before it sleeps; jemalloc leaves that to its decay and background threads.
pub fn about_to_sleep() {}

/// Called now and then while threads sleep. As built here jemalloc has no background threads, and
/// decays when it is called; a program would have to purge every arena by hand.
pub fn housekeep() {}

fn has_arena(ptr: *const u8) -> bool {
    let mut arena: c_uint = 0;
    let mut size = size_of_val(&arena);
    let mut ptr: *const c_void = ptr.cast();
    // SAFETY: the name is a C string; answer and question have the sizes given, and outlive the
    // call; the lookup searches jemalloc's own tree.
    let rc = unsafe {
        tikv_jemalloc_sys::mallctl(
            c"arenas.lookup".as_ptr(),
            (&raw mut arena).cast(),
            &mut size,
            (&raw mut ptr).cast(),
            size_of_val(&ptr),
        )
    };
    rc == 0
}
