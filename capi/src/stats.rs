//! The heap's figures as JSON: the text of `/stats.json`, so that both show the same.
//!
//! Owns the writing into a caller's buffer. The text is telemetry's; `docs/stats.md` defines it.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr;

use flagstone_slab::Heap;
use flagstone_telemetry::{Snapshot, json};

use crate::heap::{CHeap, heap_or_global};
use crate::{FLAGSTONE_FAILED, FLAGSTONE_INVALID, FLAGSTONE_OK, guarded};

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

/// `flagstone_stats_t` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "documented in include/flagstone.h, once")]
pub struct Stats {
    pub live: u64,
    pub cached: u64,
    pub fragmentation: u64,
    pub retired: u64,
    pub metadata: u64,
    pub mapped: u64,
    pub retained: u64,
    pub active: u64,
    pub resident: u64,
    pub allocs: u64,
    pub frees: u64,
    pub failures: u64,
    pub shards: u64,
}

/// Writes a heap's totals.
///
/// # Safety
/// `heap` is null or a heap in use; `stats` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_stats(heap: *const CHeap, stats: *mut Stats) -> c_int {
    if stats.is_null() {
        return FLAGSTONE_INVALID;
    }
    let seen = guarded(None, || {
        // SAFETY: the caller's promise.
        let snapshot = unsafe { heap_or_global(heap) }.snapshot();
        let (bytes, large) = (&snapshot.bytes, &snapshot.fallback);
        let classes = snapshot.classes.iter();
        Some(Stats {
            live: bytes.live,
            cached: bytes.cached,
            fragmentation: bytes.fragmentation,
            retired: bytes.retired,
            metadata: bytes.metadata,
            mapped: bytes.mapped,
            retained: bytes.retained,
            active: bytes.active,
            resident: bytes.resident.unwrap_or(0),
            allocs: classes.clone().map(|class| class.allocs).sum::<u64>() + large.allocs,
            frees: classes.map(|class| class.frees).sum::<u64>() + large.frees,
            failures: snapshot.tiers.failures,
            shards: snapshot.shards.len() as u64,
        })
    });
    // SAFETY: the caller's promise.
    unsafe { stats.write(seen.unwrap_or_default()) };
    if seen.is_some() { FLAGSTONE_OK } else { FLAGSTONE_FAILED }
}

/// `flagstone_result_ptr` of the header: a pointer with the function that ends it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "documented in include/flagstone.h, once")]
pub struct ResultPtr {
    pub ptr: *mut c_void,
    pub destroy: Option<unsafe extern "C" fn(*mut c_void)>,
}

/// The JSON text as a string of its own.
///
/// # Safety
/// `text` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_stats_json_owned(text: *mut ResultPtr) -> c_int {
    unsafe extern "C" fn destroy(text: *mut c_void) {
        if !text.is_null() {
            // SAFETY: the pointer came from `CString::into_raw` below, and is given up.
            drop(unsafe { CString::from_raw(text.cast()) });
        }
    }
    if text.is_null() {
        return FLAGSTONE_INVALID;
    }
    let made = guarded(None, || CString::new(json_text()).ok());
    let result = match made {
        Some(made) => ResultPtr { ptr: made.into_raw().cast(), destroy: Some(destroy) },
        None => ResultPtr { ptr: ptr::null_mut(), destroy: None },
    };
    // SAFETY: the caller's promise.
    unsafe { text.write(result) };
    if result.ptr.is_null() { FLAGSTONE_FAILED } else { FLAGSTONE_OK }
}

/// The figures of this moment.
pub(crate) fn json_text() -> String {
    json::to_value(&Snapshot::take(Heap::global())).to_string()
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

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

            let mut owned = ResultPtr { ptr: ptr::null_mut(), destroy: None };
            assert_eq!(flagstone_stats_json_owned(&mut owned), FLAGSTONE_OK);
            let text = CStr::from_ptr(owned.ptr.cast()).to_str().expect("UTF-8");
            assert!(serde_json::from_str::<Value>(text).is_ok());
            owned.destroy.expect("owned")(owned.ptr);
            assert_eq!(flagstone_stats_json_owned(ptr::null_mut()), FLAGSTONE_INVALID);
            assert_eq!(flagstone_stats(ptr::null(), ptr::null_mut()), FLAGSTONE_INVALID);
        }
    }
}
