//! Counts instructions by single-stepping a worker: for allocators that callgrind cannot run.
//!
//! The worker marks the counted part with `SIGUSR1` at both ends (`pair-count` with `marked=1`). The
//! tracer lets it run to the first mark, steps it instruction by instruction to the second, and
//! lets it go. A step costs microseconds, a call into the kernel counts as one instruction.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use libc::{c_int, c_void, pid_t};

/// Instructions that the process of `command` executes between its two marks, in user mode.
pub fn instructions(mut command: Command) -> io::Result<u64> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: between fork and exec the closure makes one system call, which allocates nothing.
    unsafe {
        command.pre_exec(|| trace(libc::PTRACE_TRACEME, 0, 0));
    }
    let mut tracee = Tracee { child: command.spawn()?, detached: false };
    let pid = tracee.pid();
    expect_stop(pid, &[libc::SIGTRAP])?;
    trace(libc::PTRACE_CONT, pid, 0)?;
    expect_stop(pid, &[MARK])?;
    let mut steps = 0;
    loop {
        // The mark itself is not delivered: it would end the process.
        trace(libc::PTRACE_SINGLESTEP, pid, 0)?;
        if expect_stop(pid, &[libc::SIGTRAP, MARK])? == MARK {
            break;
        }
        steps += 1;
    }
    trace(libc::PTRACE_DETACH, pid, 0)?;
    tracee.detached = true;
    let status = tracee.child.wait()?;
    if status.success() { Ok(steps) } else { Err(io::Error::other(status.to_string())) }
}

/// The signal at both ends of the counted part.
const MARK: c_int = libc::SIGUSR1;

/// Ends the process if its tracing fails on the way.
struct Tracee {
    child: Child,
    detached: bool,
}

impl Tracee {
    fn pid(&self) -> pid_t {
        self.child.id() as pid_t
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        if !self.detached {
            // It may have ended by itself; there is nothing to do about either error.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Waits until the process stops, and returns the signal, which must be one of `expected`.
fn expect_stop(pid: pid_t, expected: &[c_int]) -> io::Result<c_int> {
    let mut status = 0;
    // SAFETY: the pointer is to a value that lives through the call; the process is a child of
    // this thread.
    if unsafe { libc::waitpid(pid, &mut status, 0) } != pid {
        return Err(io::Error::last_os_error());
    }
    if !libc::WIFSTOPPED(status) {
        return Err(io::Error::other("the process ended before its second mark"));
    }
    let signal = libc::WSTOPSIG(status);
    if expected.contains(&signal) {
        Ok(signal)
    } else {
        Err(io::Error::other(format!("the process was stopped by signal {signal}")))
    }
}

fn trace(request: libc::c_uint, pid: pid_t, signal: usize) -> io::Result<()> {
    let none = std::ptr::null_mut::<c_void>();
    // SAFETY: the requests used here take no address, and a signal number or nothing as data.
    let rc = unsafe { libc::ptrace(request, pid, none, signal as *mut c_void) };
    if rc == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
