//! The exporter as the recorder of the process. One test, because a process has one recorder.

mod common;

use flagstone_telemetry::Options;
use flagstone_telemetry::prometheus::Exporter;

#[test]
fn the_installed_exporter_shows_what_the_program_emits() {
    let exporter = Exporter::install().expect("no recorder yet");
    metrics::counter!("jobs_total", "queue" => "mail").increment(2);
    metrics::histogram!("job_seconds").record(0.25);
    exporter.run_upkeep();

    let second = Exporter::install().expect_err("one is installed");
    assert_eq!(second.to_string(), "the process has a metrics recorder already");
    let local = second.into_local();

    let snapshot = common::full();
    let text = exporter.render(&snapshot, Options::default());
    assert_eq!(common::value(&text, "jobs_total", &[("queue", "mail")]), 2.0);
    assert_eq!(common::value(&text, "job_seconds_count", &[]), 1.0);
    assert!(text.contains("flagstone_mapped_bytes "));

    // A snapshot published beside the exporter's own is shown once, not twice.
    flagstone_telemetry::publish(&snapshot);
    let text = exporter.render(&snapshot, Options::default());
    let acquired = common::value(&text, "flagstone_lock_wait_seconds_total", &[("lock", "shards")]);
    assert_eq!(acquired, snapshot.heap.locks[4].wait_nanos as f64 / 1e9);

    // The one that was refused shows the heap and nothing of the program.
    let text = local.render(&snapshot, Options::default());
    assert!(!text.contains("jobs_total"));
    assert!(text.contains("flagstone_mapped_bytes "));
}
