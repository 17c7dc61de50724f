//! Snapshots as Prometheus text, beside what the program itself emits.
//!
//! An [`Exporter`] owns a recorder of `metrics-exporter-prometheus`. Rendering sets the snapshot's
//! series in that recorder, lets the library render all that the recorder holds, adds the few
//! families that the facade cannot hold exactly (counters of seconds, the histogram of fallback
//! sizes; see [`publish()`](crate::publish())) with the library's own formatting, and sorts the
//! whole. One lock spans the four steps, so that two scrapes at a time each show one moment.

mod exact;
mod text;

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::publish::{is_exact, set};
use crate::{Options, Snapshot, describe, series};

/// The `Content-Type` of [`Exporter::render`]'s text; Prometheus 3 refuses a scrape without one.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Renders snapshots, and what the program emits through `metrics`, as Prometheus text.
///
/// Clones share one recorder. One exporter shows one heap in full, and of other heap instances the
/// figures of the whole; more of them can be given to the installed recorder with
/// [`publish()`](crate::publish()).
#[derive(Clone)]
pub struct Exporter {
    shared: Arc<Shared>,
}

struct Shared {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    /// Held while a snapshot is set and rendered. What was asked for once is shown ever after: a
    /// recorder keeps every series, and one that is no longer set would show an old value.
    render: Mutex<Options>,
}

impl Exporter {
    /// An exporter that is not the process's recorder: it shows snapshots only. Any number of them
    /// can live in one process.
    #[must_use]
    pub fn local() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let recorder = Arc::new(recorder);
        metrics::with_local_recorder(&*recorder, describe);
        Self {
            shared: Arc::new(Shared { recorder, handle, render: Mutex::new(Options::default()) }),
        }
    }

    /// An exporter that also is the recorder of the whole process: what any part of the program
    /// emits through `metrics` appears beside the snapshots.
    ///
    /// Call [`run_upkeep`](Self::run_upkeep) now and then if nobody may be scraping; the admin
    /// server of `flagstone` does.
    ///
    /// # Errors
    /// If the process has a recorder already. The error gives the exporter back as a local one;
    /// with [`publish()`](crate::publish()) snapshots reach the recorder that is there.
    pub fn install() -> Result<Self, InstallError> {
        let exporter = Self::local();
        match metrics::set_global_recorder(Arc::clone(&exporter.shared.recorder)) {
            Ok(()) => Ok(exporter),
            Err(_) => Err(InstallError { exporter }),
        }
    }

    /// The text for `snapshot` and everything else that the recorder holds: families sorted by
    /// name, samples by labels with numbers in numeric order, so that two scrapes compare line by
    /// line. A series that was shown once stays: `options` of later calls only add to it. Those of heap
    /// instances go with their heap.
    #[must_use]
    pub fn render(&self, snapshot: &Snapshot, options: Options) -> String {
        // A panic between setting and rendering leaves older values behind, which the next call
        // overwrites.
        let mut shown = self.shared.render.lock().unwrap_or_else(PoisonError::into_inner);
        shown.per_shard |= options.per_shard;
        metrics::with_local_recorder(&*self.shared.recorder, || {
            for series in series().filter(|s| is_exact(s)) {
                series.samples(snapshot, shown.per_shard, &mut |labels, number| {
                    set(series, labels, number);
                });
            }
        });
        let mut families = text::Families::parse(&exact::render(snapshot, *shown));
        families.merge(text::Families::parse(&self.shared.handle.render()));
        // After what the recorder has: a program may publish an instance itself.
        families.merge(text::Families::parse(&exact::instances(snapshot)));
        families.to_string()
    }

    /// Folds the samples that histograms have buffered since the last call, or the last
    /// [`render`](Self::render), into their distributions. Without either of them a program's
    /// histograms grow with every sample.
    pub fn run_upkeep(&self) {
        self.shared.handle.run_upkeep();
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

/// The process has a `metrics` recorder already.
#[derive(Debug)]
pub struct InstallError {
    exporter: Exporter,
}

impl InstallError {
    /// The exporter that could not become the process's recorder; it works as a local one.
    #[must_use]
    pub fn into_local(self) -> Exporter {
        self.exporter
    }
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the process has a metrics recorder already")
    }
}

impl Error for InstallError {}
