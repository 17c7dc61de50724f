//! Proof that a program allocates from Flagstone: a fresh block of its own `malloc`, looked up.
//!
//! Owns the question and its answer on file. The `malloc` asked is the one that the program finds by
//! name, which may be another library's; so the answer can be no.

use std::ffi::{c_int, c_void};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use flagstone_slab::Heap;

/// Whether the process's `malloc` gives blocks of Flagstone. Asks for one block.
pub(crate) fn serves_the_process() -> bool {
    // SAFETY: the names end in NUL; a found `malloc` and `free` have these types, and the block is
    // freed once, by the `free` beside its `malloc`.
    unsafe {
        let malloc = libc::dlsym(libc::RTLD_DEFAULT, c"malloc".as_ptr());
        let free = libc::dlsym(libc::RTLD_DEFAULT, c"free".as_ptr());
        if malloc.is_null() || free.is_null() {
            return false;
        }
        let malloc: extern "C" fn(usize) -> *mut c_void = std::mem::transmute(malloc);
        let free: unsafe extern "C" fn(*mut c_void) = std::mem::transmute(free);
        let block = std::hint::black_box(malloc(40));
        let ours = Heap::global().usable_size(block.cast()).is_some();
        free(block);
        ours
    }
}

/// 1 if the process's `malloc` gives blocks of this library, 0 if it does not.
#[unsafe(no_mangle)]
pub extern "C" fn flagstone_verify() -> c_int {
    crate::guarded(0, || c_int::from(serves_the_process()))
}

/// Appends `PID yes|no VERSION` as one line. A file that cannot be written says nothing, which
/// its reader takes for no.
pub(crate) fn file(path: &Path) {
    let answer = if serves_the_process() { "yes" } else { "no" };
    let line = format!("{} {answer} {}\n", std::process::id(), env!("CARGO_PKG_VERSION"));
    if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path) {
        // One write, so that processes that share the file do not mix their lines.
        let _ = file.write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test of this crate runs on the system's `malloc`, so the honest answer is no; the test under
    /// preload gets a yes.
    #[test]
    fn a_program_on_another_allocator_is_told_so() {
        assert!(!serves_the_process());
        assert_eq!(flagstone_verify(), 0);
        let path = std::env::temp_dir().join(format!("flagstone-proof-{}", std::process::id()));
        file(&path);
        file(&path);
        let text = std::fs::read_to_string(&path).expect("written");
        std::fs::remove_file(&path).expect("removed");
        let line = format!("{} no {}\n", std::process::id(), env!("CARGO_PKG_VERSION"));
        assert_eq!(text, line.repeat(2));
    }
}
