//! Large blocks under what concerns a whole process: memory locked by `mlockall`, and forks.

#![cfg(target_os = "linux")]

use std::alloc::{GlobalAlloc, Layout};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use flagstone_slab::{Flagstone, Heap};

/// Blocks come from here by calls; the test program itself uses the system's allocator.
static HEAP: Flagstone = Flagstone::new();

const ERRAND: &str = "FLAGSTONE_TEST_ERRAND";
const MIB: usize = 1 << 20;

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).unwrap()
}

/// The system refuses to purge locked pages: contents stay right, zeroed means zero, and what is
/// kept stays bounded because it is unmapped instead.
#[test]
fn locked_memory_is_reused_zeroed_and_given_back() {
    const TEST: &str = "locked_memory_is_reused_zeroed_and_given_back";
    if std::env::var_os(ERRAND).is_none() {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([TEST, "--exact", "--nocapture", "--test-threads=1"])
            .env(ERRAND, TEST)
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        return;
    }
    // SAFETY: locks the memory of this process, which is a child of its own.
    if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } != 0 {
        return; // this user may not lock so much
    }
    let heap = Heap::global();
    let mut peak = 0;
    for round in 0..40usize {
        let sizes = [5 * MIB + round * 77_777, 600 << 10, 9 * MIB, MIB + round];
        let blocks = sizes.map(|bytes| {
            // SAFETY: layouts are not empty; what is read was asked for.
            unsafe {
                let block = HEAP.alloc_zeroed(layout(bytes));
                assert!(!block.is_null());
                let found = std::slice::from_raw_parts(block, bytes);
                assert!(found.iter().all(|&byte| byte == 0), "{bytes} in round {round}");
                block.write_bytes(0xAA, bytes);
                let grown = HEAP.realloc(block, layout(bytes), bytes + 3 * MIB);
                assert!(std::slice::from_raw_parts(grown, bytes).iter().all(|&b| b == 0xAA));
                (grown, bytes + 3 * MIB)
            }
        });
        peak = peak.max(heap.snapshot().fallback.mapped_bytes);
        for (block, bytes) in blocks {
            // SAFETY: resized above to this layout, freed once.
            unsafe { HEAP.dealloc(block, layout(bytes)) };
        }
        let now = heap.snapshot().fallback;
        assert!(now.cached_bytes <= peak + (40 << 20), "{now:?}");
        assert_eq!(heap.snapshot().bytes.residual(), 0);
    }
    heap.purge();
    let after = heap.snapshot().fallback;
    assert_eq!((after.mapped_bytes, after.cached_bytes), (0, 0), "{after:?}");
}

/// The child of a process whose other thread is busy with large blocks has a space it can use.
#[test]
fn the_child_of_a_busy_process_uses_large_blocks() {
    // SAFETY: layouts are not empty; blocks are freed once per process.
    unsafe {
        let kept = HEAP.alloc(layout(7 * MIB));
        kept.write_bytes(0x5A, 7 * MIB);
        let (stop, stopped) = mpsc::channel::<()>();
        let worker = thread::spawn(move || {
            let mut bytes = 600 << 10;
            while let Err(mpsc::TryRecvError::Empty) = stopped.try_recv() {
                bytes = 600_000 + (bytes * 5 + 4_096) % (8 * MIB);
                let block = HEAP.alloc(layout(bytes));
                block.write(1);
                let block = HEAP.realloc(block, layout(bytes), bytes + 2 * MIB);
                HEAP.dealloc(block, layout(bytes + 2 * MIB));
            }
        });
        for _ in 0..15 {
            let pid = libc::fork();
            if pid == 0 {
                let mut sound = (0..7 * MIB).step_by(4096).all(|at| kept.add(at).read() == 0x5A);
                HEAP.dealloc(kept, layout(7 * MIB));
                for round in 1..20usize {
                    let block = HEAP.alloc_zeroed(layout(round * MIB));
                    sound &= !block.is_null() && block.add(round * MIB - 1).read() == 0;
                    block.write_bytes(7, 4096);
                    let block = HEAP.realloc(block, layout(round * MIB), (round + 9) * MIB);
                    sound &= !block.is_null() && block.add(4095).read() == 7;
                    HEAP.dealloc(block, layout((round + 9) * MIB));
                }
                libc::_exit(i32::from(!sound));
            }
            assert!(pid > 0);
            let mut status = 0;
            assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
        }
        drop(stop);
        worker.join().unwrap();
        assert!((0..7 * MIB).step_by(512).all(|at| kept.add(at).read() == 0x5A));
        HEAP.dealloc(kept, layout(7 * MIB));
    }
}
