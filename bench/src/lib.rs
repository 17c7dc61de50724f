//! Flagstone measured beside its peers.
