//! Replies as short texts: `+OK`, `-ERR ...`, `:1`, `text`, `nil`, `[a, b]`, and for RESP3 `{k: v}`,
//! `~[..]`, `>[..]`, `null`. Decoded by `redis-protocol`, so that what the server writes is checked
//! by other hands. Used by the black-box tests and by the unit tests of commands.

use redis_protocol::resp2::types::OwnedFrame as Frame2;
use redis_protocol::resp3::types::{OwnedFrame as Frame3, VerbatimStringFormat};

/// The first reply in `bytes` and its length, once it is whole.
///
/// # Panics
/// If the bytes are no reply.
pub fn reply(bytes: &[u8], resp3: bool) -> Option<(String, usize)> {
    if bytes.is_empty() {
        return None;
    }
    if resp3 {
        let decoded = redis_protocol::resp3::decode::complete::decode(bytes);
        let (frame, len) = decoded.unwrap_or_else(|e| panic!("{e}: {:?}", head(bytes)))?;
        Some((print3(&frame), len))
    } else {
        let decoded = redis_protocol::resp2::decode::decode(bytes);
        let (frame, len) = decoded.unwrap_or_else(|e| panic!("{e}: {:?}", head(bytes)))?;
        Some((print2(&frame), len))
    }
}

fn head(bytes: &[u8]) -> String {
    text(&bytes[..bytes.len().min(200)])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn print2(frame: &Frame2) -> String {
    match frame {
        Frame2::SimpleString(bytes) => format!("+{}", text(bytes)),
        Frame2::Error(error) => format!("-{error}"),
        Frame2::Integer(n) => format!(":{n}"),
        Frame2::BulkString(bytes) => text(bytes),
        Frame2::Array(items) => list("[", items.iter().map(print2), "]"),
        Frame2::Null => "nil".into(),
    }
}

fn print3(frame: &Frame3) -> String {
    match frame {
        Frame3::SimpleString { data, .. } => format!("+{}", text(data)),
        Frame3::SimpleError { data, .. } => format!("-{data}"),
        Frame3::Number { data, .. } => format!(":{data}"),
        Frame3::BlobString { data, .. } => text(data),
        Frame3::VerbatimString { data, format: VerbatimStringFormat::Text, .. } => text(data),
        Frame3::Double { data, .. } => format!(",{data}"),
        Frame3::Array { data, .. } => list("[", data.iter().map(print3), "]"),
        Frame3::Push { data, .. } => list(">[", data.iter().map(print3), "]"),
        Frame3::Set { data, .. } => list("~[", data.iter().map(print3), "]"),
        Frame3::Map { data, .. } => {
            // The decoded map has no order: sorted, but for `server`, which HELLO puts first.
            let mut pairs: Vec<String> =
                data.iter().map(|(k, v)| format!("{}: {}", print3(k), print3(v))).collect();
            pairs.sort_by_key(|pair| (!pair.starts_with("server:"), pair.clone()));
            list("{", pairs.into_iter(), "}")
        }
        Frame3::Null => "null".into(),
        other => panic!("unexpected reply {other:?}"),
    }
}

fn list(open: &str, items: impl Iterator<Item = String>, close: &str) -> String {
    format!("{open}{}{close}", items.collect::<Vec<_>>().join(", "))
}
