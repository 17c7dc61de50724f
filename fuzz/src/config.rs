//! All text that configures: the server's file and flags, what `CONFIG SET` takes, the variables of the C
//! library, and the numbers, sizes, policies and patterns in them.
//!
//! Owns the oracles: nothing panics; a refusal is one line that says something; what is accepted is what
//! was written.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use arbitrary::{Arbitrary, Unstructured};
use flagstone_server::number::{human_bytes, parse_bytes, parse_f64, parse_i64, parse_u64};
use flagstone_server::settings::{Settings, Tunables};
use flagstone_server::{cli, glob};
use flagstone_slab::HugePages;

/// Longest pattern and text for which the plain definition of a match is asked: it takes exponential
/// time.
const PLAIN: usize = 10;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Kind {
    File,
    Flags,
    Environment,
    Numbers,
    Pattern,
}

/// Reads what some bytes hold.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(kind) = Kind::arbitrary(&mut input) else { return };
    let bytes = input.take_rest();
    match kind {
        Kind::File => file(&String::from_utf8_lossy(bytes)),
        Kind::Flags => flags(bytes),
        Kind::Environment => environment(bytes),
        Kind::Numbers => numbers(bytes),
        Kind::Pattern => pattern(bytes),
    }
}

fn file(text: &str) {
    match Settings::from_toml(text) {
        Ok(settings) => match settings.check() {
            Ok(()) => {
                let tunables = Tunables::new(&settings);
                assert_eq!(tunables.output_normal.get(), settings.output_normal);
                assert_eq!(tunables.maxmemory.get(), settings.maxmemory);
                assert!(settings.shards.is_power_of_two() && settings.workers != Some(0));
            }
            Err(error) => assert_is_a_line(&error.to_string()),
        },
        Err(error) => assert_is_a_line(&error),
    }
}

/// Words are divided by NUL, as in `/proc/self/cmdline`.
fn flags(bytes: &[u8]) {
    let words = bytes.split(|&byte| byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    let args = std::iter::once(OsString::from("flagstone")).chain(words);
    if let Some(refusal) = cli::refusal(args) {
        assert_is_a_line(&refusal);
    }
}

/// Variables are divided by NUL, as in `/proc/self/environ`.
fn environment(bytes: &[u8]) {
    let value_of = |wanted: &str| {
        bytes.split(|&byte| byte == 0).find_map(|line| {
            let at = line.iter().position(|&byte| byte == b'=')?;
            (&line[..at] == wanted.as_bytes()).then(|| OsString::from_vec(line[at + 1..].to_vec()))
        })
    };
    let complaints = flagstone_capi_calls::complaints_about(value_of);
    let is_refused = |name: &str, is_sound: &dyn Fn(&str) -> bool| {
        let value = value_of(name).filter(|value| !value.is_empty());
        let refused = value.is_some_and(|value| !value.to_str().is_some_and(is_sound));
        assert_eq!(complaints.iter().any(|complaint| complaint == name), refused, "{name}");
    };
    is_refused("FLAGSTONE_STATS", &|value| matches!(value, "0" | "1"));
    is_refused("FLAGSTONE_SCAVENGER", &|value| matches!(value, "auto" | "off"));
    is_refused("FLAGSTONE_DECAY_MILLIS", &|value| value.parse::<u64>().is_ok());
}

fn numbers(bytes: &[u8]) {
    // What was accepted, printed again, gives the same bytes.
    if let Some(n) = parse_i64(bytes) {
        assert_eq!(n.to_string().as_bytes(), bytes);
    }
    if let Some(n) = parse_u64(bytes) {
        assert_eq!(n.to_string().as_bytes(), bytes);
    }
    assert!(parse_f64(bytes).is_none_or(|value| !value.is_nan()));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let strict = |n: &str| n == text;
    assert_eq!(
        parse_i64(bytes).is_some(),
        text.parse::<i64>().is_ok_and(|n| strict(&n.to_string()))
    );
    if let Some(n) = parse_bytes(text) {
        assert_eq!(parse_bytes(&format!("  {}b ", n)), Some(n));
        assert!(!human_bytes(n).is_empty());
    }
    if let Ok(policy) = text.parse::<HugePages>() {
        assert_eq!(policy.as_str(), text);
    }
}

fn pattern(bytes: &[u8]) {
    let mut halves = bytes.splitn(2, |&byte| byte == 0);
    let (pattern, text) = (halves.next().unwrap_or(b""), halves.next().unwrap_or(b""));
    let found = glob::matches(pattern, text);
    let simple = !pattern.iter().any(|byte| b"[\\".contains(byte));
    if simple && pattern.len() <= PLAIN && text.len() <= PLAIN {
        assert_eq!(found, plain(pattern, text));
    }
    if simple && !pattern.iter().any(|byte| b"*?".contains(byte)) {
        assert_eq!(found, pattern == text);
    }
    let escaped: Vec<u8> = text.iter().flat_map(|&byte| [b'\\', byte]).collect();
    assert!(glob::matches(&escaped, text), "an escaped text matches itself");
    assert!(glob::matches(b"*", text));
}

/// The definition of a match, without sets and escapes.
fn plain(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|from| plain(rest, &text[from..])),
        ([b'?', rest @ ..], [_, text @ ..]) => plain(rest, text),
        ([a, rest @ ..], [b, text @ ..]) if a == b => plain(rest, text),
        _ => false,
    }
}

fn assert_is_a_line(text: &str) {
    assert!(!text.trim().is_empty(), "a refusal says nothing");
    assert!(!text.contains('\n'), "a refusal of several lines: {text:?}");
}
