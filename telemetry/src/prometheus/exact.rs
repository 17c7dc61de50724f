//! The families that the `metrics` facade cannot hold as what they are, written straight from the
//! snapshot: counters of seconds, to the nanosecond, and the histogram of fallback sizes.
//!
//! Lines are made by the formatting functions of `metrics-exporter-prometheus`, so that quoting and
//! escaping are the same as for the families that the library renders.

use metrics::{Key, Label};
use metrics_exporter_prometheus::LabelSet;
use metrics_exporter_prometheus::formatting::{
    write_help_line, write_metric_line, write_type_line,
};

use crate::publish::is_exact;
use crate::series::{Labels, Number, fallback_buckets, heap_label};
use crate::{Kind, Options, Series, Snapshot, series};

/// The text of every family that [`is_exact`] excludes.
pub(super) fn render(snapshot: &Snapshot, options: Options) -> String {
    let mut text = String::new();
    for series in series().filter(|s| !is_exact(s)) {
        let mut lines = String::new();
        if series.kind() == Kind::Histogram {
            histogram(&mut lines, series, snapshot);
        } else {
            series.samples(snapshot, options.per_shard, &mut |labels, number| {
                let Number::Whole(nanos) = number else { return };
                line(&mut lines, series.name(), None, labels, None, &seconds(nanos));
            });
        }
        if !lines.is_empty() {
            write_help_line(&mut text, series.name(), None, None, series.help());
            write_type_line(&mut text, series.name(), None, None, series.kind().as_str());
            text.push_str(&lines);
            text.push('\n');
        }
    }
    text
}

/// `_bucket` lines in ascending order and the `_count`. There is no `_sum`: the heap counts
/// requests by size and does not add the sizes up, and a made-up sum would be worse than none.
fn histogram(lines: &mut String, series: &Series, snapshot: &Snapshot) {
    let heap: Labels = heap_label(snapshot).into_iter().collect();
    for (bound, count) in fallback_buckets(snapshot) {
        let le = bound.map_or_else(|| "+Inf".to_owned(), |b| b.to_string());
        let count = count.to_string();
        line(lines, series.name(), Some("bucket"), heap.clone(), Some(&le), &count);
        if bound.is_none() {
            line(lines, series.name(), Some("count"), heap.clone(), None, &count);
        }
    }
}

fn line(
    to: &mut String,
    name: &str,
    suffix: Option<&'static str>,
    labels: Labels,
    le: Option<&str>,
    value: &str,
) {
    let labels: Vec<Label> = labels.into_iter().map(|(k, v)| Label::new(k, v)).collect();
    let key = Key::from_parts("", labels);
    let set = LabelSet::from_key_and_global(&key, &Default::default());
    write_metric_line(to, name, suffix, &set, le.map(|le| ("le", le)), value, None);
}

/// Nanoseconds as decimal seconds, exactly.
fn seconds(nanos: u64) -> String {
    let (whole, part) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    if part == 0 {
        return whole.to_string();
    }
    let text = format!("{whole}.{part:09}");
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_exact() {
        assert_eq!(seconds(0), "0");
        assert_eq!(seconds(1), "0.000000001");
        assert_eq!(seconds(2_500_000_000), "2.5");
        assert_eq!(seconds(60_000_000_000), "60");
        assert_eq!(seconds(u64::MAX), "18446744073.709551615");
    }
}
