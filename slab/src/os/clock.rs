//! Monotonic time, cheap and allocation-free.
//!
//! Owns nothing. [`nanos`] is exact and costs a vDSO call; [`coarse_millis`] has the kernel tick's
//! resolution (1-4 ms) and costs a load or two, for decay
//! decisions. Time stands still in a model: it would make its executions differ.

/// Nanoseconds of the monotonic clock.
pub(crate) fn nanos() -> u64 {
    if cfg!(flagstone_loom) {
        return 0;
    }
    let t = read(libc::CLOCK_MONOTONIC);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Milliseconds of the monotonic clock, from some start, modulo 2^32 (49 days); differences are
/// taken with wrapping arithmetic.
pub(crate) fn coarse_millis() -> u32 {
    if cfg!(flagstone_loom) {
        return 0;
    }
    #[cfg(target_os = "linux")]
    let t = read(libc::CLOCK_MONOTONIC_COARSE);
    #[cfg(not(target_os = "linux"))]
    let t = read(libc::CLOCK_MONOTONIC);
    (t.tv_sec as u64 * 1_000 + t.tv_nsec as u64 / 1_000_000) as u32
}

fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid place for a timespec; a refused clock leaves the zeros in it.
    unsafe { libc::clock_gettime(clock, &mut t) };
    t
}
