//! How the parts of the runtime hold the heap that they look after.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use flagstone_slab::Heap;

/// A shared hold on a heap: the global one, or an instance behind an `Arc`.
#[derive(Clone)]
pub(crate) struct HeapRef(Arc<dyn Deref<Target = Heap> + Send + Sync>);

impl HeapRef {
    pub(crate) fn new(heap: impl Deref<Target = Heap> + Send + Sync + 'static) -> Self {
        Self(Arc::new(heap))
    }
}

impl Default for HeapRef {
    fn default() -> Self {
        Self::new(Heap::global())
    }
}

impl Deref for HeapRef {
    type Target = Heap;

    fn deref(&self) -> &Heap {
        &self.0
    }
}

impl fmt::Debug for HeapRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HeapRef").finish_non_exhaustive()
    }
}
