//! Under AddressSanitizer, whoever touches memory that was given up is reported, wherever it is by then;
//! whoever touches what was not is not. Each case runs in a child, which is its test itself with a
//! variable set.
#![cfg(flagstone_asan)]

mod blocks;
mod buffers;
mod values;

use std::process::Command;
use std::ptr::NonNull;

const CASE: &str = "FLAGSTONE_ASAN_CASE";

/// What the sanitizer writes.
const REPORT: &str = "AddressSanitizer: use-after-poison";

/// Runs `deed` in a child if this is the child; else starts it and returns whether it was reported. It
/// must have ended well or by a report.
pub fn reported(test: &str, deed: impl FnOnce()) -> bool {
    if std::env::var(CASE).is_ok_and(|case| case == test) {
        deed();
        std::process::exit(0);
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CASE, test)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert_ne!(child.status.success(), said.contains(REPORT), "{}: {said}", child.status);
    said.contains(REPORT)
}

/// Touches the byte at an offset.
pub fn touch(block: NonNull<u8>, at: usize) {
    // SAFETY: none where the block was given up: that this is reported is what the tests are for. The
    // memory is mapped throughout.
    unsafe { block.add(at).write_volatile(block.add(at).read_volatile() + 1) };
}
