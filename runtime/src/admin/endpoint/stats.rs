//! `/stats.json`: one snapshot as JSON, and the sections that the program added.

use std::panic::{AssertUnwindSafe, catch_unwind};

use flagstone_telemetry::json;
use serde_json::{Value, json};

use crate::admin::route::Reply;
use crate::admin::site::Site;

pub(in crate::admin) fn answer(site: &Site) -> Reply {
    let mut stats = json::to_value(&site.snapshot());
    for (name, section) in &site.sections {
        // The program's own code: one section that fails must not hide the heap.
        let value = catch_unwind(AssertUnwindSafe(|| section()))
            .unwrap_or_else(|_| json!({ "error": "this section panicked" }));
        if let Value::Object(members) = &mut stats {
            members.insert(name.clone(), value);
        }
    }
    Reply::ok("application/json", format!("{stats}\n"))
}
