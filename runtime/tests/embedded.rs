//! The whole of it under the real allocator: what a program that embeds Flagstone sees.

mod common;

use std::sync::Mutex;

use common::{Client, config, wait_until};
use flagstone::Heap;
use flagstone::runtime::Builder;
use serde_json::Value;

#[global_allocator]
static GLOBAL: flagstone::Flagstone = flagstone::Flagstone::new();

/// The tests of this binary share one heap: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn figure(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|l| l.split(' ').next() == Some(series));
    let line = line.unwrap_or_else(|| panic!("{series} in\n{text}"));
    line.rsplit(' ').next().expect("a value").parse().expect("a number")
}

/// requirement: D7
/// requirement: D8
/// requirement: D10
/// requirement: P1
#[test]
fn what_the_program_allocates_is_what_metrics_show() {
    let _serial = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let runtime =
        Builder::new_multi_thread().worker_threads(2).admin(config()).build().expect("build");
    let mut client = Client::connect(runtime.admin_addr().expect("configured"));
    let block = Box::new(0u8);
    assert!(
        Heap::global().usable_size(&*block).is_some(),
        "the allocator of this test is Flagstone"
    );

    let in_use = "flagstone_class_in_use_blocks{class=\"1024\"}";
    let allocs = "flagstone_class_allocs_total{class=\"1024\"}";
    drop(std::hint::black_box(vec![0u8; 1024]));
    let before = client.get("/metrics").body;
    let held = runtime
        .block_on(runtime.spawn(async { (0..5_000).map(|_| vec![1u8; 1024]).collect::<Vec<_>>() }))
        .expect("task");
    let large = vec![0u8; 64 << 20];
    let during = client.get("/metrics").body;
    // A few blocks of that size may be the runtime's own, and go meanwhile.
    let grown = figure(&during, in_use) - figure(&before, in_use);
    assert!(grown >= 4_900.0, "{grown}");
    assert!(figure(&during, allocs) >= figure(&before, allocs) + 5_000.0);
    let fallback = "flagstone_fallback_allocs_total";
    assert!(figure(&during, fallback) > figure(&before, fallback));
    let sizes = "flagstone_fallback_request_bytes_bucket{le=\"67108864\"}";
    assert!(figure(&during, sizes) >= 1.0);
    assert!(figure(&during, "flagstone_process_uptime_seconds") >= 0.0);

    // Freed here, allocated on a worker: it travels back, and the marks remember it.
    drop(held);
    drop(large);
    flagstone::thread::flush();
    wait_until("the blocks to be back with their owner", || {
        let class = Heap::global().snapshot().classes.into_iter().find(|c| c.block_bytes == 1024);
        // The first few may have been borrowed from a common slab, and go straight to the bucket.
        let class = class.expect("a class of 1024");
        class.remote_frees + class.bucket_frees >= 5_000
    });
    let after = client.get("/metrics").body;
    assert!(figure(&after, in_use) + 4_000.0 <= figure(&during, in_use));
    let mark = "flagstone_class_high_water_blocks{class=\"1024\"}";
    assert!(figure(&after, mark) >= figure(&during, in_use));
    assert!(figure(&after, "flagstone_remote_posted_blocks_total") >= 5_000.0);
    assert!(figure(&after, "flagstone_leases_total") >= 2.0, "a lease for each worker");
}

#[test]
fn the_bytes_add_up() {
    let _serial = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let runtime =
        Builder::new_multi_thread().worker_threads(1).admin(config()).build().expect("build");
    let mut client = Client::connect(runtime.admin_addr().expect("configured"));
    let stats: Value = serde_json::from_str(&client.get("/stats.json").body).expect("JSON");
    let bytes = &stats["heap"]["bytes"];
    let part = |name: &str| bytes[name].as_i64().unwrap_or_else(|| panic!("{name} in {bytes}"));
    let parts: i64 =
        ["live", "cached", "fragmentation", "retired", "metadata"].map(part).iter().sum();
    assert_eq!(parts + part("residual"), part("mapped"));
    // Parts are read one after another while the server's own threads go on, a slab at a time.
    assert!(part("residual").abs() <= 1 << 20, "{bytes}");
    let classes = stats["heap"]["classes"].as_array().expect("a list");
    let in_classes: u64 = classes.iter().map(|c| c["in_use_bytes"].as_u64().expect("bytes")).sum();
    let in_fallback = stats["heap"]["fallback"]["live_bytes"].as_u64().expect("bytes");
    assert_eq!(part("live") + part("retired"), (in_classes + in_fallback) as i64);
    assert_eq!(stats["heap"]["fallback"]["allocs"], stats["heap"]["tiers"]["fallback_hits"]);
}
