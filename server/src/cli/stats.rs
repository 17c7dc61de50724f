//! `flagstone stats`: the figures of `/stats.json` of a running server, as a table or as they come.
//!
//! The table is a flat list of paths and numbers, so that it shows whatever the server does, with
//! nothing to keep in step.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;

use hyper::Method;
use hyper::body::Bytes;
use serde_json::Value;

use super::ask::ask;
use crate::settings::Settings;

/// What can be said on the command line.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// The server's admin address [default: 127.0.0.1:9600]
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Print the JSON as the server sends it
    #[arg(long)]
    json: bool,
}

/// Asks the server and prints.
pub(super) fn run(flags: &Flags) -> Result<(), Box<dyn Error>> {
    let admin = flags.admin.unwrap_or(Settings::default().admin);
    let body = ask(admin, Method::GET, "/stats.json")?;
    print(admin, "/stats.json", &body, flags.json)
}

/// Prints a reply as it came, or as a table.
pub(super) fn print(
    admin: SocketAddr,
    path: &str,
    body: &Bytes,
    as_json: bool,
) -> Result<(), Box<dyn Error>> {
    let text = if as_json {
        String::from_utf8_lossy(body).into_owned()
    } else {
        let stats: Value = serde_json::from_slice(body)
            .map_err(|error| format!("http://{admin}{path}: {error}"))?;
        table(&stats)
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever read this has had enough (`flagstone stats | head`).
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// One line per number or text, the path in front.
fn table(stats: &Value) -> String {
    let mut rows = Vec::new();
    flatten(String::new(), stats, &mut rows);
    let width = rows.iter().map(|(path, _)| path.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (path, value) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{path:<width$}  {value}");
    }
    text
}

fn flatten(path: String, value: &Value, rows: &mut Vec<(String, String)>) {
    let below =
        |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                flatten(below(name), value, rows);
            }
        }
        Value::Array(items) => {
            for (i, value) in items.iter().enumerate() {
                flatten(below(&i.to_string()), value, rows);
            }
        }
        Value::String(text) => rows.push((path, text.clone())),
        Value::Null => rows.push((path, "-".to_owned())),
        Value::Number(_) | Value::Bool(_) => rows.push((path, value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_has_a_line_for_every_figure() {
        let text = table(&json!({
            "heap": { "live": 5, "classes": [{ "block": 16 }, { "block": 32 }] },
            "name": "global",
            "resident": null,
            "ok": true,
        }));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 6);
        assert!(text.contains("heap.classes.1.block  32"), "{text}");
        assert!(text.contains("heap.live             5"), "{text}");
        assert!(text.contains("resident              -"), "{text}");
    }
}
