//! The policy on huge pages reaches the system: what the kernel notes for the memory of blocks.
//!
//! Each test of the environment starts this binary again with it; the child looks at itself.
#![cfg(target_os = "linux")]

use std::alloc::{GlobalAlloc, Layout};
use std::process::Command;

use flagstone_slab::{Flagstone, Heap, HugePages};

/// Blocks come from here by calls; the test program itself uses the system's allocator.
static HEAP: Flagstone = Flagstone::new();

const ERRAND: &str = "FLAGSTONE_TEST_ERRAND";
const VARIABLE: &str = "FLAGSTONE_HUGE_PAGES";

/// Runs `errand` in a child process whose only test is `test`; returns its standard error.
fn in_child(test: &str, value: Option<&str>, errand: fn()) -> String {
    if std::env::var_os(ERRAND).is_some() {
        errand();
        return String::new();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(ERRAND, test);
    match value {
        Some(value) => command.env(VARIABLE, value),
        None => command.env_remove(VARIABLE),
    };
    let child = command.output().unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    let errors = String::from_utf8_lossy(&child.stderr).into_owned();
    assert!(child.status.success(), "{}\n{text}\n{errors}", child.status);
    assert!(text.contains("1 passed"), "the errand did not run: {text}");
    errors
}

/// The advice that the kernel notes for an address: huge pages, none, or neither. `None` on a
/// kernel that does not know of huge pages.
fn advice_at(address: usize) -> Option<Option<bool>> {
    std::fs::metadata("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in maps.lines() {
        let range = line.split_ascii_whitespace().next().and_then(|word| word.split_once('-'));
        let bound = |text| usize::from_str_radix(text, 16).ok();
        if let Some((start, end)) = range.and_then(|(a, b)| Some((bound(a)?, bound(b)?))) {
            inside = (start..end).contains(&address);
        } else if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
            let has = |flag| flags.split_ascii_whitespace().any(|f| f == flag);
            return Some(if has("hg") { Some(true) } else { has("nh").then_some(false) });
        }
    }
    panic!("{address:#x} is not mapped");
}

fn expect(policy: HugePages, large: Option<bool>, small: Option<bool>) {
    assert_eq!(Heap::global().huge_pages(), policy);
    let mut vectors = vec![];
    for (bytes, expected) in [(20 << 20, large), (100, small)] {
        let layout = Layout::from_size_align(bytes, 8).unwrap();
        // SAFETY: the layout is not empty; what is written lies in the block, which stays.
        let block = unsafe { HEAP.alloc(layout) };
        assert!(!block.is_null());
        if let Some(found) = advice_at(block.addr()) {
            assert_eq!(found, expected, "{bytes} bytes under {policy:?}");
        }
        vectors.push(block);
    }
    // Grown from where no huge pages were asked for.
    let small = Layout::from_size_align(600 << 10, 8).unwrap();
    // SAFETY: as above.
    let grown = unsafe { HEAP.realloc(HEAP.alloc(small), small, 64 << 20) };
    assert!(!grown.is_null());
    if let Some(found) = advice_at(grown.addr()) {
        assert_eq!(found, large, "a grown block under {policy:?}");
    }
}

#[test]
fn by_default_large_blocks_ask_and_others_do_not() {
    in_child("by_default_large_blocks_ask_and_others_do_not", None, || {
        expect(HugePages::Madvise, Some(true), None);
    });
}

#[test]
fn never_and_always_hold_for_all_memory() {
    in_child("never_and_always_hold_for_all_memory", Some("never"), || {
        let policy = Heap::global().huge_pages();
        let huge = policy == HugePages::Always;
        expect(policy, Some(huge), Some(huge));
    });
    in_child("never_and_always_hold_for_all_memory", Some("always"), || ());
}

#[test]
fn what_is_set_wins_over_the_environment() {
    in_child("what_is_set_wins_over_the_environment", Some("never"), || {
        Heap::global().set_huge_pages(HugePages::Always);
        expect(HugePages::Always, Some(true), Some(true));
    });
}

#[test]
fn a_name_that_is_none_is_complained_about() {
    let errors = in_child("a_name_that_is_none_is_complained_about", Some("sometimes"), || {
        expect(HugePages::Madvise, Some(true), None);
    });
    if std::env::var_os(ERRAND).is_none() {
        assert!(errors.contains("FLAGSTONE_HUGE_PAGES=sometimes"), "{errors}");
    }
}
