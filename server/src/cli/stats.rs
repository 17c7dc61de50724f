//! `flagstone stats`: the figures of `/stats.json` of a running server, as a table or as they come.
//!
//! The table is a flat list of paths and numbers, so that it shows whatever the server does, with
//! nothing to keep in step.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::settings::Settings;

/// Longest time for the whole exchange.
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest reply that is taken.
const LARGEST: usize = 64 << 20;

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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let body = runtime.block_on(async {
        match timeout(PATIENCE, fetch(admin)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs()).into()),
        }
    });
    let body = body.map_err(|error| format!("http://{admin}/stats.json: {error}"))?;
    let text = if flags.json {
        String::from_utf8_lossy(&body).into_owned()
    } else {
        let stats: Value = serde_json::from_slice(&body)
            .map_err(|error| format!("http://{admin}/stats.json: {error}"))?;
        table(&stats)
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever read this has had enough (`flagstone stats | head`).
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

async fn fetch(admin: SocketAddr) -> Result<Bytes, Box<dyn Error>> {
    let stream = TcpStream::connect(admin).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = hyper::Request::get("/stats.json")
        .header(hyper::header::HOST, admin.to_string())
        .header(hyper::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let reply = async {
        let reply = sender.send_request(request).await?;
        if !reply.status().is_success() {
            return Err(format!("status {}", reply.status()).into());
        }
        let body = Limited::new(reply.into_body(), LARGEST).collect().await;
        Ok::<_, Box<dyn Error>>(body.map_err(|error| error.to_string())?.to_bytes())
    };
    // The connection moves the bytes while the reply is awaited; it ends after it.
    let mut connection = std::pin::pin!(connection);
    let mut reply = std::pin::pin!(reply);
    tokio::select! {
        body = &mut reply => body,
        ended = &mut connection => {
            ended?;
            reply.await
        }
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
