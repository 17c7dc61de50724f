//! The calling thread and its shard of the global heap.
//!
//! Owns the thread-local pointer. Protocol: `shard` is what the fast paths use: the thread's leased
//! shard or the sentinel. `home` is the shard the thread parked and may take back. A thread leases on
//! its first slow path and gives back when it ends (`Phase::Ended`: later calls, from destructors that
//! run after ours, use the bucket tier and post single frees).
//!
//! The cell is a `const` thread-local without a destructor. On x86-64 Linux it lies in the static
//! thread-local block instead, see `initial_exec`: reading it is then one load wherever the code is
//! inlined to, and never a call, which in a shared library could allocate.

use std::cell::Cell;
use std::ptr;

use super::leases::{NO_TABLE, Table};
use super::{Heap, leases};
use crate::os;
use crate::shard::Shard;
use crate::shard::lease::{LeaseWord, Unpark};

#[cfg(all(
    target_os = "linux",
    target_arch = "x86_64",
    target_pointer_width = "64",
    not(any(miri, flagstone_loom))
))]
mod initial_exec;
#[cfg(all(
    target_os = "linux",
    target_arch = "x86_64",
    target_pointer_width = "64",
    not(any(miri, flagstone_loom))
))]
use initial_exec::LOCAL;

#[cfg(not(all(
    target_os = "linux",
    target_arch = "x86_64",
    target_pointer_width = "64",
    not(any(miri, flagstone_loom))
)))]
crate::sync::per_thread! {
    static LOCAL: Local = const {
        Local {
            shard: Cell::new(Shard::sentinel()),
            home: Cell::new(ptr::null()),
            phase: Cell::new(Phase::Running),
            table: Cell::new(&raw const NO_TABLE),
        }
    };
}

#[cfg(not(all(
    target_os = "linux",
    target_arch = "x86_64",
    target_pointer_width = "64",
    not(any(miri, flagstone_loom))
)))]
trait FastCell {
    fn shard(&'static self) -> *const Shard;
    fn table(&'static self) -> *const Table;
}

#[cfg(not(all(
    target_os = "linux",
    target_arch = "x86_64",
    target_pointer_width = "64",
    not(any(miri, flagstone_loom))
)))]
impl FastCell for crate::sync::LocalKey<Local> {
    #[inline(always)]
    fn shard(&'static self) -> *const Shard {
        self.with(|local| local.shard.get())
    }

    #[inline(always)]
    fn table(&'static self) -> *const Table {
        self.with(|local| local.table.get())
    }
}

/// What a thread knows. Laid out in this order for `initial_exec`.
#[repr(C)]
struct Local {
    shard: Cell<*const Shard>,
    home: Cell<*const Shard>,
    phase: Cell<Phase>,
    /// Its shards of heap instances.
    table: Cell<*const Table>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
enum Phase {
    /// May lease. Nobody will be told when the thread ends.
    Running = 0,
    /// May lease; the exit hook is set.
    Armed,
    /// The exit hook has run.
    Ended,
}

/// The thread's shard, or the sentinel.
#[inline(always)]
pub(crate) fn shard() -> &'static Shard {
    let shard = LOCAL.shard();
    // SAFETY: the cell holds the sentinel or a leased shard; neither is ever freed.
    unsafe { &*shard }
}

/// The thread's table of leases, for [`leases`].
#[inline(always)]
pub(super) fn table() -> *const Table {
    LOCAL.table()
}

/// Changes it.
pub(super) fn set_table(table: *const Table) {
    LOCAL.with(|local| local.table.set(table));
}

/// The thread's shard after all that can be done to have one: leases one, takes the parked one back.
/// `None` while the scavenger has it, when every shard is taken, and after the thread's end.
#[cold]
#[inline(never)]
pub(crate) fn acquire() -> Option<&'static Shard> {
    LOCAL.with(|local| {
        let shard = shard();
        if !shard.is_sentinel() {
            return Some(shard);
        }
        // SAFETY: as in `shard`.
        if let Some(home) = unsafe { local.home.get().as_ref() } {
            if home.lease.try_unpark() == Unpark::Claimed {
                return None;
            }
            local.shard.set(home);
            return Some(home);
        }
        if !arm() {
            return None;
        }
        // Arming may allocate; if that came here, it leased.
        if !local.home.get().is_null() {
            return acquire();
        }
        let heap = Heap::global();
        let shard = heap.shards.lease(heap.key(), heap.backing, &heap.threshold)?;
        local.home.set(shard);
        local.shard.set(shard);
        Some(shard)
    })
}

/// The shard that the thread allocates from and the one it may take back, where it has them.
pub(super) fn leased() -> (Option<&'static Shard>, Option<&'static Shard>) {
    let shard = shard();
    // SAFETY: as in `shard`.
    let home = LOCAL.with(|local| unsafe { local.home.get().as_ref() });
    ((!shard.is_sentinel()).then_some(shard), home)
}

/// In a forked child: a parked shard that somebody had claimed is lost to its thread too.
pub(super) fn forget_orphaned_home() {
    LOCAL.with(|local| {
        // SAFETY: as in `shard`.
        if let Some(home) = unsafe { local.home.get().as_ref() }
            && home.lease.word() == LeaseWord::ORPHANED
        {
            local.home.set(ptr::null());
        }
    });
}

/// Sees to it that the thread's end gives back what it has; whether it can have anything. A shard
/// leased without this would stay leased when the thread is gone.
///
/// Arming may allocate on some systems, through us: the nested call finds the phase set and goes on.
pub(crate) fn arm() -> bool {
    LOCAL.with(|local| match local.phase.get() {
        Phase::Armed => true,
        Phase::Ended => false,
        Phase::Running => {
            local.phase.set(Phase::Armed);
            let armed = os::arm_thread_exit(on_exit);
            if armed {
                super::fork::arm();
            } else {
                leases::give_back();
                give_back();
                local.phase.set(Phase::Ended);
            }
            armed
        }
    })
}

/// Steps back from the shard, which may be taken back later. See [`crate::thread::park`].
pub(crate) fn park() {
    LOCAL.with(|local| {
        let shard = shard();
        if shard.is_sentinel() {
            return;
        }
        Heap::global().settle(shard);
        local.shard.set(Shard::sentinel());
        shard.counters.parks.add(1);
        shard.resting_since.set(os::coarse_millis());
        shard.lease.park();
    })
}

/// Posts what the shard has gathered and takes back what was posted to it, leased or parked. See
/// [`crate::thread::flush`].
pub(crate) fn flush() {
    match leased() {
        (Some(shard), _) => Heap::global().settle(shard),
        (None, Some(home)) => Heap::global().settle_parked(home),
        (None, None) => {}
    }
}

/// Gives the shard back, leased or parked. See [`crate::thread::give_back`].
pub(crate) fn give_back() {
    LOCAL.with(|local| {
        // SAFETY: as in `shard`.
        let Some(home) = (unsafe { local.home.get().as_ref() }) else { return };
        if !shard().is_sentinel() || home.lease.try_unpark() == Unpark::Taken {
            let heap = Heap::global();
            heap.settle(home);
            // SAFETY: the thread has the lease until the end of this function.
            unsafe { heap.return_empty_slabs(home, os::coarse_millis()) };
            home.resting_since.set(os::coarse_millis());
        }
        local.shard.set(Shard::sentinel());
        local.home.set(ptr::null());
        home.lease.give_back();
    })
}

extern "C" fn on_exit(_: *mut libc::c_void) {
    LOCAL.with(|local| local.phase.set(Phase::Ended));
    leases::end();
    give_back();
}

/// A thread of a model ends: what the system does for others (see `os::arm_thread_exit`).
#[cfg(flagstone_loom)]
pub(crate) fn end_thread() {
    on_exit(ptr::null_mut());
}
