//! `docs/stats.md` defines every exported name, and nothing that is not exported.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use flagstone_telemetry::{Series, Unit, series};

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/stats.md");
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The row that the document must have for a series. Its meaning is the series' help.
fn row(series: &Series) -> String {
    let unit = match series.unit() {
        Unit::Count => "count",
        Unit::Bytes => "bytes",
        Unit::Seconds => "seconds",
        _ => panic!("{} has a unit that this test does not know", series.name()),
    };
    let labels: Vec<_> = series.labels().iter().map(|l| format!("`{l}`")).collect();
    format!(
        "| `{}` | {} | {unit} | {} | `{}` | {} |",
        series.name(),
        series.kind().as_str(),
        labels.join(", "),
        series.json(),
        series.help(),
    )
}

#[test]
fn every_exported_name_is_defined_as_it_is_exported() {
    let document = document();
    let rows: BTreeSet<&str> =
        document.lines().filter(|l| l.starts_with("| `flagstone_")).collect();
    let expected: BTreeMap<_, _> = series().map(|s| (row(s), s.name())).collect();
    let missing: Vec<_> = expected.keys().filter(|r| !rows.contains(r.as_str())).collect();
    assert!(missing.is_empty(), "docs/stats.md lacks these rows:\n{missing:#?}");
    let stale: Vec<_> = rows.iter().filter(|r| !expected.contains_key(**r)).collect();
    assert!(stale.is_empty(), "docs/stats.md has rows that are not so:\n{stale:#?}");
}

#[test]
fn every_name_in_the_document_is_exported() {
    let document = document();
    let names: BTreeSet<&str> = series().map(Series::name).collect();
    let suffixes = ["_bucket", "_count", "_sum"];
    let mut unknown = Vec::new();
    for word in document.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        if !word.starts_with("flagstone_") || word == "flagstone_telemetry" || word.ends_with('_') {
            continue;
        }
        let of_histogram =
            suffixes.iter().any(|s| word.strip_suffix(s).is_some_and(|w| names.contains(w)));
        if !names.contains(word) && !of_histogram {
            unknown.push(word);
        }
    }
    assert!(unknown.is_empty(), "docs/stats.md names what is not exported: {unknown:?}");
}

#[test]
fn names_follow_the_conventions() {
    let mut seen = BTreeSet::new();
    for series in series() {
        let name = series.name();
        assert!(seen.insert(name), "{name} is exported twice");
        assert!(name.starts_with("flagstone_"), "{name}");
        let is_counter = series.kind() == flagstone_telemetry::Kind::Counter;
        assert_eq!(is_counter, name.ends_with("_total"), "{name}");
        let base = name.trim_end_matches("_total");
        match series.unit() {
            Unit::Bytes => assert!(base.ends_with("_bytes"), "{name}"),
            Unit::Seconds => assert!(base.ends_with("_seconds"), "{name}"),
            _ => assert!(!base.ends_with("_bytes") && !base.ends_with("_seconds"), "{name}"),
        }
        assert!(series.help().ends_with('.') && !series.help().contains('|'), "{name}");
    }
}
