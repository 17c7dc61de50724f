//! Loom models over the public protocols of the layers below.
