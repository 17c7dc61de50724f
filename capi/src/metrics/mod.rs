//! `/metrics` and `/stats.json` from inside any program, by a blocking thread of the library's own.
//!
//! Owns the listener and its thread. Nothing opens unless `FLAGSTONE_METRICS` or
//! `flagstone_metrics_serve` asks for it. Protocol: one connection at a time, each short
//! ([`http`]). A forked child closes its copy of the listener; it has the setting's `%p` to get a
//! socket of its own at once, or asks by the call.

mod http;
mod place;

use std::ffi::{CStr, c_char, c_int};
use std::os::fd::RawFd;
use std::sync::{Mutex, PoisonError};

use flagstone_telemetry::prometheus::Exporter;
pub(crate) use place::Place;

use crate::{FLAGSTONE_FAILED, FLAGSTONE_INVALID, FLAGSTONE_OK, background, guarded};

/// Bytes of the thread's stack: a snapshot as text is made on the heap.
const STACK_BYTES: usize = 512 << 10;

/// What this process serves.
struct Serving {
    listener: RawFd,
    place: Place,
    /// The socket's file, to be removed at exit.
    file: Option<std::path::PathBuf>,
}

static SERVING: Mutex<Option<Serving>> = Mutex::new(None);

/// Why nothing is served.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// This process serves already.
    Already,
    /// The system said no.
    Io(std::io::Error),
    /// No thread could be started.
    Thread,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Already => f.write_str("this process serves already"),
            Self::Io(error) => error.fmt(f),
            Self::Thread => f.write_str("no thread could be started"),
        }
    }
}

/// Opens the place and starts the thread that answers there.
pub(crate) fn serve(place: &Place) -> Result<(), Refusal> {
    let mut serving = SERVING.lock().unwrap_or_else(PoisonError::into_inner);
    if serving.is_some() {
        return Err(Refusal::Already);
    }
    let (listener, file) = place.open().map_err(Refusal::Io)?;
    let raw = listener.raw();
    if !background::start(c"flagstone-http", STACK_BYTES, move || {
        let exporter = Exporter::local();
        loop {
            listener.answer_one(|stream| http::answer(stream, &exporter));
        }
    }) {
        return Err(Refusal::Thread);
    }
    *serving = Some(Serving { listener: raw, place: place.clone(), file });
    Ok(())
}

/// Serves as the environment asks, in this process and in children that it forks.
pub(crate) fn arrange(place: &Place) {
    serve_or_complain(place);
    // SAFETY: the handler has the type the call wants. A refusal leaves children with a copy of the
    // listener that nobody answers.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
}

fn serve_or_complain(place: &Place) {
    if let Err(refusal) = serve(place) {
        let line = format!("flagstone: metrics are not served at {place}: {refusal}\n");
        // SAFETY: the line is valid for its length.
        unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
    }
}

unsafe extern "C" fn in_child() {
    guarded((), || {
        // Held only while the parent was in the middle of `serve`: then the child does not serve.
        let Ok(mut serving) = SERVING.try_lock() else { return };
        let Some(Serving { listener, place, .. }) = serving.take() else { return };
        drop(serving);
        // SAFETY: the descriptor is the child's copy, and its thread is not here.
        unsafe { libc::close(listener) };
        if place.is_per_process() {
            serve_or_complain(&place);
        }
    });
}

/// Removes the socket's file, if there is one. At exit.
pub(crate) fn clean_up() {
    if let Ok(serving) = SERVING.try_lock()
        && let Some(file) = serving.as_ref().and_then(|serving| serving.file.as_ref())
    {
        let _ = std::fs::remove_file(file);
    }
}

/// Serves `/metrics` and `/stats.json` at a place, as `FLAGSTONE_METRICS` would.
///
/// # Safety
/// `place` is null or a string that ends in NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_metrics_serve(place: *const c_char) -> c_int {
    if place.is_null() {
        return FLAGSTONE_INVALID;
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(place) };
    guarded(FLAGSTONE_FAILED, || {
        let Some(place) = text.to_str().ok().and_then(Place::parse) else {
            return FLAGSTONE_INVALID;
        };
        serve(&place).map_or(FLAGSTONE_FAILED, |()| FLAGSTONE_OK)
    })
}
