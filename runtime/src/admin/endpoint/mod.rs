//! The endpoints, one file each: from the shared state to a reply.

pub(super) mod healthz;
pub(super) mod index;
pub(super) mod metrics;
pub(super) mod purge;
pub(super) mod stats;
