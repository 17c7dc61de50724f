//! `/metrics`: one snapshot, and what the program emits, as Prometheus text.

use flagstone_telemetry::prometheus::CONTENT_TYPE;

use crate::admin::route::Reply;
use crate::admin::site::Site;

pub(in crate::admin) fn answer(site: &Site) -> Reply {
    Reply::ok(CONTENT_TYPE, site.exporter.render(&site.snapshot(), site.options))
}
