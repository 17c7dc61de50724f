//! The calling thread and its shards: of the global heap, and of the instances it uses.
//!
//! Owns nothing; the state is in `heap::local`, `heap::leases` and `heap::members`, and with the epoch
//! domains that the thread has joined. None of these functions panics or blocks, and none allocates but for a thread that
//! has retired something. A thread
//! needs none of them: its first allocation leases a shard and its end gives it back. A runtime calls
//! them so that sleeping workers hold no memory hostage.

use crate::heap::{leases, local, members};

/// What asking for a shard gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum Lease {
    /// The thread has the shard of this number now.
    Shard(usize),
    /// No shard can be had right now: the bucket tier serves the thread, correctly and counted.
    Buckets,
}

/// Takes a shard for the calling thread now instead of at its first allocation.
pub fn lease() -> Lease {
    match local::acquire() {
        Some(shard) => Lease::Shard(shard.index as usize),
        None => Lease::Buckets,
    }
}

/// The thread is about to sleep: posts what it has gathered for other owners, takes back what
/// others posted to it, and steps back from its shard, which the scavenger may then visit.
///
/// The next allocation takes the shard back by itself; there is no call for waking up.
///
/// What the thread has retired in domains that it has joined
/// ([`Domain::local`](flagstone_epoch::Domain::local)) is handed over as well, and typed slabs that are
/// [attached](crate::typed::Slab::attach) to them take back the free slots that they keep for it.
pub fn park() {
    members::park();
    #[cfg(not(flagstone_loom))]
    flagstone_epoch::park_thread();
    leases::park();
    local::park();
}

/// Gives the shard back, empty slabs first; the next thread that needs one adopts it with all its
/// slabs. A later allocation of the calling thread leases again. The end of a thread does this by
/// itself. The thread leaves the domains that it has joined.
pub fn give_back() {
    members::leave_all();
    #[cfg(not(flagstone_loom))]
    flagstone_epoch::leave_thread();
    leases::give_back();
    local::give_back();
}

/// Posts what the thread has gathered for other owners and takes back what others posted to it. A thread
/// that has [parked](park) stays so; if the scavenger is at its shard just now, that one takes back.
pub fn flush() {
    leases::flush();
    local::flush();
}

/// The number of the shard that the thread has right now, if any.
pub fn shard() -> Option<usize> {
    let shard = local::shard();
    (!shard.is_sentinel()).then_some(shard.index as usize)
}
