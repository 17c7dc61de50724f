//! The injector: every request from the N-th on fails, or the N-th alone; of a heap's backing, and of
//! whoever allocates. `fault_sweep` goes through all N.

mod common;

use std::alloc::Layout;
use std::process::Command;
use std::ptr::NonNull;

use common::churn::churn;
use common::traced;
use flagstone_slab::port::{AllocError, BlockPort, FailAfter, OsPages, System, Tracing};
use flagstone_slab::{BuildFailure, Heap};

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).unwrap()
}

// requirement: G7
#[test]
fn a_heap_whose_backing_fails_from_the_nth_request_on_stays_whole() {
    for n in [1, 3, 7, 37] {
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
        let failed = churn(&heap, 120);
        let injector = heap.backing().inner();
        assert_eq!(failed > 0, injector.refused() > 0 && heap.snapshot().tiers.failures > 0);
        let snapshot = heap.snapshot();
        assert_eq!(snapshot.bytes.live, 0, "N = {n}");
        assert_eq!(snapshot.bytes.residual(), 0, "N = {n}");
        // With memory there again, the heap works as if nothing had been.
        injector.fail_never();
        assert_eq!(churn(&heap, 120), 0, "N = {n}");
        heap.into_backing().assert_nothing_outstanding();
    }
}

#[test]
fn one_request_fails_and_those_after_it_do_not() {
    let heap = traced(Heap::builder());
    let port = Tracing::new(FailAfter::new(&**heap, usize::MAX));
    let injector = port.inner();
    injector.fail_once(3);
    let served: Vec<bool> = (0..6).map(|_| port.try_alloc(layout(40)).is_ok()).collect();
    assert_eq!(served, [true, true, false, true, true, true]);
    assert_eq!((injector.requests(), injector.refused()), (6, 1));
    // Told anew, it counts from there; and `fail_after` again has no end.
    injector.fail_after(1);
    assert!(port.try_alloc(layout(40)).is_err() && port.try_alloc(layout(40)).is_err());
    injector.fail_never();
    for leak in port.leaks() {
        let block = NonNull::new(std::ptr::with_exposed_provenance_mut(leak.address)).unwrap();
        // SAFETY: handed out with this layout and not given back, says the ledger.
        unsafe { port.dealloc(block, layout(leak.bytes)) };
    }
    port.assert_nothing_outstanding();
}

// requirement: G7
#[test]
fn every_allocation_from_the_nth_on_fails_until_told_otherwise() {
    for n in [1, 3, 7, 37] {
        let heap = traced(Heap::builder());
        let port = FailAfter::new(&**heap, n);
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
