//! The table of everything that is exported: one row per series, its meaning beside its value.
//!
//! A row says the series' name, kind, unit, help, where `/stats.json` shows the same figure, and
//! how it is read from a [`Snapshot`]. Prometheus text, the `metrics` facade, the test of
//! `docs/stats.md` and the test that text and JSON agree all walk this table, so none of them can
//! forget a figure.
//!
//! Which samples exist: a class has its series once it has served or prepared a block, judged by
//! counters that never run backwards, so a series that was shown stays. A bucket's lock has them
//! once it was taken. Series of shards are given on request only. Parts that do not run in the
//! process have none.

mod class;
mod epoch;
mod fallback;
mod heap;
mod lock;
mod process;
mod runtime;
mod shard;

pub(crate) use class::in_use_bytes;

use flagstone_slab::stats::{ClassSnapshot, HeapSnapshot, LockSite, LockSnapshot, ShardSnapshot};

use crate::Snapshot;

/// Every exported series, in the order of `docs/stats.md`.
pub fn all() -> impl Iterator<Item = &'static Series> {
    const GROUPS: [&[Series]; 8] = [
        heap::SERIES,
        class::SERIES,
        shard::SERIES,
        lock::SERIES,
        fallback::SERIES,
        epoch::SERIES,
        runtime::SERIES,
        process::SERIES,
    ];
    GROUPS.into_iter().flatten()
}

/// One exported series: what it is called, what it means, how it is read.
#[derive(Debug)]
pub struct Series {
    name: &'static str,
    kind: Kind,
    unit: Unit,
    help: &'static str,
    json: &'static str,
    read: Read,
}

/// What kind of figure a series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Only grows while the process runs.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bound.
    Histogram,
}

impl Kind {
    /// The kind as Prometheus spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a series counts. Readers give seconds as whole nanoseconds, so nothing is lost before
/// output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unit {
    /// Things: blocks, slabs, calls.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

/// One value of a series, before its unit is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    Whole(u64),
    Signed(i64),
    /// The platform did not tell; shown as NaN, so that an older value does not stay.
    Unknown,
}

/// The labels of one sample, in the order they are written.
pub(crate) type Labels = Vec<(&'static str, String)>;

/// How a series is read from a snapshot.
#[derive(Clone, Copy, Debug)]
enum Read {
    /// One value of the heap.
    Heap(fn(&Snapshot) -> Number),
    /// One value of the heap per value of a label; they add up.
    HeapBy(&'static str, fn(&Snapshot, &mut dyn FnMut(&'static str, u64))),
    /// One value per class in use, label `class`.
    Class(fn(&ClassSnapshot) -> u64),
    /// One value per lock, labels `lock` and, for buckets, `class`.
    Lock(fn(&LockSnapshot) -> u64),
    /// One value per shard, label `shard`; on request only.
    Shard(fn(&ShardSnapshot) -> u64),
    /// Counts of fallback requests by size, label `le`.
    FallbackSizes,
    /// One value per domain, label `domain`.
    Domain(fn(&flagstone_epoch::Snapshot) -> u64),
    /// One value per domain that has it, label `domain`.
    SomeDomain(fn(&flagstone_epoch::Snapshot) -> Option<Number>),
    /// Durations of grace periods, labels `domain` and `le`.
    GraceTimes,
    /// One value of the process or the runtime; `None` when that part does not run.
    Process(fn(&Snapshot) -> Option<Number>),
    /// Always 1; the labels tell the build.
    Build,
}

impl Series {
    const fn new(
        kind: Kind,
        unit: Unit,
        name: &'static str,
        json: &'static str,
        help: &'static str,
        read: Read,
    ) -> Self {
        Self { name, kind, unit, help, json, read }
    }

    /// The name as Prometheus sees it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What kind of figure it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The unit of its values.
    #[must_use]
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// One sentence on what it means.
    #[must_use]
    pub fn help(&self) -> &'static str {
        self.help
    }

    /// Where `/stats.json` shows the same figure: member names joined by dots. `{label}` stands for
    /// the value of a label, `[label]` for the element of a list that the label names.
    #[must_use]
    pub fn json(&self) -> &'static str {
        self.json
    }

    /// Names of the labels that its samples carry.
    #[must_use]
    pub fn labels(&self) -> &'static [&'static str] {
        match self.read {
            Read::Heap(_) | Read::Process(_) => &[],
            Read::HeapBy("use", _) => &["use"],
            Read::HeapBy("state", _) => &["state"],
            Read::HeapBy("share", _) => &["share"],
            Read::HeapBy(_, _) => &["tier"],
            Read::Class(_) => &["class"],
            Read::Lock(_) => &["lock", "class"],
            Read::Shard(_) => &["shard"],
            Read::FallbackSizes => &["le"],
            Read::Domain(_) | Read::SomeDomain(_) => &["domain"],
            Read::GraceTimes => &["domain", "le"],
            Read::Build => &["version", "profile"],
        }
    }

    /// Whether this is a histogram with a sum of all samples.
    pub(crate) fn has_sum(&self) -> bool {
        matches!(self.read, Read::GraceTimes)
    }

    /// The histograms of this series, if it is one.
    pub(crate) fn distributions(&self, snapshot: &Snapshot) -> Vec<Distribution> {
        match self.read {
            Read::FallbackSizes => vec![Distribution {
                labels: heap_label(snapshot).into_iter().collect(),
                buckets: fallback::cumulative(&snapshot.heap.fallback),
                sum: None,
            }],
            Read::GraceTimes => {
                let domains = snapshot.domains.iter();
                let of = |domain: &flagstone_epoch::Snapshot| Distribution {
                    labels: vec![("domain", domain.domain.clone())],
                    buckets: epoch::cumulative(&domain.grace),
                    sum: Some(crate::nanos(domain.grace.sum)),
                };
                domains.map(of).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Calls `emit` for each sample of this series, save those of histograms.
    pub(crate) fn samples(
        &self,
        snapshot: &Snapshot,
        per_shard: bool,
        emit: &mut dyn FnMut(Labels, Number),
    ) {
        let heap = heap_label(snapshot);
        let with = |labels: &[(&'static str, &dyn ToString)]| -> Labels {
            heap.iter().cloned().chain(labels.iter().map(|(k, v)| (*k, v.to_string()))).collect()
        };
        match self.read {
            Read::Heap(read) => emit(with(&[]), read(snapshot)),
            Read::HeapBy(label, read) => read(snapshot, &mut |value, n| {
                emit(with(&[(label, &value)]), Number::Whole(n));
            }),
            Read::Class(read) => {
                for class in snapshot.heap.classes.iter().filter(|c| is_used(c)) {
                    emit(with(&[("class", &class.block_bytes)]), Number::Whole(read(class)));
                }
            }
            Read::Lock(read) => {
                for lock in &snapshot.heap.locks {
                    let labels = match lock.site {
                        LockSite::Bucket(n) => {
                            let Some(class) = snapshot.heap.classes.get(usize::from(n)) else {
                                continue;
                            };
                            if lock.acquisitions == 0 {
                                continue;
                            }
                            with(&[("lock", &lock.site.as_str()), ("class", &class.block_bytes)])
                        }
                        _ => with(&[("lock", &lock.site.as_str())]),
                    };
                    emit(labels, Number::Whole(read(lock)));
                }
            }
            Read::Shard(read) => {
                if per_shard {
                    for (number, shard) in snapshot.heap.shards.iter().enumerate() {
                        emit(with(&[("shard", &number)]), Number::Whole(read(shard)));
                    }
                }
            }
            Read::FallbackSizes | Read::GraceTimes => {}
            Read::Domain(read) => {
                for domain in &snapshot.domains {
                    let labels = vec![("domain", domain.domain.clone())];
                    emit(labels, Number::Whole(read(domain)));
                }
            }
            Read::SomeDomain(read) => {
                for domain in &snapshot.domains {
                    if let Some(number) = read(domain) {
                        emit(vec![("domain", domain.domain.clone())], number);
                    }
                }
            }
            Read::Process(read) => {
                if let Some(number) = read(snapshot) {
                    emit(Labels::new(), number);
                }
            }
            Read::Build => {
                let process = &snapshot.process;
                let labels = vec![
                    ("version", process.version.to_owned()),
                    ("profile", process.profile.to_owned()),
                ];
                emit(labels, Number::Whole(1));
            }
        }
    }
}

impl Series {
    /// Calls `emit` for each sample that this series has of heap instances, which carry the label
    /// `heap`: for the figures of a heap as a whole, for the first [`INSTANCES_SHOWN`] instances.
    pub(crate) fn of_instances(&self, snapshot: &Snapshot, emit: &mut dyn FnMut(Labels, Number)) {
        let is_shown =
            matches!(self.read, Read::Heap(_) | Read::HeapBy(..)) && !self.is_process_wide();
        if !is_shown {
            return;
        }
        for heap in snapshot.instances.iter().take(INSTANCES_SHOWN) {
            let of_one = Snapshot { heap: whole(heap), ..Snapshot::default() };
            self.samples(&of_one, false, emit);
        }
    }

    /// Whether the figure is of the process, though it is read with a heap.
    fn is_process_wide(&self) -> bool {
        self.name == "flagstone_resident_bytes"
    }
}

/// What the figures of a heap as a whole are read from: all but its classes and locks.
fn whole(heap: &HeapSnapshot) -> HeapSnapshot {
    let mut whole = heap.clone();
    whole.classes.clear();
    whole.locks.clear();
    whole
}

/// Instances that `/metrics` shows at most, about fifty series each, those with the lowest numbers.
pub(crate) const INSTANCES_SHOWN: usize = 32;

/// The label that tells an instance heap from others. The global heap carries none, so that the
/// common case stays short; an absent label and an empty one are the same to Prometheus.
pub(crate) fn heap_label(snapshot: &Snapshot) -> Option<(&'static str, String)> {
    let name = &snapshot.heap.heap;
    (!name.is_empty() && name != "global").then(|| ("heap", name.clone()))
}

/// A histogram of counts that are kept elsewhere.
pub(crate) struct Distribution {
    pub(crate) labels: Labels,
    /// Cumulative counts by upper bound, in the series' unit before it is applied; the total last,
    /// under `None`.
    pub(crate) buckets: Vec<(Option<u64>, u64)>,
    /// The sum of all samples, where it is known; a made-up one would be worse than none.
    pub(crate) sum: Option<u64>,
}

/// Whether a class has served or prepared a block. Never becomes false again.
fn is_used(class: &ClassSnapshot) -> bool {
    class.allocs > 0 || class.refills > 0
}
