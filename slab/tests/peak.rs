//! Memory comes back after a peak. In a process of its own: a thread of another test could adopt a
//! maker's shard and then wait with it.

use std::thread;
use std::time::{Duration, Instant};

use flagstone_slab::stats::{ClassSnapshot, HeapSnapshot};
use flagstone_slab::{Flagstone, Heap};

#[global_allocator]
static ALLOCATOR: Flagstone = Flagstone::new();

fn class(snapshot: &HeapSnapshot, bytes: u64) -> ClassSnapshot {
    *snapshot.classes.iter().find(|class| class.block_bytes >= bytes).unwrap()
}

#[test]
fn a_peak_goes_back_to_the_system_with_every_thread_parked() {
    let heap = Heap::global();
    heap.set_decay(Duration::ZERO);
    heap.purge();
    let before = heap.snapshot();
    let peak: Vec<Vec<u8>> = thread::scope(|scope| {
        let makers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| (0..8_000).map(|_| vec![1u8; 1_500]).collect::<Vec<_>>()))
            .collect();
        makers.into_iter().flat_map(|maker| maker.join().unwrap()).collect()
    });
    let during = heap.snapshot();
    assert!(during.bytes.mapped - before.bytes.mapped > 80 << 20);
    let used = class(&during, 1_500);
    assert!(used.in_use >= 64_000 && used.high_water >= used.in_use);
    drop(peak);
    flagstone_slab::thread::park();
    let mut report = heap.purge();
    let mut after = heap.snapshot();
    // A maker has its shard until its exit hook has run, which may be after the join.
    let deadline = Instant::now() + Duration::from_secs(30);
    while after.bytes.mapped >= before.bytes.mapped + (4 << 20) && Instant::now() < deadline {
        thread::yield_now();
        report = heap.purge();
        after = heap.snapshot();
    }
    // Some slabs went back, and with a decay of zero their pages too, while the peak was dropped.
    let purged = after.segments.purged_bytes_total - before.segments.purged_bytes_total;
    assert!(purged > 80 << 20, "{purged} bytes; last {report:?}");
    assert!(after.bytes.mapped < before.bytes.mapped + (4 << 20), "{:?}", after.bytes);
    // A slab that something else took during the peak may keep its segment; one stays as a spare.
    let mapped = after.segments.mapped_total - before.segments.mapped_total;
    let unmapped = after.segments.unmapped_total - before.segments.unmapped_total;
    assert!(mapped >= 20 && unmapped + 4 >= mapped, "{:?}", after.segments);
    let (was, is) = (during.bytes.resident.unwrap(), after.bytes.resident.unwrap());
    assert!(is + (80 << 20) < was, "resident was {was}, is {is}");
    let lasting = class(&after, 1_500);
    assert!(lasting.high_water >= 64_000, "the peak is remembered");
    heap.reset_window_high_water();
    let window = class(&heap.snapshot(), 1_500);
    assert!(window.window_high_water < 1_000 && window.high_water >= 64_000);
    heap.set_decay(Duration::from_secs(1));
    assert_eq!(heap.decay(), Duration::from_secs(1));
}
