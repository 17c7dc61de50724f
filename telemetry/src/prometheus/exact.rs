//! The families that the `metrics` facade cannot hold as what they are, written straight from the
//! snapshot: counters of seconds, to the nanosecond, and histograms of counts kept elsewhere; and the
//! series of heap instances, which the recorder would never forget.
//!
//! Lines are made by the formatting functions of `metrics-exporter-prometheus`, so that quoting and
//! escaping are the same as for the families that the library renders.

use metrics::{Key, Label};
use metrics_exporter_prometheus::LabelSet;
use metrics_exporter_prometheus::formatting::{
    write_help_line, write_metric_line, write_type_line,
};

use crate::publish::{decimal_seconds, is_exact, le};
use crate::series::{Distribution, Labels, Number};
use crate::{Kind, Options, Series, Snapshot, Unit, series};

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
                line(&mut lines, series.name(), None, labels, None, &decimal_seconds(nanos));
            });
        }
        if !lines.is_empty() {
            head(&mut text, series);
            text.push_str(&lines);
            text.push('\n');
        }
    }
    text
}

/// The text of the series of heap instances. They do not go through the recorder, which keeps every
/// series that it was ever given, and instances end.
pub(super) fn instances(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    for series in series() {
        let mut lines = String::new();
        series.of_instances(snapshot, &mut |labels, number| {
            let value = match (series.unit(), number) {
                (Unit::Seconds, Number::Whole(nanos)) => decimal_seconds(nanos),
                (_, Number::Whole(n)) => n.to_string(),
                (_, Number::Signed(n)) => n.to_string(),
                (_, Number::Unknown) => "NaN".to_owned(),
            };
            line(&mut lines, series.name(), None, labels, None, &value);
        });
        if !lines.is_empty() {
            head(&mut text, series);
            text.push_str(&lines);
            text.push('\n');
        }
    }
    text
}

fn head(text: &mut String, series: &Series) {
    write_help_line(text, series.name(), None, None, series.help());
    write_type_line(text, series.name(), None, None, series.kind().as_str());
}

/// `_bucket` lines in ascending order, the `_count`, and the `_sum` if it is known.
fn histogram(lines: &mut String, series: &Series, snapshot: &Snapshot) {
    for Distribution { labels, buckets, sum } in series.distributions(snapshot) {
        for (bound, count) in buckets {
            let le = le(series.unit(), bound);
            let count = count.to_string();
            line(lines, series.name(), Some("bucket"), labels.clone(), Some(&le), &count);
            if bound.is_none() {
                line(lines, series.name(), Some("count"), labels.clone(), None, &count);
            }
        }
        if let Some(sum) = sum {
            line(lines, series.name(), Some("sum"), labels, None, &decimal_seconds(sum));
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
