//! The end of a process whose heap can no longer be trusted.
//!
//! Owns the one way out that the `GlobalAlloc` path has: a line on standard error, formatted on the
//! stack, then `abort`. No unwinding, no allocation, no lock.

use std::fmt::{self, Write};

/// Writes `flagstone: MESSAGE` to standard error and aborts.
#[cold]
#[inline(never)]
pub(crate) fn fatal(message: fmt::Arguments<'_>) -> ! {
    if cfg!(flagstone_loom) {
        // The model fails, and says why.
        panic!("{message}");
    }
    complain(message);
    std::process::abort()
}

/// Writes `flagstone: MESSAGE` to standard error, for a setting that cannot be followed.
#[cold]
#[inline(never)]
pub(crate) fn complain(message: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; 256], len: 0 };
    // A message that does not fit is cut by `Line`, which never reports an error.
    let _ = write!(line, "flagstone: {message}");
    line.bytes[line.len] = b'\n';
    // SAFETY: the buffer is initialised up to and including the newline at `len`.
    unsafe { libc::write(2, line.bytes.as_ptr().cast(), line.len + 1) };
}

/// A `debug_assert!` for the `GlobalAlloc` path: it ends the process instead of unwinding, because
/// a panic would allocate, perhaps under the very lock that is held.
macro_rules! debug_check {
    ($sound:expr, $message:literal) => {
        if cfg!(debug_assertions) && !$sound {
            $crate::os::fatal(format_args!($message));
        }
    };
}
pub(crate) use debug_check;

struct Line {
    bytes: [u8; 256],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        // One byte stays free for the newline.
        let room = self.bytes.len() - 1 - self.len;
        let n = s.len().min(room);
        self.bytes[self.len..self.len + n].copy_from_slice(&s.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}
