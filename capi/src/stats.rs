//! The heap's figures as JSON: the text of `/stats.json`, so that both show the same.
//!
//! Owns the writing into a caller's buffer. The text is telemetry's; `docs/stats.md` defines it.

use std::ffi::c_char;

use flagstone_slab::Heap;
use flagstone_telemetry::{Snapshot, json};

use crate::{FLAGSTONE_FAILED, FLAGSTONE_INVALID, guarded};

/// Writes the heap's statistics as JSON, like `snprintf`; returns the length of the whole text.
///
/// # Safety
/// `buf` is null, or valid for writing `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_stats_json(buf: *mut c_char, len: usize) -> isize {
    if buf.is_null() && len > 0 {
        return FLAGSTONE_INVALID as isize;
    }
    let text = guarded(None, || Some(json_text()));
    if len > 0 {
        let text = text.as_deref().unwrap_or_default();
        let fits = text.len().min(len - 1);
        // SAFETY: the caller's promise; `fits + 1` is at most `len`.
        unsafe {
            buf.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), fits);
            buf.add(fits).write(0);
        }
    }
    text.map_or(FLAGSTONE_FAILED as isize, |text| text.len() as isize)
}

/// The figures of this moment.
pub(crate) fn json_text() -> String {
    json::to_value(&Snapshot::take(Heap::global())).to_string()
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::ptr;

    use serde_json::Value;

    use super::*;

    // requirement: D10
    #[test]
    fn writes_like_snprintf() {
        // SAFETY: each buffer is as long as said, or null.
        unsafe {
            let whole = flagstone_stats_json(ptr::null_mut(), 0);
            assert!(whole > 0);
            let mut small = [0x55 as c_char; 9];
            assert!(flagstone_stats_json(small.as_mut_ptr(), 8) > 8);
            assert_eq!(CStr::from_ptr(small.as_ptr()).count_bytes(), 7);
            assert_eq!(small[8], 0x55, "written past the length");
            assert_eq!(flagstone_stats_json(ptr::null_mut(), 5), FLAGSTONE_INVALID as isize);

            let mut room = vec![0x55 as c_char; whole as usize + 4096];
            let written = flagstone_stats_json(room.as_mut_ptr(), room.len());
            let text = CStr::from_ptr(room.as_ptr());
            assert_eq!(text.count_bytes() as isize, written);
            let text = text.to_str().expect("UTF-8");
            let read: Value = serde_json::from_str(text).expect("JSON");
            for member in json::MEMBERS {
                assert!(read.get(member).is_some(), "{member}");
            }
            assert_eq!(read["heap"]["heap"], "global");
        }
    }
}
