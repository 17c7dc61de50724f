//! `/healthz`: whether the program's own checks pass.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hyper::StatusCode;

use crate::admin::route::Reply;
use crate::admin::site::Site;

pub(in crate::admin) fn answer(site: &Site) -> Reply {
    let mut ills = String::new();
    for check in &site.health {
        let result = catch_unwind(AssertUnwindSafe(|| check()));
        if let Err(ill) = result.unwrap_or_else(|_| Err("a check panicked".to_owned())) {
            ills.push_str(&ill);
            ills.push('\n');
        }
    }
    if ills.is_empty() {
        Reply::text(StatusCode::OK, "ok\n")
    } else {
        Reply::text(StatusCode::SERVICE_UNAVAILABLE, ills)
    }
}
