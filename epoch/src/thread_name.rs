//! What a thread is called in reports.

use std::io::Write;

/// Calls `f` with the name of the calling thread, or with its number. Allocates nothing.
pub(crate) fn with_thread_name<R>(f: impl FnOnce(&str) -> R) -> R {
    let thread = std::thread::current();
    if let Some(name) = thread.name() {
        return f(name);
    }
    let mut text = [0u8; 40];
    let mut rest = &mut text[..];
    // What does not fit is cut off.
    let _ = write!(rest, "{:?}", thread.id());
    let left = rest.len();
    let length = text.len() - left;
    f(std::str::from_utf8(&text[..length]).unwrap_or_default())
}
