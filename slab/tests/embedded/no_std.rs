//! The crate without `std`, in programs that are linked against nothing at all: if std came in, they
//! would not link.
//!
//! Builds `tests/no_std`, a package of its own because its profile must not unwind.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

fn programs() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/no_std");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no_std");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--release", "--target-dir"]).arg(&target);
        cargo.arg("--manifest-path").arg(package.join("Cargo.toml"));
        // A sanitizer's or a model's flags are not for these programs.
        for flags in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
            cargo.env_remove(flags);
        }
        success(&mut cargo);
        target.join("release")
    })
}

fn success(command: &mut Command) -> Output {
    let output = command.output().expect("starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {errors}", output.status);
    output
}

/// Collections, a full buffer of 256 KiB, and all of it back: with the heap as the global allocator.
#[test]
fn a_program_without_std_runs_on_it() {
    success(&mut Command::new(programs().join("global")));
}

#[test]
fn an_idle_heap_holds_its_table_and_no_more() {
    let output = success(&mut Command::new(programs().join("size")));
    let figures: Vec<usize> = String::from_utf8(output.stdout)
        .expect("text")
        .split_whitespace()
        .map(|figure| figure.parse().expect("a number"))
        .collect();
    let [region, metadata, heap] = figures[..] else { panic!("three figures and not {figures:?}") };
    assert!((255 << 10..=256 << 10).contains(&region));
    assert!((3 << 10..=4 << 10).contains(&metadata), "64 bytes for each of 63 or 64 slices");
    assert!(heap <= 1024, "{heap}");
}
