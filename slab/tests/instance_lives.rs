//! Heaps that come and go while threads come and go: shards given back to heaps that end at the same
//! moment, leases left over from heaps whose numbers are used again, statistics read all the while.

use std::alloc::Layout;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use flagstone_slab::port::{OsPages, Tracing};
use flagstone_slab::{ClassTable, Heap, SharedHeap};

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).unwrap()
}

fn use_it(heap: &Heap, seed: usize) {
    let mut blocks = Vec::new();
    for i in 0..60 {
        let layout = layout(16 + (seed * 31 + i * 7) % 400);
        let block = heap.try_alloc(layout).unwrap();
        // SAFETY: the block holds its layout.
        unsafe { block.write_bytes(seed as u8, layout.size()) };
        blocks.push((block, layout));
    }
    for (i, (block, layout)) in blocks.into_iter().enumerate() {
        // Some stay, for the end of the heap.
        if i % 10 != 0 {
            // SAFETY: allocated above, freed once.
            unsafe {
                assert_eq!(block.read(), seed as u8);
                heap.dealloc(block, layout);
            }
        }
    }
}

// requirement: D4
#[test]
fn threads_end_while_their_heaps_end() {
    let backing = Arc::new(Tracing::new(OsPages));
    for round in 0..120 {
        let build = || Heap::builder().backing(backing.clone()).shards_on_demand(1 + round % 4);
        let heaps: Vec<_> = (0..3).map(|_| SharedHeap::from(build().build().unwrap())).collect();
        let barrier = Arc::new(Barrier::new(4));
        let threads: Vec<_> = (0..4)
            .map(|t| {
                let (heaps, barrier) = (heaps.clone(), barrier.clone());
                thread::spawn(move || {
                    for (h, heap) in heaps.iter().enumerate() {
                        use_it(heap, round + t + h);
                        if (round + t) % 3 == 0 {
                            flagstone_slab::thread::park();
                        }
                    }
                    barrier.wait();
                    // The last owner ends the heaps while the other threads end.
                    drop(heaps);
                })
            })
            .collect();
        drop(heaps);
        for thread in threads {
            thread.join().unwrap();
        }
    }
    backing.assert_nothing_outstanding();
}

#[test]
fn heaps_made_and_dropped_by_many_threads_are_seen_whole_by_readers() {
    let (over, is_over) = mpsc::channel::<()>();
    let reader = thread::spawn(move || {
        while is_over.try_recv() == Err(mpsc::TryRecvError::Empty) {
            Heap::for_each(|heap| {
                let name = heap.snapshot().heap;
                // Of this test, of the one beside it, or the global one.
                let known = name.starts_with("life ") || name == "heap" || name == "global";
                assert!(known, "{name:?}");
                heap.scavenge();
            });
        }
    });
    thread::scope(|scope| {
        for t in 0..4 {
            scope.spawn(move || {
                for i in 0..60 {
                    let name = format!("life {t}.{i}");
                    let table =
                        if i % 2 == 0 { ClassTable::SMALL_POOL } else { ClassTable::standard() };
                    let heap = Heap::builder().name(&name).class_table(table).build().unwrap();
                    thread::scope(|inner| {
                        inner.spawn(|| use_it(&heap, i));
                        use_it(&heap, i + 1);
                    });
                    assert_eq!(heap.name(), name);
                }
            });
        }
    });
    drop(over);
    reader.join().unwrap();
}
