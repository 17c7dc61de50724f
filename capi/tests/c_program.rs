//! A C program, compiled with the machine's `cc`, uses the header and both libraries.
//!
//! Skipped with a printed reason where there is no `cc`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Where cargo put the libraries that it built for this test.
fn libraries() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    test.parent().expect("a test is in a folder").to_path_buf()
}

fn has_cc() -> bool {
    let found = Command::new("cc").arg("--version").output().is_ok_and(|out| out.status.success());
    if !found {
        println!("skipped: no `cc` on this machine");
    }
    found
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    output
}

/// Compiles `check.c` with `link` arguments, runs it, and checks what it prints.
fn compile_and_run(name: &str, link: &[&str]) {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    run(Command::new("cc")
        .args(["-std=c11", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror"])
        .arg("-I")
        .arg(package.join("include"))
        .arg(package.join("tests/c/check.c"))
        .arg("-o")
        .arg(&program)
        .args(link));
    let output = run(&mut Command::new(&program));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let (version, stats) = text.split_once('\n').expect("two lines");
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    let stats: Value = serde_json::from_str(stats.trim()).expect("JSON");
    assert_eq!(stats["heap"], "global");
    assert!(stats["bytes"]["live"].is_u64());
    assert!(stats["fallback"]["histogram"].is_array());
}

// requirement: G1
#[test]
fn a_c_program_runs_with_the_shared_library() {
    if !has_cc() {
        return;
    }
    let folder = libraries();
    let folder = folder.to_str().expect("UTF-8");
    let path = format!("-Wl,-rpath,{folder}");
    compile_and_run("check-shared", &["-L", folder, "-lflagstone_capi", &path, "-lpthread"]);
}

#[test]
fn a_c_program_runs_with_the_static_library() {
    if !has_cc() {
        return;
    }
    let library = libraries().join("libflagstone_capi.a");
    let library = library.to_str().expect("UTF-8");
    // What rustc names for a static library on Linux (`--print native-static-libs`).
    compile_and_run("check-static", &[library, "-lgcc_s", "-lpthread", "-lm", "-ldl", "-lc"]);
}

/// The header is C++ as well.
#[test]
fn the_header_compiles_as_cxx() {
    let found = Command::new("c++").arg("--version").output();
    if !found.is_ok_and(|out| out.status.success()) {
        println!("skipped: no `c++` on this machine");
        return;
    }
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/flagstone.h");
    run(Command::new("c++")
        .args(["-std=c++17", "-Wall", "-Werror", "-fsyntax-only", "-x", "c++"])
        .arg(header));
}
