//! Typed slabs: values by key instead of by pointer, for connections, sessions, requests in flight.
//!
//! A [`Slab`] hands out a [`Key`] for each value. A key is copied, sent and stored like a number, and
//! when its value is gone it is a miss: never another value, never freed memory. Readers hold a
//! [`Guard`](flagstone_epoch::Guard) of the slab's domain and get plain references; nothing is counted,
//! nothing is locked. A [`Pool`] does the same for objects that are cleared and used again.
//!
//! ```
//! use flagstone_epoch::Domain;
//! use flagstone_slab::typed::Slab;
//!
//! let domain = Domain::new();
//! let slab: Slab<String> = Slab::new(&domain);
//!
//! let participant = domain.register(); // once for each thread
//! let guard = participant.pin(); // once for each request, say
//! let key = slab.insert(String::from("one"), &guard);
//! assert_eq!(slab.get(key, &guard).map(String::as_str), Some("one"));
//!
//! std::thread::scope(|scope| {
//!     scope.spawn(|| {
//!         let participant = domain.register();
//!         assert!(slab.remove(key, &participant.pin()));
//!     });
//! });
//! assert!(slab.get(key, &guard).is_none());
//! ```
//!
//! # How it works
//!
//! A key is the number of a slot and the state that the slot's word had; the word counts up at every
//! insertion and removal, so it never has the same state twice. A lookup goes from the number to the
//! page, from the page to the slot, and compares. A slot whose word cannot count further is out of use
//! for good, after 2^31 values.
//!
//! Each thread inserts from a *shard* of its own, which holds up to 59 free slots. Removed slots
//! collect in the remover's *limbo* and are retired together; after the grace period their values are
//! dropped, and they go into a *bucket*, from which shards are filled: theirs by preference, any other
//! before the slab grows. Pages that have become free altogether go back to the allocator. Who may
//! touch what when is in `docs/invariants/typed.md`.
//!
//! # From sharded-slab
//!
//! | `sharded_slab` | here |
//! |---|---|
//! | `Slab::new()` | [`Slab::new(&domain)`](Slab::new) |
//! | `Slab::new_with_config::<C>()`, `trait Config` | [`Slab::builder()`](Slab::builder); there is no limit of threads or of pages to choose |
//! | key: `usize` | [`Key`]: 64 bits with a niche, not made from integers in safe code |
//! | `slab.insert(value) -> Option<usize>` | [`slab.insert(value, &guard) -> Key`](Slab::insert); [`try_insert`](Slab::try_insert) gives the value back |
//! | `slab.vacant_entry()` | [`slab.vacant_entry(&guard)`](Slab::vacant_entry) |
//! | `slab.get(key) -> Option<Entry>` | [`slab.get(key, &guard) -> Option<&T>`](Slab::get) |
//! | `slab.get_owned(key)` on an `Arc<Slab>` | store an `Arc` in the slab and clone it under the guard |
//! | `slab.contains(key)` | [`slab.contains(key, &guard)`](Slab::contains) |
//! | `slab.remove(key)`: dropped with the last `Entry` | [`slab.remove(key, &guard)`](Slab::remove): dropped after the grace period |
//! | `slab.take(key) -> Option<T>`: spins for readers | none: readers are never waited for. An `Option` in a lock inside the value can be taken |
//! | `slab.unique_iter()` on `&mut Slab` | [`slab.iter(&guard)`](Slab::iter), while others go on; [`slab.iter_mut()`](Slab::iter_mut) |
//! | `Pool::create()`, `create_with(f)` | [`Pool::create(&guard)`](Pool::create), [`create_with`](Pool::create_with) |
//! | `PoolGuard` | `&T` under the guard, from [`Pool::get`] |
//! | `pool.clear(key)` | [`pool.clear(key, &guard)`](Pool::clear) |
//! | `trait Clear` | [`trait Clear`](Clear) |
//! | pages stay until the slab is dropped | pages are returned: by themselves when many are free, or by [`maintain`](Slab::maintain) |
//! | `len`: none | [`len`](Slab::len), [`stats`](Slab::stats) |
//!
//! # What to mind
//!
//! - The guard must be of the slab's own domain; any other is a panic.
//! - Values may be dropped on any thread and later than the slab: `T: Send + 'static`. To share a slab
//!   needs `T: Sync` as well, for readers on several threads have the same value:
//!
//!   ```compile_fail,E0277
//!   fn share(_: &(impl Sync + ?Sized)) {}
//!   let domain = flagstone_epoch::Domain::new();
//!   share(&flagstone_slab::typed::Slab::<std::cell::Cell<u8>>::new(&domain));
//!   ```
//!
//!   ```compile_fail,E0277
//!   let domain = flagstone_epoch::Domain::new();
//!   flagstone_slab::typed::Slab::<std::rc::Rc<u8>>::new(&domain);
//!   ```
//!
//! - A guard that is held keeps every value removed meanwhile, and its slot.
//! - A value must not own a participant or the domain of its own slab: they would keep each other alive.
//! - A thread that sleeps for long calls [`park`](Slab::park), so that its free slots do not sleep too;
//!   somebody calls [`maintain`](Slab::maintain) from time to time. For a slab that is
//!   [attached](Slab::attach) to its domain, `Participant::park` and `Domain::maintain` do so, which
//!   Flagstone's runtime calls.

mod atomic_key;
mod bucket;
mod chunk;
mod config;
mod core;
mod directory;
mod error;
mod iter;
mod key;
mod mode;
mod pool;
mod removal;
mod shard;
mod slab;
mod slot;
mod stats;
mod supply;
mod trim;
mod upkeep;
mod vacant;
mod word;

#[cfg(all(test, not(flagstone_loom)))]
mod tests;

pub use self::atomic_key::AtomicKey;
pub use self::config::Builder;
pub use self::error::{InsertError, NoSlot, OutOfMemory};
pub use self::iter::{Iter, IterMut};
pub use self::key::Key;
pub use self::pool::{Clear, Fresh, Pool};
pub use self::slab::Slab;
pub use self::stats::Stats;
pub use self::trim::Returned;
pub use self::vacant::VacantEntry;

/// Protocols without the rest, for models.
#[cfg(flagstone_loom)]
pub(crate) mod protocol {
    pub use super::directory::{Directory, PagePointer};
    pub use super::word::{Removal, SlotWord};
}
