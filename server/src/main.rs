//! The `flagstone` binary.

fn main() {}
