//! How a slab or a pool is built.

use std::sync::Arc;

use flagstone_epoch::Domain;

use super::core::{Core, Table};
use super::mode::Mode;
use super::pool::{Clear, Pool};
use super::slab::Slab;

/// Settings of a [`Slab`] or a [`Pool`]. Every setting has a default.
///
/// ```
/// use flagstone_epoch::Domain;
/// use flagstone_slab::typed::Slab;
///
/// let domain = Domain::new();
/// let sessions: Slab<String> = Slab::builder().limit(10_000).build(&domain);
/// assert_eq!(sessions.limit(), 10_000);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    limit: usize,
    buckets: Option<usize>,
    /// The word that new pages start from; for tests of its overflow.
    pub(super) base: u32,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self { limit: usize::MAX, buckets: None, base: 0 }
    }

    /// The most slots that the slab may have. Default, and at most, 2^31.
    ///
    /// A slot counts while it has a value, while a removed value's grace period lasts, and while a
    /// thread keeps it at hand: up to 59 for each thread that inserts, and one in 256 of a limit that is
    /// smaller than that. So a slab that several threads use may be full a little early, and never late.
    pub fn limit(mut self, slots: usize) -> Self {
        self.limit = slots;
        self
    }

    /// Buckets between which free slots are spread, 1 to 256. Default: the processors that the program
    /// may use. More of them make lock contention rarer, and a search for free slots longer.
    pub fn buckets(mut self, buckets: usize) -> Self {
        self.buckets = Some(buckets);
        self
    }

    /// Builds a slab whose values are protected by guards of `domain`. Allocates the buckets; pages
    /// come with the first insertion.
    pub fn build<T: Send + 'static>(self, domain: &Domain) -> Slab<T> {
        Slab { table: self.table(domain) }
    }

    /// Builds a slab to be shared, and [attaches](Slab::attach) it to its domain.
    pub fn build_shared<T: Send + Sync + 'static>(self, domain: &Domain) -> Arc<Slab<T>> {
        let slab = Arc::new(self.build(domain));
        slab.attach();
        slab
    }

    /// As [`build`](Self::build), for a pool.
    pub fn build_pool<T: Clear + Default + Send + 'static>(self, domain: &Domain) -> Pool<T> {
        Pool { table: self.table(domain) }
    }

    fn table<T, M: Mode<T>>(self, domain: &Domain) -> Table<T, M> {
        let buckets = self.buckets.unwrap_or_else(|| {
            if cfg!(flagstone_loom) {
                return 1;
            }
            std::thread::available_parallelism().map_or(1, usize::from)
        });
        let core = Core::new(self.limit, buckets.clamp(1, 256), self.base);
        Table { domain: domain.clone(), core: core.into(), _values: std::marker::PhantomData }
    }
}
