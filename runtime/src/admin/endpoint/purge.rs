//! `/purge`: every free page back to the system, and a report of what went and what could not.

use flagstone_telemetry::json;

use crate::admin::route::Reply;
use crate::admin::site::Site;
use crate::thread;

pub(in crate::admin) fn answer(site: &Site) -> Reply {
    let report = json::purge(&site.purge());
    let reply = Reply::ok("application/json", format!("{report}\n"));
    // This thread may sleep for long now, with what it allocated here.
    thread::park();
    reply
}
