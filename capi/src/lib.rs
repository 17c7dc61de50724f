//! C interface of the allocator.
