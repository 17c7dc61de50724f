//! A snapshot through the `metrics` facade, into whatever recorder is installed.
//!
//! The facade knows counters of whole numbers and histograms of single samples, and a heap has two
//! things that fit neither; both are published without losing or inventing anything:
//!
//! - a counter of seconds (`flagstone_lock_wait_seconds_total`) becomes a gauge of that name: as a
//!   counter it would be cut to whole seconds;
//! - a histogram of counts kept elsewhere becomes its Prometheus series, `_bucket` with the label
//!   `le` and `_count`, as counters, and `_sum`, where it is known, as a gauge: to record it sample by
//!   sample would need every sample's size.
//!
//! Counters are set with `absolute`, which keeps the larger of the old and the new value. That is
//! right for a total that never runs backwards, and wrong as soon as two heaps share one name; so
//! instance heaps carry the label `heap`.
//!
//! [`Exporter`](crate::prometheus::Exporter) uses the same table, and writes the two exceptions as
//! what they are.

use metrics::Label;

use crate::series::{Distribution, Labels, Number};
use crate::{Kind, Series, Snapshot, Unit, series};

/// What to export beyond the defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Whether every shard gets series of its own, with the label `shard`. Off by default: with 64
    /// shards they are some 900 series.
    pub per_shard: bool,
}

impl Options {
    /// With or without series of every shard.
    #[must_use]
    pub fn per_shard(mut self, on: bool) -> Self {
        self.per_shard = on;
        self
    }
}

/// Describes every series and sets it to its value in `snapshot`, in the recorder that is installed
/// for the process or the calling scope. Without one this does nothing.
///
/// Call it from whatever asks the recorder for output, so that output shows the present; it costs
/// one look-up in the recorder per sample.
pub fn publish(snapshot: &Snapshot) {
    publish_with(snapshot, Options::default());
}

/// As [`publish`], with options.
pub fn publish_with(snapshot: &Snapshot, options: Options) {
    describe();
    for series in series() {
        if series.kind() == Kind::Histogram {
            set_histogram(series, snapshot);
        } else {
            series.samples(snapshot, options.per_shard, &mut |labels, number| {
                set(series, labels, number);
            });
        }
    }
}

/// Describes every series to the recorder, without values.
pub fn describe() {
    for series in series() {
        let unit = match series.unit() {
            Unit::Count => metrics::Unit::Count,
            Unit::Bytes => metrics::Unit::Bytes,
            Unit::Seconds => metrics::Unit::Seconds,
        };
        let (name, help) = (series.name(), series.help());
        match series.kind() {
            Kind::Counter if series.unit() != Unit::Seconds => {
                metrics::describe_counter!(name, unit, help);
            }
            Kind::Counter | Kind::Gauge => metrics::describe_gauge!(name, unit, help),
            Kind::Histogram => {
                metrics::describe_counter!(format!("{name}_bucket"), metrics::Unit::Count, help);
                metrics::describe_counter!(format!("{name}_count"), metrics::Unit::Count, help);
                if series.has_sum() {
                    metrics::describe_gauge!(format!("{name}_sum"), unit, help);
                }
            }
        }
    }
}

/// Whether the facade can hold this series as the kind it is.
pub(crate) fn is_exact(series: &Series) -> bool {
    match series.kind() {
        Kind::Counter => series.unit() != Unit::Seconds,
        Kind::Gauge => true,
        Kind::Histogram => false,
    }
}

/// Sets one sample.
pub(crate) fn set(series: &Series, labels: Labels, number: Number) {
    let labels = to_facade(labels);
    match (series.kind(), series.unit(), number) {
        (Kind::Counter, Unit::Count | Unit::Bytes, Number::Whole(n)) => {
            metrics::counter!(series.name(), labels).absolute(n);
        }
        _ => metrics::gauge!(series.name(), labels).set(to_f64(series.unit(), number)),
    }
}

fn set_histogram(series: &Series, snapshot: &Snapshot) {
    let (bucket, count) = (format!("{}_bucket", series.name()), format!("{}_count", series.name()));
    for Distribution { labels, buckets, sum } in series.distributions(snapshot) {
        for (bound, n) in buckets {
            let mut with_le = labels.clone();
            with_le.push(("le", le(series.unit(), bound)));
            metrics::counter!(bucket.clone(), to_facade(with_le)).absolute(n);
            if bound.is_none() {
                metrics::counter!(count.clone(), to_facade(labels.clone())).absolute(n);
            }
        }
        if let Some(sum) = sum {
            let sum = to_f64(series.unit(), Number::Whole(sum));
            metrics::gauge!(format!("{}_sum", series.name()), to_facade(labels)).set(sum);
        }
    }
}

/// An upper bound as the label `le` has it.
pub(crate) fn le(unit: Unit, bound: Option<u64>) -> String {
    match (bound, unit) {
        (None, _) => "+Inf".to_owned(),
        (Some(nanos), Unit::Seconds) => decimal_seconds(nanos),
        (Some(n), _) => n.to_string(),
    }
}

/// Nanoseconds as decimal seconds, exactly.
pub(crate) fn decimal_seconds(nanos: u64) -> String {
    let (whole, part) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    if part == 0 {
        return whole.to_string();
    }
    let text = format!("{whole}.{part:09}");
    text.trim_end_matches('0').to_owned()
}

fn to_facade(labels: Labels) -> Vec<Label> {
    labels.into_iter().map(|(k, v)| Label::new(k, v)).collect()
}

fn to_f64(unit: Unit, number: Number) -> f64 {
    let value = match number {
        Number::Whole(n) => n as f64,
        Number::Signed(n) => n as f64,
        Number::Unknown => f64::NAN,
    };
    if unit == Unit::Seconds { value / 1e9 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_exact() {
        assert_eq!(decimal_seconds(0), "0");
        assert_eq!(decimal_seconds(1), "0.000000001");
        assert_eq!(decimal_seconds(2_500_000_000), "2.5");
        assert_eq!(decimal_seconds(60_000_000_000), "60");
        assert_eq!(decimal_seconds(u64::MAX), "18446744073.709551615");
        assert_eq!(le(Unit::Seconds, Some(1_024)), "0.000001024");
        assert_eq!(le(Unit::Bytes, Some(1_024)), "1024");
        assert_eq!(le(Unit::Bytes, None), "+Inf");
    }

    #[test]
    fn seconds_come_from_nanoseconds_and_unknown_is_nan() {
        assert_eq!(to_f64(Unit::Seconds, Number::Whole(1_500_000_000)), 1.5);
        assert_eq!(to_f64(Unit::Bytes, Number::Signed(-3)), -3.0);
        assert!(to_f64(Unit::Bytes, Number::Unknown).is_nan());
    }
}
