//! Every request from the N-th on fails: of a heap's backing, and of whoever allocates.

use std::alloc::Layout;
use std::process::Command;
use std::ptr::NonNull;
use std::thread;

use flagstone_slab::port::{AllocError, BlockPort, FailAfter, OsPages, System, Tracing};
use flagstone_slab::{BuildFailure, Heap};

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).unwrap()
}

/// Checks both ends of a block, which is where a lost or moved piece shows.
fn check(block: NonNull<u8>, bytes: usize, seed: u8) {
    for at in (0..bytes.min(512)).chain(bytes.saturating_sub(512)..bytes) {
        // SAFETY: within the block, which is live.
        assert_eq!(unsafe { block.add(at).read() }, seed, "contents lost");
    }
}

/// Allocates, resizes and frees blocks of every tier on two threads; returns how many requests failed.
/// Whatever fails, what is live keeps its contents.
fn churn(heap: &Heap) -> usize {
    let sizes = [24, 500, 9_000, 100_000, 700_000, 2 << 20];
    let work = || {
        let mut failed = 0;
        let mut live: Vec<(NonNull<u8>, Layout, u8)> = Vec::new();
        for i in 0..120usize {
            let layout = layout(sizes[i % sizes.len()]);
            match heap.try_alloc(layout) {
                // SAFETY: within the block.
                Ok(block) => unsafe {
                    block.write_bytes(i as u8, layout.size());
                    live.push((block, layout, i as u8));
                },
                Err(error) => {
                    assert_eq!(error.layout(), layout);
                    failed += 1;
                }
            }
            if i % 5 == 4 && !live.is_empty() {
                let at = i % live.len();
                let (block, old, seed) = live[at];
                let new = Layout::from_size_align(old.size() * 2, 8).unwrap();
                // SAFETY: live with this layout; replaced if it moved.
                match unsafe { heap.try_realloc(block, old, new) } {
                    // SAFETY: within the block, which is live.
                    Ok(block) => unsafe {
                        check(block, old.size(), seed);
                        block.write_bytes(seed, new.size());
                        live[at] = (block, new, seed);
                    },
                    Err(_) => failed += 1,
                }
            }
            if i % 3 == 2 && !live.is_empty() {
                let (block, layout, seed) = live.swap_remove(i % live.len());
                // SAFETY: live, freed once.
                unsafe {
                    check(block, layout.size(), seed);
                    heap.dealloc(block, layout);
                }
            }
        }
        for (block, layout, seed) in live {
            // SAFETY: as above.
            unsafe {
                check(block, layout.size(), seed);
                heap.dealloc(block, layout);
            }
        }
        flagstone_slab::thread::give_back();
        failed
    };
    thread::scope(|scope| scope.spawn(work).join().unwrap() + work())
}

// requirement: G7
#[test]
fn a_heap_whose_backing_fails_from_the_nth_request_on_stays_whole() {
    let mut failing = 0;
    // The sweep goes past the last request that the work makes: N in 1, 3, 7, 37 and all others.
    for n in 1.. {
        let backing = Tracing::new(FailAfter::new(OsPages, n));
        let heap = match Heap::builder().backing(backing).build() {
            Ok(heap) => heap,
            Err(error) => {
                assert_eq!(n, 1, "a heap needs one range to be there");
                assert!(matches!(error.failure, BuildFailure::OutOfMemory { .. }));
                error.backing.assert_nothing_outstanding();
                continue;
            }
        };
        let failed = churn(&heap);
        let injector = heap.backing().inner();
        assert_eq!(failed > 0, injector.refused() > 0 && heap.snapshot().tiers.failures > 0);
        let (refused, snapshot) = (injector.refused(), heap.snapshot());
        assert_eq!(snapshot.bytes.live, 0, "N = {n}");
        assert_eq!(snapshot.bytes.residual(), 0, "N = {n}");
        // With memory there again, the heap works as if nothing had been.
        injector.fail_never();
        assert_eq!(churn(&heap), 0, "N = {n}");
        heap.into_backing().assert_nothing_outstanding();
        if refused == 0 {
            assert!(n > 3, "the work asks for more than {n} ranges");
            break;
        }
        failing += 1;
    }
    assert!(failing >= 3);
}

// requirement: G7
#[test]
fn every_allocation_from_the_nth_on_fails_until_told_otherwise() {
    for n in [1, 3, 7, 37] {
        let heap = Heap::builder().build().unwrap();
        let port = FailAfter::new(&*heap, n);
        let mut blocks = Vec::new();
        for request in 1..=100u64 {
            match port.try_alloc(layout(64)) {
                Ok(block) => blocks.push(block),
                Err(error) => {
                    assert_eq!(error, AllocError::Injected { layout: layout(64), request })
                }
            }
        }
        assert_eq!(blocks.len(), n - 1, "it does not fail once and then succeed for ever");
        assert_eq!((port.requests(), port.refused()), (100, 100 - (n - 1)));
        if let Some(&block) = blocks.first() {
            // SAFETY: live with this layout; a refusal leaves it.
            let grown = unsafe { port.try_realloc(block, layout(64), layout(6400)) };
            assert!(grown.is_err());
            assert_eq!(heap.usable_size(block.as_ptr()), Some(64));
        }
        port.fail_after(2);
        blocks.push(port.try_alloc(layout(64)).unwrap());
        assert!(port.try_alloc(layout(64)).is_err());
        for block in blocks {
            // SAFETY: allocated above, freed once.
            unsafe { port.dealloc(block, layout(64)) };
        }
        assert_eq!(heap.live_bytes(), 0);
    }
}

// requirement: G7
#[test]
fn the_environment_sets_the_first_request_that_fails() {
    const CHILD: &str = "FLAGSTONE_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let port = match FailAfter::from_env(System::SYSTEM) {
            Ok(port) => port,
            Err(error) => return println!("refused: {error}"),
        };
        let served = (0..20).take_while(|_| port.try_alloc(layout(8)).is_ok()).count();
        return println!("served {served}");
    }
    let said = |value: Option<&str>| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["the_environment_sets_the_first_request_that_fails", "--exact", "--nocapture"])
            .env(CHILD, "1")
            .env_remove("FLAGSTONE_FAIL_AFTER");
        if let Some(value) = value {
            child.env("FLAGSTONE_FAIL_AFTER", value);
        }
        String::from_utf8(child.output().unwrap().stdout).unwrap()
    };
    assert!(said(Some("7")).contains("served 6\n"));
    assert!(said(None).contains("served 20\n"));
    assert!(said(Some("seven")).contains("refused: FLAGSTONE_FAIL_AFTER=seven"));
}
