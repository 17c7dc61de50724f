//! The least program that uses everything the embedded heap offers: what its text comes to, and what an
//! idle heap holds.
//!
//! Prints `KIB METADATA HEAP` in bytes: of the region, of the table in it, and of the structure beside it.

#![no_std]
#![no_main]

use core::alloc::Layout;
use core::mem::MaybeUninit;

use flagstone_slab::embedded::EmbeddedHeap;
use flagstone_slab::port::FixedRegion;
use no_std::print;

static HEAP: EmbeddedHeap = EmbeddedHeap::new();

static mut BUFFER: [MaybeUninit<u8>; 256 << 10] = [MaybeUninit::uninit(); 256 << 10];

#[unsafe(no_mangle)]
fn program_main() -> u8 {
    let buffer = &raw mut BUFFER;
    // SAFETY: the one use of the buffer.
    let buffer = unsafe { &mut *buffer };
    if HEAP.give(FixedRegion::new(buffer)).is_err() {
        return 1;
    }
    let stats = HEAP.stats();
    for figure in [stats.region, stats.metadata, stats.heap] {
        number(figure);
    }
    let (small, large) = (Layout::new::<[u64; 5]>(), Layout::new::<[u64; 500]>());
    // SAFETY: the blocks are used as their layouts say, and given up once.
    unsafe {
        let (Ok(a), Ok(b)) = (HEAP.try_alloc(small), HEAP.try_alloc_zeroed(large)) else {
            return 2;
        };
        let Ok(a) = HEAP.try_realloc(a, small, large) else { return 3 };
        HEAP.dealloc(a, large);
        HEAP.dealloc(b, large);
    }
    u8::from(HEAP.stats().live != 0) * 4
}

fn number(mut n: usize) {
    let mut digits = [b' '; 20];
    let mut at = digits.len() - 1;
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    print(&digits[at..]);
}
