//! The thread's cell in the static thread-local block.
//!
//! Owns 32 bytes of `.tdata` under a hidden name. A `thread_local!` of a shared library is found by
//! calling `__tls_get_addr`, which costs more than an allocation and may itself allocate; one of an
//! executable is a load, but only where the compiler chooses to inline the accessor of another crate,
//! and it does not always: the call took 15 % of an allocate/free pair. The
//! initial-exec model reads the cell's offset from the global offset table and then the cell: two
//! loads. The linker turns the first into a constant where the library ends up in an executable.
//! Libraries loaded later by `dlopen` may have such a cell too as long as it is small: glibc keeps
//! a surplus (some hundred bytes) in each thread's static block for that.
//!
//! Stable Rust has no attribute for the model, hence the assembly. The name carries the crate's
//! version, so that two versions in one program have a cell each.

use std::arch::{asm, global_asm};

use super::{Local, NO_TABLE, Shard, Table};
use crate::shard::imp::SENTINEL;

/// The cell's name in the object file.
macro_rules! cell {
    () => {
        concat!("__flagstone_local_", env!("CARGO_PKG_VERSION"))
    };
}

// The initial value: no shard yet, so the sentinel; no home; `Phase::Running`; no
// table of leases.
global_asm!(
    ".pushsection .tdata.flagstone_local, \"awT\", @progbits",
    concat!(".globl \"", cell!(), "\""),
    concat!(".hidden \"", cell!(), "\""),
    concat!(".type \"", cell!(), "\", @object"),
    concat!(".size \"", cell!(), "\", 32"),
    ".p2align 3",
    concat!("\"", cell!(), "\":"),
    ".quad {sentinel}",
    ".quad 0",
    ".quad 0",
    ".quad {no_table}",
    ".popsection",
    sentinel = sym SENTINEL,
    no_table = sym NO_TABLE,
);

const _: () = {
    assert!(size_of::<Local>() == 32 && align_of::<Local>() == 8);
    assert!(std::mem::offset_of!(Local, shard) == 0 && std::mem::offset_of!(Local, table) == 24);
    assert!(super::Phase::Running as usize == 0);
};

/// Stands in for the thread-local.
pub(super) static LOCAL: Cell = Cell;

pub(super) struct Cell;

impl Cell {
    /// The first field of the calling thread's cell.
    #[inline(always)]
    pub(super) fn shard(&self) -> *const Shard {
        let shard: *const Shard;
        // SAFETY: the first instruction reads the offset of our symbol from the thread pointer, which
        // does not change while the program runs (the linker makes it a constant in executables);
        // the second reads the field there, which lives as long as the thread.
        unsafe {
            asm!(
                concat!("mov {word}, qword ptr [rip + \"", cell!(), "\"@GOTTPOFF]"),
                "mov {word}, qword ptr fs:[{word}]",
                word = out(reg) shard,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        shard
    }

    /// The last field of the calling thread's cell.
    #[inline(always)]
    pub(super) fn table(&self) -> *const Table {
        let table: *const Table;
        // SAFETY: as in `shard`; the field lies 24 bytes into the cell.
        unsafe {
            asm!(
                concat!("mov {word}, qword ptr [rip + \"", cell!(), "\"@GOTTPOFF]"),
                "mov {word}, qword ptr fs:[{word} + 24]",
                word = out(reg) table,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        table
    }

    /// Runs `f` with the calling thread's cell, as `LocalKey::with` does.
    #[inline(always)]
    pub(super) fn with<R>(&self, f: impl FnOnce(&Local) -> R) -> R {
        let address: *const Local;
        // SAFETY:
        // 1. the first instruction reads the offset of our symbol from the global offset table; it
        //    does not change while the program runs, so the block is pure;
        // 2. on x86-64 the word at `fs:0` is the address of the thread's block itself.
        unsafe {
            asm!(
                concat!("mov {at}, qword ptr [rip + \"", cell!(), "\"@GOTTPOFF]"),
                "add {at}, qword ptr fs:[0]",
                at = out(reg) address,
                options(pure, readonly, nostack),
            );
        }
        // SAFETY: the cell is initialised from the image above when the thread starts, lives until
        // it ends, and is only reached from this thread.
        f(unsafe { &*address })
    }
}
