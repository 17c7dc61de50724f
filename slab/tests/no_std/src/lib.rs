//! What a program needs that has nothing below it: a way in, a way out, and the four functions that
//! compilers call by themselves.
//!
//! Owns the entry point `_start`, which calls the program's `program_main` and exits with what that
//! returns; a panic exits with 101. Linux on x86-64 and AArch64.

#![no_std]
#![no_builtins]

use core::arch::asm;
use core::panic::PanicInfo;

unsafe extern "Rust" {
    safe fn program_main() -> u8;
}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call {start}",
    "ud2",
    start = sym start,
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "bl {start}",
    "brk #1",
    start = sym start,
);

extern "C" fn start() -> ! {
    exit(program_main())
}

/// Ends the process.
pub fn exit(status: u8) -> ! {
    // SAFETY: the system call takes a number and does not come back.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", in("rax") 231, in("rdi") u64::from(status), options(noreturn, nostack))
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc #0", in("x8") 94, in("x0") u64::from(status), options(noreturn, nostack))
    }
}

/// Writes to standard output.
pub fn print(text: &[u8]) {
    // SAFETY: the system call reads the text and nothing else.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", inlateout("rax") 1usize => _, in("rdi") 1, in("rsi") text.as_ptr(),
            in("rdx") text.len(), out("rcx") _, out("r11") _, options(nostack, readonly))
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc #0", in("x8") 64, inlateout("x0") 1usize => _, in("x1") text.as_ptr(),
            in("x2") text.len(), options(nostack, readonly))
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(101)
}

/// Named by the tables of the prebuilt `alloc`; nothing unwinds here, so nobody calls it.
#[unsafe(no_mangle)]
pub extern "C" fn rust_eh_personality() -> ! {
    exit(102)
}

/// # Safety
/// As C's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    for i in 0..bytes {
        // SAFETY: the caller's contract.
        unsafe { to.add(i).write(from.add(i).read()) };
    }
    to
}

/// # Safety
/// As C's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= bytes {
        // SAFETY: the caller's contract; going up reads each byte before it is overwritten.
        return unsafe { memcpy(to, from, bytes) };
    }
    for i in (0..bytes).rev() {
        // SAFETY: the caller's contract.
        unsafe { to.add(i).write(from.add(i).read()) };
    }
    to
}

/// # Safety
/// As C's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, byte: i32, bytes: usize) -> *mut u8 {
    for i in 0..bytes {
        // SAFETY: the caller's contract.
        unsafe { to.add(i).write(byte as u8) };
    }
    to
}

/// # Safety
/// As C's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, bytes: usize) -> i32 {
    for i in 0..bytes {
        // SAFETY: the caller's contract.
        let (a, b) = unsafe { (a.add(i).read(), b.add(i).read()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}
