//! The tracing port: what is out, and where it was asked for.

use std::alloc::Layout;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use flagstone_slab::Heap;
use flagstone_slab::port::{Backing, BlockPort, FailAfter, FixedRegion, OsPages, Tracing};

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).unwrap()
}

// requirement: G8
#[test]
fn a_leak_is_reported_with_its_size_and_the_line_that_asked() {
    let heap = Heap::builder().build().unwrap();
    let port = Tracing::new(&*heap);
    let kept = port.try_alloc(layout(100)).unwrap();
    let line = line!() - 1;
    let freed = port.try_alloc(layout(200)).unwrap();
    // SAFETY: allocated above, freed once.
    unsafe { port.dealloc(freed, layout(200)) };
    assert_eq!((port.bytes_outstanding(), port.peak_bytes()), (100, 300));
    let leaks = port.leaks();
    assert_eq!(leaks.len(), 1);
    assert_eq!((leaks[0].bytes, leaks[0].request, leaks[0].site.line()), (100, 1, line));
    assert!(leaks[0].site.file().ends_with("tracing_port.rs"));
    let report = catch_unwind(AssertUnwindSafe(|| port.assert_nothing_outstanding())).unwrap_err();
    let report = report.downcast_ref::<String>().unwrap();
    assert!(report.contains("100 bytes outstanding in 1 pieces"), "{report}");
    assert!(report.contains(&format!("tracing_port.rs:{line}")), "{report}");
    // SAFETY: as above.
    unsafe { port.dealloc(kept, layout(100)) };
    port.assert_nothing_outstanding();
}

#[test]
fn a_resize_moves_the_entry_and_a_refused_one_keeps_it() {
    let heap = Heap::builder().build().unwrap();
    let port = Tracing::new(FailAfter::new(&*heap, usize::MAX));
    let block = port.try_alloc(layout(10)).unwrap();
    // SAFETY: the block is used with the layout it has, freed once.
    unsafe {
        let block = port.try_realloc(block, layout(10), layout(5000)).unwrap();
        assert_eq!(port.bytes_outstanding(), 5000);
        port.inner().fail_after(1);
        port.try_realloc(block, layout(5000), layout(9000)).unwrap_err();
        assert_eq!((port.bytes_outstanding(), port.failures()), (5000, 1));
        port.dealloc(block, layout(5000));
    }
    port.assert_nothing_outstanding();
}

#[test]
fn a_free_that_does_not_match_is_found_out() {
    let heap = Heap::builder().build().unwrap();
    let port = Tracing::new(&*heap);
    let block = port.try_alloc(layout(64)).unwrap();
    let wrong_size = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: none: the port panics before anything is freed.
        unsafe { port.dealloc(block, layout(32)) }
    }));
    assert!(wrong_size.is_err());
    // SAFETY: allocated above, freed once.
    unsafe { port.dealloc(block, layout(64)) };
    let twice = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: none: as above.
        unsafe { port.dealloc(block, layout(64)) }
    }));
    assert!(twice.is_err());
    port.assert_nothing_outstanding();
}

#[test]
fn backtraces_tell_who_asked_through_others() {
    #[inline(never)]
    fn the_one_who_asks(port: &Tracing<&Heap>) -> NonNull<u8> {
        port.try_alloc(layout(8)).unwrap()
    }
    let heap = Heap::builder().build().unwrap();
    let port = Tracing::new(&*heap).with_backtraces();
    let block = the_one_who_asks(&port);
    assert!(port.leaks()[0].to_string().contains("the_one_who_asks"));
    // SAFETY: allocated above.
    unsafe { port.dealloc(block, layout(8)) };
}

#[test]
fn ranges_may_go_back_in_parts_and_joined() {
    // SAFETY: sysconf only reads.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    let region = FixedRegion::new(Box::leak(Box::new_uninit_slice(20 * page)));
    let port = Tracing::new(region);
    let low = port.map(8 * page, 2 * page).unwrap();
    let high = port.map(4 * page, page).unwrap();
    assert_eq!(port.bytes_outstanding(), 12 * page);
    // SAFETY: parts of what was handed out, each once.
    unsafe {
        port.unmap(low.add(2 * page), 3 * page);
        assert_eq!(port.bytes_outstanding(), 9 * page);
        assert_eq!(port.leaks().len(), 3);
        port.unmap(low, 2 * page);
        port.unmap(low.add(5 * page), 3 * page);
        port.unmap(high, 4 * page);
    }
    port.assert_nothing_outstanding();
    // Two that touch go back as one.
    let pages = Tracing::new(FixedRegion::new(Box::leak(Box::new_uninit_slice(9 * page))));
    let upper = pages.map(page, page).unwrap();
    let lower = pages.map(2 * page, page).unwrap();
    assert_eq!(lower.addr().get() + 2 * page, upper.addr().get());
    // SAFETY: both were handed out, and go back once.
    unsafe { pages.unmap(lower, 3 * page) };
    pages.assert_nothing_outstanding();
}

// requirement: W1
#[test]
fn a_heap_over_a_fixed_buffer_stays_in_it_and_leaves_it() {
    let buffer = Box::leak(Box::new_uninit_slice(64 << 20));
    let region = Tracing::new(FixedRegion::new(buffer));
    let whole = region.inner().free_bytes();
    let heap = Heap::builder().backing(region).build().unwrap();
    let mut blocks = Vec::new();
    for bytes in [16, 100, 3000, 60_000, 400_000, 3 << 20].into_iter().cycle() {
        match heap.try_alloc(layout(bytes)) {
            Ok(block) => blocks.push((block, bytes)),
            Err(_) => break,
        }
        assert!(blocks.len() < 10_000, "the buffer has no end");
    }
    assert!(blocks.len() > 40, "{} blocks", blocks.len());
    for &(block, bytes) in &blocks {
        assert!(heap.backing().inner().contains(block.as_ptr()));
        // SAFETY: live, and as large as asked.
        unsafe { block.write_bytes(1, bytes) };
    }
    for (block, bytes) in blocks {
        // SAFETY: allocated above, freed once.
        unsafe { heap.dealloc(block, layout(bytes)) };
    }
    let region = heap.into_backing();
    region.assert_nothing_outstanding();
    assert_eq!(region.inner().free_bytes(), whole);
}

#[test]
fn a_backing_can_be_shared_by_heaps() {
    let backing = std::sync::Arc::new(Tracing::new(OsPages));
    let one = Heap::builder().backing(backing.clone()).build().unwrap();
    let other = Heap::builder().backing(backing.clone()).build().unwrap();
    one.try_alloc(layout(64)).unwrap();
    other.try_alloc(layout(64)).unwrap();
    let both = backing.bytes_outstanding();
    drop(one);
    assert!(backing.bytes_outstanding() > 0 && backing.bytes_outstanding() < both);
    drop(other);
    backing.assert_nothing_outstanding();
}
