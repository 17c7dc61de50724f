//! One heap for several threads, and for collections.

use std::alloc::{GlobalAlloc, Layout};
use std::thread;

use crate::buffer::leaked;

#[test]
fn threads_share_a_heap_and_free_each_others_blocks() {
    let heap = leaked(256 << 10);
    let (send, receive) = std::sync::mpsc::sync_channel::<(usize, Layout, u8)>(64);
    thread::scope(|scope| {
        for id in 0..3u8 {
            let send = send.clone();
            scope.spawn(move || {
                for i in 0..2000usize {
                    let layout = Layout::from_size_align(1 + i * 37 % 3000, 8).expect("valid");
                    // SAFETY: not empty.
                    let block = unsafe { heap.alloc(layout) };
                    if block.is_null() {
                        continue;
                    }
                    // SAFETY: just handed out.
                    unsafe { block.write_bytes(id, layout.size()) };
                    send.send((block.expose_provenance(), layout, id)).expect("the test reads");
                }
            });
        }
        drop(send);
        for (block, layout, id) in receive {
            let block: *mut u8 = std::ptr::with_exposed_provenance_mut(block);
            // SAFETY: the block came through the channel and is given up here.
            unsafe {
                let contents = std::slice::from_raw_parts(block, layout.size());
                assert!(contents.iter().all(|&byte| byte == id));
                GlobalAlloc::dealloc(heap, block, layout);
            }
        }
    });
    heap.debug_validate();
    assert_eq!(heap.stats().live, 0);
}

#[test]
fn collections_live_in_it_and_learn_that_it_is_full() {
    use allocator_api2_04::vec::Vec;

    let heap = leaked(64 << 10);
    let mut numbers: Vec<u64, _> = Vec::new_in(heap);
    let mut pushed = 0u64;
    while numbers.try_reserve(1).is_ok() {
        numbers.push(pushed);
        pushed += 1;
    }
    assert!(pushed >= 4000, "32 KiB of 64 at least: {pushed}");
    assert!(numbers.iter().copied().eq(0..pushed));
    let mut map = hashbrown::HashMap::new_in(heap);
    numbers.truncate(10);
    numbers.shrink_to_fit();
    for i in 0..500u32 {
        map.insert(i, i * 2);
    }
    assert!((0..500).all(|i| map[&i] == i * 2));
    drop((numbers, map));
    assert_eq!(heap.stats().live, 0);
    heap.debug_validate();
}
