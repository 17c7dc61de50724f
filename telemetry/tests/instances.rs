//! Heap instances beside the global heap: shown while they exist, told apart, and no more than so many.

mod common;

use std::alloc::Layout;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use flagstone_slab::Heap;
use flagstone_telemetry::prometheus::Exporter;
use flagstone_telemetry::{Options, Snapshot, json};

/// Instances are the process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn render(exporter: &Exporter) -> String {
    exporter.render(&Snapshot::take(Heap::global()), Options::default())
}

/// Values of the label `heap`.
fn heaps(text: &str) -> BTreeSet<String> {
    common::samples(text).into_iter().filter_map(|s| s.labels.get("heap").cloned()).collect()
}

// requirement: D7, D10
#[test]
fn an_instance_is_shown_until_it_is_dropped() {
    let _turn = alone();
    let exporter = Exporter::local();
    assert_eq!(heaps(&render(&exporter)), BTreeSet::new());
    let heap = Heap::builder().name("index").build().expect("memory");
    let layout = Layout::new::<[u64; 4]>();
    let block = heap.try_alloc(layout).expect("memory");

    let snapshot = Snapshot::take(Heap::global());
    let text = exporter.render(&snapshot, Options::default());
    let live = [("heap", "index"), ("use", "live")];
    assert_eq!(common::value(&text, "flagstone_heap_bytes", &live), 32.0);
    assert_eq!(common::value(&text, "flagstone_residual_bytes", &[("heap", "index")]), 0.0);
    assert_eq!(common::value(&text, "flagstone_heap_instances", &[]), 1.0);
    // What is the process's is shown once, and what there is of every class not at all.
    let with_heap: Vec<_> =
        common::samples(&text).into_iter().filter(|s| s.labels.contains_key("heap")).collect();
    assert!((30..70).contains(&with_heap.len()), "{} series of one instance", with_heap.len());
    assert!(with_heap.iter().all(|s| s.name != "flagstone_resident_bytes"));
    assert!(with_heap.iter().all(|s| !s.labels.contains_key("class")), "{with_heap:?}");
    // The same in JSON, with the classes.
    let json = json::to_value(&snapshot);
    assert_eq!(json["instance_count"], 1);
    let instance = &json["instances"][0];
    assert_eq!((&instance["heap"], &instance["bytes"]["live"]), (&"index".into(), &32.into()));
    assert!(instance["classes"].as_array().is_some_and(|classes| classes.len() > 10));
    for sample in with_heap.iter().filter(|s| s.name == "flagstone_heap_bytes") {
        let part = &instance["bytes"][&sample.labels["use"]];
        assert_eq!(part.as_f64(), Some(sample.value), "{sample:?}");
    }

    // SAFETY: allocated above with this layout.
    unsafe { heap.dealloc(block, layout) };
    drop(heap);
    let text = render(&exporter);
    assert_eq!(heaps(&text), BTreeSet::new(), "no series stays behind its heap");
    assert_eq!(common::value(&text, "flagstone_heap_instances", &[]), 0.0);
}

#[test]
fn names_are_told_apart_and_written_safely() {
    let _turn = alone();
    let names = ["cache", "global", "cache", "", "a \"quoted\\name\"\n", "cache"];
    let made: Vec<_> =
        names.iter().map(|name| Heap::builder().name(name).build().expect("memory")).collect();
    let snapshot = Snapshot::take(Heap::global());
    let shown: BTreeSet<&str> = snapshot.instances.iter().map(|heap| &*heap.heap).collect();
    let expected = ["#2", "a \"quoted\\name\"\n", "cache", "cache#2", "cache#3", "global#2"].into();
    assert_eq!(shown, expected);
    let text = Exporter::local().render(&snapshot, Options::default());
    // Every line has its value behind the last blank: no name has broken out of its label.
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        assert!(value.is_some(), "{line}");
    }
    assert!(text.contains(r#"heap="a \"quoted\\name\"\n""#), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    let distinct: BTreeSet<&str> = lines.iter().copied().collect();
    assert_eq!(lines.len(), distinct.len(), "a sample is given twice");
    drop(made);
}

#[test]
fn of_very_many_instances_some_are_shown_and_all_are_counted() {
    let _turn = alone();
    let made: Vec<_> =
        (0..60).map(|n| Heap::builder().name(&format!("n{n}")).build().expect("memory")).collect();
    let snapshot = Snapshot::take(Heap::global());
    assert_eq!(snapshot.instances.len(), made.len());
    let text = Exporter::local().render(&snapshot, Options::default());
    assert_eq!(heaps(&text).len(), 32);
    assert_eq!(common::value(&text, "flagstone_heap_instances", &[]), 60.0);
    let list = &json::to_value(&snapshot)["instances"];
    assert_eq!(list.as_array().map(Vec::len), Some(60));
}

#[test]
fn an_instance_that_is_the_heap_shown_is_not_shown_twice() {
    let _turn = alone();
    let (main, other) =
        (Heap::builder().name("main").build(), Heap::builder().name("main").build());
    let (main, other) = (main.expect("memory"), other.expect("memory"));
    let snapshot = Snapshot::take(&main);
    assert_eq!(snapshot.heap.heap, "main");
    let names: Vec<_> = snapshot.instances.iter().map(|heap| &*heap.heap).collect();
    assert_eq!(names, ["main#2"]);
    drop(other);
}
