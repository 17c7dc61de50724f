//! The embedded heap as the global allocator of a program without std: collections, a full buffer, and
//! all of it back.
//!
//! Exits with 0, or with the number of the step that went wrong.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::alloc::{GlobalAlloc, Layout};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem::MaybeUninit;
use core::ptr;

use flagstone_slab::embedded::EmbeddedHeap;
use flagstone_slab::port::FixedRegion;
// The entry point.
use no_std as _;

#[global_allocator]
static HEAP: EmbeddedHeap = EmbeddedHeap::new();

static mut BUFFER: [MaybeUninit<u8>; 256 << 10] = [MaybeUninit::uninit(); 256 << 10];

#[unsafe(no_mangle)]
fn program_main() -> u8 {
    let buffer = &raw mut BUFFER;
    // SAFETY: the one use of the buffer.
    let buffer = unsafe { &mut *buffer };
    // An odd start and an odd length.
    if HEAP.give(FixedRegion::new(&mut buffer[3..])).is_err() {
        return 1;
    }
    let mut steps = [collections as fn() -> bool, full, full].into_iter().zip(2..);
    let failed = steps.find(|(step, _)| !step() || HEAP.stats().live != 0);
    failed.map_or(0, |(_, number)| number)
}

fn collections() -> bool {
    let mut map = BTreeMap::new();
    for i in 0..300u64 {
        let mut name = String::from("key ");
        name.extend(core::iter::repeat_n('x', (i % 50) as usize));
        map.insert(i, (name, Box::new([i; 9])));
    }
    let mut all: Vec<u64> = Vec::new();
    all.extend(map.values().map(|(_, numbers)| numbers[8]));
    map.retain(|i, _| i % 3 == 0);
    all.iter().copied().eq(0..300)
        && map
            .iter()
            .all(|(i, (name, numbers))| name.len() == 4 + (i % 50) as usize && numbers[0] == *i)
}

/// Blocks linked through themselves until there are no more, and all of them back.
fn full() -> bool {
    let layout = Layout::new::<[usize; 9]>();
    let mut last: *mut usize = ptr::null_mut();
    let mut count = 0usize;
    loop {
        // SAFETY: the layout is not empty.
        let block = unsafe { HEAP.alloc(layout) }.cast::<usize>();
        if block.is_null() {
            break;
        }
        count += 1;
        // SAFETY: just handed out, nine words large.
        unsafe {
            block.write(last.expose_provenance());
            block.add(8).write(count);
        }
        last = block;
    }
    let mut left = count;
    while !last.is_null() {
        // SAFETY: written above, and given up once.
        unsafe {
            if last.add(8).read() != left {
                return false;
            }
            let next = ptr::with_exposed_provenance_mut(last.read());
            HEAP.dealloc(ptr::NonNull::new_unchecked(last.cast()), layout);
            last = next;
        }
        left -= 1;
    }
    // 80-byte blocks fill all but the table and the two ends.
    left == 0 && count * 80 > 245 << 10
}
