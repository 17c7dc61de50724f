//! Allocates and frees one block over and over, in one of several ways: to count what a way costs.
//!
//! `pairs_by_mode WAY PAIRS`; the instructions of a pair are the difference between two runs under
//! callgrind, divided by the difference of their numbers of pairs (requirement Z2):
//!
//! ```text
//! cargo build --release -p flagstone-slab --example pairs_by_mode
//! for n in 100000 200000; do
//!   valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/pairs_by_mode handle $n
//! done
//! ```
//!
//! Ways: `system` calls the system's allocator, `handle` the same through a handle in its mode;
//! `global` the global heap, `instance` an instance by reference, `sharded` a handle in that mode.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;

use flagstone_slab::mode::{AllocatorHandle, Sharded, System as SystemMode};
use flagstone_slab::port::BlockPort;
use flagstone_slab::{Flagstone, Heap};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, way, pairs] = arguments.as_slice() else { return usage() };
    let Ok(pairs) = pairs.parse() else { return usage() };
    match way.as_str() {
        "system" => direct(&System, pairs),
        "global" => direct(&Flagstone, pairs),
        "handle" => {
            let handle = AllocatorHandle::<SystemMode>::init().expect("needs nothing");
            through(handle.allocator(), pairs);
        }
        "instance" => through(&*Heap::builder().build().expect("a heap"), pairs),
        "sharded" => {
            let handle = AllocatorHandle::<Sharded>::init().expect("a heap");
            through(handle.allocator(), pairs);
        }
        _ => usage(),
    }
}

fn usage() {
    eprintln!("usage: pairs_by_mode system|handle|global|instance|sharded PAIRS");
    std::process::exit(2);
}

#[inline(never)]
fn direct(allocator: &impl GlobalAlloc, pairs: u64) {
    let layout = Layout::new::<[u64; 8]>();
    for _ in 0..pairs {
        // SAFETY: the layout is not empty; the block is freed once, with its layout.
        unsafe {
            let block = allocator.alloc(layout);
            assert!(!block.is_null());
            allocator.dealloc(black_box(block), layout);
        }
    }
}

#[inline(never)]
fn through(port: impl BlockPort, pairs: u64) {
    let layout = Layout::new::<[u64; 8]>();
    for _ in 0..pairs {
        let Ok(block) = port.try_alloc(layout) else { panic!("no memory") };
        // SAFETY: allocated just now, freed once with its layout.
        unsafe { port.dealloc(black_box(block), layout) };
    }
}
