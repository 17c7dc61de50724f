//! Retire batches: from single objects to one deferred function.
//!
//! [`node`] is the link inside an object, [`chunk`] the link for objects that have none, [`open`] the
//! batch that a participant still adds to, [`sealed`] the one that crossbeam-epoch holds.

pub(crate) mod chunk;
pub(crate) mod node;
pub(crate) mod open;
pub(crate) mod sealed;
