//! The worker as the driver sees it: its proof, its line of JSON, its refusals.

use std::process::{Command, Output};

use flagstone_bench::wire::{Served, WorkerReport};

fn worker(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_worker")).args(args).output().expect("the worker starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

// requirement: P2 (which allocator serves is shown at run time, and the check can fail)
#[test]
fn a_worker_without_a_peer_proves_the_system_allocator() {
    let output = worker(&["--check"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let served: Served = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(served.peer, "system");
}

#[test]
fn a_run_is_reported_in_one_line() {
    let run = || -> WorkerReport {
        let output = worker(&["--set", "pairs=5000", "--set", "size=48", "pairs"]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(output.stdout.iter().filter(|&&byte| byte == b'\n').count(), 1);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let (first, second) = (run(), run());
    assert_eq!(first.operations, 5000);
    assert_eq!(first.checksum, second.checksum);
    assert!(first.seconds > 0.0 && first.peak_rss_bytes > 0);
}

#[test]
fn bad_arguments_are_one_clear_line_and_status_2() {
    for (args, part) in [
        (&["no-such"][..], "no workload `no-such`"),
        (&[][..], "which workload?"),
        (&["--set", "colour=1", "pairs"][..], "workload `pairs` has no parameter `colour`"),
        (&["--set", "size", "pairs"][..], "`size` is no NAME=VALUE"),
        (&["--set", "size=big", "pairs"][..], "`big` is not a number"),
        (&["--frobnicate"][..], "unexpected argument `--frobnicate`"),
        (&["--deadline"][..], "--deadline wants a value"),
    ] {
        let output = worker(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = stderr(&output);
        assert!(text.contains(part) && text.lines().count() == 1, "{args:?}: {text}");
    }
}

#[test]
fn the_deadline_ends_a_run() {
    use std::os::unix::process::ExitStatusExt;
    let output = worker(&["--deadline", "1", "--set", "pairs=1000000000000", "pairs"]);
    assert_eq!(output.status.signal(), Some(libc::SIGALRM));
}

#[test]
fn every_workload_is_listed() {
    let output = worker(&["--list"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for workload in flagstone_bench::workload::ALL {
        assert!(text.contains(&format!("{}: ", workload.name)), "{}", workload.name);
    }
}
