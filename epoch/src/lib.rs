//! Epoch domains with statistics: memory that other threads may still read is freed safely, in
//! bounded space, and visibly.
//!
//! A [`Domain`] is one collector of [crossbeam-epoch](crossbeam_epoch) with what that does not tell:
//! how many objects and bytes wait, for how long, and for whom. Threads [`register`](Domain::register)
//! as [`Participant`]s, read under a [`Guard`], and [`retire`](Participant::retire) what they have
//! unlinked. Retired objects link through themselves into a batch; one deferred function hands the
//! batch to the collector; after the grace period the batch is reclaimed.
//!
//! ```
//! use flagstone_epoch::Domain;
//! use std::ptr::NonNull;
//! use std::sync::atomic::{AtomicPtr, Ordering};
//!
//! let domain = Domain::new();
//! let config = AtomicPtr::new(Box::into_raw(Box::new(1)));
//!
//! std::thread::scope(|scope| {
//!     scope.spawn(|| {
//!         let participant = domain.register();
//!         let guard = participant.pin();
//!         // SAFETY: `config` always points to a number, and old ones are retired, not freed.
//!         let seen = unsafe { *config.load(Ordering::Acquire) };
//!         assert!(seen == 1 || seen == 2);
//!         drop(guard);
//!     });
//!     let participant = domain.register();
//!     let old = config.swap(Box::into_raw(Box::new(2)), Ordering::AcqRel);
//!     // SAFETY: `old` came from `Box::into_raw`, is unlinked, and its readers hold guards.
//!     unsafe { participant.retire_box(NonNull::new(old).unwrap()) };
//! });
//!
//! domain.collect();
//! let snapshot = domain.snapshot();
//! assert_eq!(snapshot.retired.blocks, 1);
//! assert_eq!(snapshot.pending.blocks, 0);
//! # // SAFETY: nobody shares it any more.
//! # drop(unsafe { Box::from_raw(config.into_inner()) });
//! ```
//!
//! # What is promised
//!
//! - A reader that took its guard before an object was retired never sees the object reclaimed.
//! - What is retired is reclaimed once, whatever happens to the thread that retired it.
//! - Within `try_retire`, pending bytes never pass the hard limit; a refused object comes back.
//! - Reading statistics takes no lock that a reader or retirer waits for, and costs them nothing.
//!
//! # What to mind
//!
//! - One guard that is held holds *all* retired memory. [`Domain::oldest_guard`] tells whose it is.
//! - A thread that sleeps or blocks calls [`Participant::park`] first: its open batch is its own.
//! - Registering, handing over a batch and dropping a participant allocate, inside crossbeam-epoch.
//!   Nothing here may be called from inside a global allocator. Without memory,
//!   [`Domain::try_register`] and the `try_` ways to retire refuse, batches wait, and guards go on.
//! - An object must not own a [`Domain`] or [`Participant`] of the domain that it is retired in: the
//!   two would keep each other alive.
//! - Somebody has to drive the collector: participants do so as they take guards and retire; an idle
//!   domain needs [`Domain::maintain`] from a scavenger.
//!
//! - A child of `fork` has the domain's records but not their threads: a guard that one of them held is
//!   held for ever. A child makes domains of its own.
//!
//! The fields, who may touch them, and the numbered rules that the safety comments cite are in
//! `docs/invariants/epoch.md`.
#![cfg_attr(
    flagstone_loom,
    allow(clippy::new_without_default, reason = "inner types are public for the models alone")
)]

mod barrier;
mod batch;
mod carrier;
mod domain;
mod eras;
mod grace;
mod guard;
mod guard_value;
mod held;
mod ledger;
#[cfg(not(flagstone_loom))]
mod local;
mod memory;
mod participant;
mod reclaiming;
mod registry;
mod retire;
mod stall;
mod stats;
mod sync;
mod thread_name;
mod unregistered;
mod upkeep;
mod waiting;

pub use barrier::BarrierError;
pub use batch::chunk::ReclaimUnlinked;
pub use batch::node::{Linked, Reclaim, RetireNode};
pub use carrier::{Carrier, Seat};
pub use domain::{Builder, ConfigError, Domain, Maintenance};
pub use grace::{Grace, GraceToken};
pub use guard::Guard;
pub use held::{no_guard_across_await, warn_if_guard_held};
#[cfg(not(flagstone_loom))]
pub use local::{leave_thread, park_thread};
pub use memory::OutOfMemory;
pub use participant::{NotEntered, Participant};
pub use retire::{RetireError, RetireRefusal};
pub use stall::GuardReport;
pub use stats::{GRACE_BUCKETS, GraceSnapshot, Snapshot, Tally};
pub use upkeep::Upkeep;
pub use waiting::GraceWait;

/// The crate's own protocols, for the models in `loom_tests`. No part of the interface.
#[cfg(flagstone_loom)]
#[doc(hidden)]
pub mod protocol {
    pub use crate::eras::{Drain, Era, Eras};
    pub use crate::grace::Periods;
    pub use crate::ledger::Ledger;
    pub use crate::registry::{Record, Registry};
    pub use crate::stats::Counter;
    pub use crate::waiting::Waiters;
}
