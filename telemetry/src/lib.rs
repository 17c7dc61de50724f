//! One coherent snapshot of a heap, as Prometheus text and as JSON.
