//! The exporter: what it shows, in which order, and that it invents and loses nothing.

mod common;

use std::process::{Command, Stdio};
use std::time::Duration;

use flagstone_telemetry::prometheus::Exporter;
use flagstone_telemetry::{Options, Snapshot, publish, publish_with, series};
use metrics_exporter_prometheus::PrometheusBuilder;

#[test]
fn every_family_has_help_and_type_and_comes_sorted() {
    let text = Exporter::local().render(&common::full(), Options::default().per_shard(true));
    let names = |keyword: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|l| l.strip_prefix(keyword));
        lines.map(|l| l.split(' ').next().expect("a name").to_owned()).collect()
    };
    let mut expected: Vec<_> = series().map(|s| s.name().to_owned()).collect();
    expected.sort();
    assert_eq!(names("# HELP "), expected);
    assert_eq!(names("# TYPE "), expected);
    for series in series() {
        let line = format!("# TYPE {} {}", series.name(), series.kind().as_str());
        assert!(text.lines().any(|l| l == line), "{line}");
    }
    let classes: Vec<_> =
        text.lines().filter(|l| l.starts_with("flagstone_class_slabs{")).collect();
    let order: Vec<_> = classes.iter().map(|l| l.split('"').nth(1).expect("a class")).collect();
    assert_eq!(order, ["16", "64", "1024"]);
}

#[test]
fn rendering_one_snapshot_twice_gives_one_text() {
    let exporter = Exporter::local();
    let snapshot = common::full();
    let first = exporter.render(&snapshot, Options::default());
    assert_eq!(first, exporter.render(&snapshot, Options::default()));
    assert_eq!(first, Exporter::local().render(&snapshot, Options::default()));
}

#[test]
fn counters_follow_the_heap_and_gauges_go_down() {
    let exporter = Exporter::local();
    let mut snapshot = common::full();
    let in_use = |text: &str| {
        let class = [("class", "64")];
        (
            common::value(text, "flagstone_class_allocs_total", &class),
            common::value(text, "flagstone_class_in_use_blocks", &class),
        )
    };
    let (allocs, blocks) = in_use(&exporter.render(&snapshot, Options::default()));
    snapshot.heap.classes[1].allocs += 5;
    snapshot.heap.classes[1].in_use -= 3;
    assert_eq!(
        in_use(&exporter.render(&snapshot, Options::default())),
        (allocs + 5.0, blocks - 3.0)
    );
}

/// requirement: D7
#[test]
fn lock_times_are_counters_to_the_nanosecond() {
    let mut snapshot = common::full();
    snapshot.heap.locks[1].wait_nanos = 1_234_567_890_123;
    let text = Exporter::local().render(&snapshot, Options::default());
    let line = "flagstone_lock_wait_seconds_total{lock=\"bucket\",class=\"64\"} 1234.567890123";
    assert!(text.lines().any(|l| l == line), "{text}");
    assert!(text.contains("# TYPE flagstone_lock_wait_seconds_total counter\n"));
}

#[test]
fn a_class_appears_with_its_first_block_and_stays() {
    let exporter = Exporter::local();
    let mut snapshot = common::full();
    snapshot.heap.classes[2] = Default::default();
    snapshot.heap.classes[2].block_bytes = 1024;
    snapshot.heap.locks[2].acquisitions = 0;
    let has = |text: &str| {
        common::samples(text).iter().any(|s| s.labels.get("class").is_some_and(|c| c == "1024"))
    };
    assert!(!has(&exporter.render(&snapshot, Options::default())));

    snapshot.heap.classes[2].allocs = 1;
    assert!(has(&exporter.render(&snapshot, Options::default())));

    // All of it freed and returned: the counters stay on show.
    snapshot.heap.classes[2].frees = 1;
    let text = exporter.render(&snapshot, Options::default());
    assert_eq!(common::value(&text, "flagstone_class_frees_total", &[("class", "1024")]), 1.0);
    assert_eq!(common::value(&text, "flagstone_class_in_use_blocks", &[("class", "1024")]), 0.0);
}

#[test]
fn sums_over_labels_mean_something() {
    let snapshot = common::full();
    let text = Exporter::local().render(&snapshot, Options::default());
    let sum = |name: &str| -> f64 {
        common::samples(&text).iter().filter(|s| s.name == name).map(|s| s.value).sum()
    };
    let residual = common::value(&text, "flagstone_residual_bytes", &[]);
    let mapped = common::value(&text, "flagstone_mapped_bytes", &[]);
    assert_eq!(sum("flagstone_heap_bytes") + residual, mapped);
    assert_eq!(sum("flagstone_shards"), snapshot.heap.shards.len() as f64);
    let allocs: u64 = snapshot.heap.classes.iter().map(|c| c.allocs).sum();
    assert_eq!(sum("flagstone_class_allocs_total"), allocs as f64);
}

#[test]
fn shards_get_series_only_on_request() {
    let snapshot = common::full();
    let shards = |text: &str| {
        common::samples(text).iter().filter(|s| s.labels.contains_key("shard")).count()
    };
    assert_eq!(shards(&Exporter::local().render(&snapshot, Options::default())), 0);
    let exporter = Exporter::local();
    let text = exporter.render(&snapshot, Options::default().per_shard(true));
    assert_eq!(shards(&text), 15 * snapshot.heap.shards.len());

    // Asked for once they stay, and stay current.
    let mut later = snapshot.clone();
    later.heap.shards[3].live_bytes += 1;
    let text = exporter.render(&later, Options::default());
    let live = common::value(&text, "flagstone_shard_live_bytes", &[("shard", "3")]);
    assert_eq!(live, later.heap.shards[3].live_bytes as f64);
}

#[test]
fn what_the_platform_does_not_tell_is_nan_and_absent_parts_have_no_series() {
    let exporter = Exporter::local();
    let mut snapshot = common::full();
    let _ = exporter.render(&snapshot, Options::default());
    snapshot.heap.bytes.resident = None;
    let text = exporter.render(&snapshot, Options::default());
    assert!(common::value(&text, "flagstone_resident_bytes", &[]).is_nan());

    let text = Exporter::local().render(&Snapshot::default(), Options::default());
    assert!(!text.contains("flagstone_scavenger"));
    assert!(!text.contains("flagstone_admin"));
}

#[test]
fn an_instance_heap_is_told_apart_by_a_label() {
    let mut snapshot = common::full();
    snapshot.heap.heap = "cache".into();
    let text = Exporter::local().render(&snapshot, Options::default());
    let mut per_heap = 0;
    for sample in common::samples(&text) {
        let of_the_heap = ![
            "flagstone_process_",
            "flagstone_build_",
            "flagstone_snapshot_",
            "flagstone_admin_",
            "flagstone_scavenger_",
            "flagstone_epoch_",
            "flagstone_heap_instances",
        ]
        .iter()
        .any(|prefix| sample.name.starts_with(prefix));
        assert_eq!(
            sample.labels.get("heap").map(String::as_str),
            of_the_heap.then_some("cache"),
            "{sample:?}"
        );
        per_heap += u32::from(of_the_heap);
    }
    assert!(per_heap > 50);
}

#[test]
fn scrapes_at_the_same_time_each_show_one_moment() {
    let exporter = Exporter::local();
    std::thread::scope(|scope| {
        for thread in 1..=4 {
            let exporter = &exporter;
            scope.spawn(move || {
                for _ in 0..20 {
                    let mut snapshot = common::full();
                    snapshot.heap.bytes.live = thread;
                    snapshot.heap.bytes.retained = thread;
                    let text = exporter.render(&snapshot, Options::default());
                    let live = common::value(&text, "flagstone_heap_bytes", &[("use", "live")]);
                    let retained = common::value(&text, "flagstone_retained_bytes", &[]);
                    assert_eq!((live, retained), (thread as f64, thread as f64));
                }
            });
        }
    });
}

#[test]
fn a_recorder_of_the_programs_own_gets_the_same_series() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let snapshot = common::full();
    let options = Options::default().per_shard(true);
    metrics::with_local_recorder(&recorder, || {
        metrics::counter!("own_requests_total").increment(3);
        publish_with(&snapshot, options);
        // Publishing again changes nothing: nothing is added up.
        publish_with(&snapshot, options);
    });
    let theirs = recorder.handle().render();
    assert_eq!(common::value(&theirs, "own_requests_total", &[]), 3.0);
    let key = |s: &common::Sample| (s.name.clone(), s.labels.clone());
    let mut theirs: Vec<_> =
        common::samples(&theirs).into_iter().filter(|s| s.name.starts_with("flagstone_")).collect();
    let mut ours = common::samples(&Exporter::local().render(&snapshot, options));
    theirs.sort_by_key(key);
    ours.sort_by_key(key);
    assert_eq!(theirs, ours);
}

#[test]
fn publishing_without_a_recorder_does_nothing() {
    // No test of this binary installs one for the process.
    publish(&common::full());
}

#[test]
fn upkeep_leaves_counts_as_they_are() {
    let exporter = Exporter::local();
    let snapshot = common::full();
    let before = exporter.render(&snapshot, Options::default());
    exporter.run_upkeep();
    assert_eq!(before, exporter.render(&snapshot, Options::default()));
}

#[test]
fn promtool_finds_nothing_to_say() {
    let mut snapshot = common::full();
    snapshot.process.uptime = Some(Duration::from_millis(1_500));
    let text = Exporter::local().render(&snapshot, Options::default().per_shard(true));
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Ok(child) => child,
        Err(e) => {
            println!(
                "skipped: promtool cannot be run ({e}); it is part of the Prometheus distribution"
            );
            return;
        }
    };
    std::io::Write::write_all(&mut promtool.stdin.take().expect("piped"), text.as_bytes())
        .expect("promtool reads its input");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.trim().is_empty(), "{}: {said}", output.status);
}
