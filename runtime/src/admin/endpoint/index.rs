//! `/`: what there is.

use std::fmt::Write as _;

use crate::admin::route::{ROUTES, Reply};

pub(in crate::admin) fn answer() -> Reply {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Flagstone</title>\n\
         <h1>Flagstone</h1>\n<ul>\n",
    );
    for route in &ROUTES {
        // Writing to a string does not fail.
        let _ = writeln!(page, "<li><a href=\"{0}\">{0}</a>: {1}</li>", route.path, route.shows);
    }
    page.push_str("</ul>\n</html>\n");
    Reply::ok("text/html; charset=utf-8", page)
}
