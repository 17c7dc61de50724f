//! Prometheus text and JSON of one snapshot show the same numbers, and nothing of the model is
//! missing.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use flagstone_telemetry::prometheus::Exporter;
use flagstone_telemetry::{Kind, Options, Series, Unit, json, series};
use serde_json::Value;

/// requirement: D10
#[test]
fn every_sample_is_the_number_that_json_shows() {
    let snapshot = common::full();
    let json = json::to_value(&snapshot);
    let text = Exporter::local().render(&snapshot, Options::default().per_shard(true));
    let mut shown = BTreeSet::new();
    for sample in common::samples(&text) {
        let Some(series) = series().find(|s| s.name() == sample.name) else {
            let histograms =
                ["flagstone_fallback_request_bytes_", "flagstone_epoch_grace_seconds_"];
            assert!(histograms.iter().any(|h| sample.name.starts_with(h)), "{sample:?}");
            continue;
        };
        shown.insert(series.name());
        if series.name() == "flagstone_build_info" {
            assert_eq!(json["process"]["version"], sample.labels["version"]);
            assert_eq!(json["process"]["profile"], sample.labels["profile"]);
            continue;
        }
        let expected = lookup(&json, series.json(), &sample.labels)
            .and_then(Value::as_f64)
            .unwrap_or_else(|| panic!("{} has no figure in JSON for {sample:?}", series.json()));
        let expected = if series.unit() == Unit::Seconds { expected / 1e9 } else { expected };
        assert_eq!(sample.value, expected, "{sample:?}");
    }
    let missing: Vec<_> = series()
        .filter(|s| s.kind() != Kind::Histogram && !shown.contains(s.name()))
        .map(Series::name)
        .collect();
    assert!(missing.is_empty(), "never rendered: {missing:?}");
}

/// requirement: D8
/// requirement: D10
#[test]
fn the_histogram_cumulates_the_counts_that_json_lists() {
    let snapshot = common::full();
    let json = json::to_value(&snapshot);
    let text = Exporter::local().render(&snapshot, Options::default());
    let mut total = 0;
    for count in json["heap"]["fallback"]["histogram"].as_array().expect("a list") {
        total += count["count"].as_u64().expect("a count");
        let le = count["up_to"].as_u64().map_or("+Inf".to_owned(), |b| b.to_string());
        let name = "flagstone_fallback_request_bytes_bucket";
        assert_eq!(common::value(&text, name, &[("le", &le)]), total as f64);
    }
    assert_eq!(common::value(&text, "flagstone_fallback_request_bytes_count", &[]), total as f64);
}

/// requirement: D9
/// requirement: D10
#[test]
fn grace_times_are_a_histogram_per_domain_with_its_sum() {
    let snapshot = common::full();
    let json = json::to_value(&snapshot);
    let text = Exporter::local().render(&snapshot, Options::default());
    for domain in json["domains"].as_array().expect("a list") {
        let name = domain["domain"].as_str().expect("a name");
        let mut total = 0;
        for count in domain["grace"]["histogram"].as_array().expect("a list") {
            total += count["count"].as_u64().expect("a count");
            let shown = common::samples(&text).into_iter().find(|sample| {
                let le = sample.labels.get("le").map(String::as_str);
                let bound = count["up_to_nanos"].as_f64().map(|nanos| nanos / 1e9);
                sample.name == "flagstone_epoch_grace_seconds_bucket"
                    && sample.labels["domain"] == name
                    && match bound {
                        None => le == Some("+Inf"),
                        Some(bound) => le.and_then(|le| le.parse().ok()) == Some(bound),
                    }
            });
            assert_eq!(shown.expect("a bucket").value, total as f64);
        }
        let labels = [("domain", name)];
        let value = |name| common::value(&text, name, &labels);
        assert_eq!(value("flagstone_epoch_grace_seconds_count"), total as f64);
        let sum = domain["grace"]["sum_nanos"].as_f64().expect("a sum") / 1e9;
        assert_eq!(value("flagstone_epoch_grace_seconds_sum"), sum);
    }
}

#[test]
fn json_shows_every_figure_of_the_model() {
    let snapshot = common::full();
    let shown: BTreeSet<u64> =
        leaves(&json::to_value(&snapshot)).values().filter_map(Value::as_u64).collect();
    // The model's own Debug output is the list of what there is; durations are checked by name
    // elsewhere.
    let debug = format!("{:?} {:?} {:?}", snapshot.heap, snapshot.scavenger, snapshot.admin);
    let figures: BTreeSet<u64> = debug
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_')
        .filter_map(|word| word.parse().ok())
        // Smaller numbers are not figures of this snapshot: a bucket's number, say.
        .filter(|&n| n > common::BASE)
        .collect();
    assert!(figures.len() > 150, "Debug shows only {} figures", figures.len());
    let missing: Vec<_> = figures.difference(&shown).collect();
    assert!(missing.is_empty(), "not in JSON: {missing:?} of {debug}");
}

#[test]
fn every_figure_in_json_has_a_series() {
    let json = json::to_value(&common::full());
    let covered: BTreeSet<String> = series().map(|s| s.json().to_owned()).collect();
    // What a label, another member or nobody needs as a series of its own.
    let labels_and_names = [
        "heap.heap",
        "heap.classes[].block_bytes",
        "heap.shards[].state",
        "heap.locks[].site",
        "heap.locks[].class",
        "heap.fallback.histogram[].up_to",
        "heap.fallback.histogram[].count",
        "domains[].domain",
        "domains[].grace.histogram[].up_to_nanos",
        "domains[].grace.histogram[].count",
        "domains[].grace.sum_nanos",
        "domains[].oldest_guard.participant",
        "domains[].oldest_guard.thread",
        "domains[].oldest_guard.place",
        "process.pid",
        "process.profile",
    ];
    let mut missing = Vec::new();
    for path in leaves(&json).keys() {
        let bare = strip(path, &[('[', ']')]);
        let is_covered = covered.iter().any(|c| matches(c, &bare));
        if !is_covered && !labels_and_names.contains(&bare.as_str()) {
            missing.push(bare);
        }
    }
    assert!(missing.is_empty(), "in JSON but not exported: {missing:?}");
}

/// Whether a series' JSON path covers a path of a leaf, both with empty brackets.
fn matches(series: &str, leaf: &str) -> bool {
    let series = strip(series, &[('[', ']'), ('{', '}')]);
    match series.split_once("{}") {
        None => series == leaf,
        Some((before, after)) => leaf
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .is_some_and(|label| !label.is_empty() && !label.contains('.')),
    }
}

/// Empties every pair of brackets.
fn strip(path: &str, brackets: &[(char, char)]) -> String {
    let mut out = String::new();
    let mut until = None;
    for c in path.chars() {
        if let Some(close) = until {
            if c != close {
                continue;
            }
            until = None;
        } else if let Some((_, close)) = brackets.iter().find(|(open, _)| *open == c) {
            until = Some(*close);
        }
        out.push(c);
    }
    out
}

/// Every value that is neither a list nor an object, by its path.
fn leaves(value: &Value) -> BTreeMap<String, Value> {
    fn walk(at: String, value: &Value, into: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                    walk(path, member, into);
                }
            }
            Value::Array(list) => {
                for (i, element) in list.iter().enumerate() {
                    walk(format!("{at}[{i}]"), element, into);
                }
            }
            leaf => {
                into.insert(at, leaf.clone());
            }
        }
    }
    let mut into = BTreeMap::new();
    walk(String::new(), value, &mut into);
    into
}

/// The value at a series' JSON path for a sample's labels.
fn lookup<'a>(json: &'a Value, path: &str, labels: &BTreeMap<String, String>) -> Option<&'a Value> {
    let mut at = json;
    for step in path.split('.') {
        let (name, by) = step.split_once('[').unwrap_or((step, ""));
        let mut name = name.to_owned();
        for (label, value) in labels {
            name = name.replace(&format!("{{{label}}}"), value);
        }
        at = at.get(&name)?;
        at = match by.trim_end_matches(']') {
            "" => at,
            "class" => element(at, |c| text(&c["block_bytes"]) == labels["class"])?,
            "domain" => element(at, |d| text(&d["domain"]) == labels["domain"])?,
            "shard" => at.get(labels["shard"].parse::<usize>().ok()?)?,
            "lock,class" => element(at, |l| {
                text(&l["site"]) == labels["lock"]
                    && text(&l["class"]) == labels.get("class").map_or("null", String::as_str)
            })?,
            other => panic!("unknown list key {other} in {path}"),
        };
    }
    Some(at)
}

fn element(list: &Value, is: impl Fn(&Value) -> bool) -> Option<&Value> {
    list.as_array()?.iter().find(|e| is(e))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
