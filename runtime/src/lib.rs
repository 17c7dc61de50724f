//! The crate that users add: facade over the layers below and their Tokio integration.
