//! C programs, compiled with the machine's `cc`, use the header and both libraries.
//!
//! Skipped with a printed reason where there is no compiler.

mod common;

use std::path::Path;
use std::process::Command;

use common::{STATIC_NEEDS, compile, has, libraries, run};
use serde_json::Value;

/// Compiles `check.c` with `link` arguments, runs it, and checks what it prints.
fn compile_and_run(name: &str, link: &[&str]) {
    let program = compile("cc", "check.c", name, link);
    let output = run(&mut Command::new(&program));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let (version, stats) = text.split_once('\n').expect("two lines");
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    let stats: Value = serde_json::from_str(stats.trim()).expect("JSON");
    assert_eq!(stats["heap"]["heap"], "global");
    assert!(stats["heap"]["bytes"]["live"].is_u64());
    assert!(stats["heap"]["fallback"]["histogram"].is_array());
}

// requirement: G1
#[test]
fn a_c_program_runs_with_the_shared_library() {
    if has("cc") {
        let folder = libraries().to_str().expect("UTF-8");
        let path = format!("-Wl,-rpath,{folder}");
        compile_and_run("check-shared", &["-L", folder, "-lflagstone", &path, "-lpthread"]);
    }
}

#[test]
fn a_c_program_runs_with_the_static_library() {
    if has("cc") {
        let library = libraries().join("libflagstone.a");
        let mut link = vec![library.to_str().expect("UTF-8")];
        link.extend(STATIC_NEEDS);
        compile_and_run("check-static", &link);
    }
}

/// The header is C++ as well.
#[test]
fn the_header_compiles_as_cxx() {
    if has("c++") {
        let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/flagstone.h");
        run(Command::new("c++")
            .args(["-std=c++17", "-Wall", "-Werror", "-fsyntax-only", "-x", "c++"])
            .arg(header));
    }
}

/// A build leaves header and pkg-config file beside the libraries.
#[test]
fn header_and_pkg_config_file_lie_beside_the_libraries() {
    let header = std::fs::read_to_string(libraries().join("flagstone.h")).expect("a header");
    assert_eq!(header, include_str!("../include/flagstone.h"));
    let pc = std::fs::read_to_string(libraries().join("flagstone.pc")).expect("a .pc file");
    assert!(pc.contains(concat!("Version: ", env!("CARGO_PKG_VERSION"), "\n")));
    assert!(!pc.contains('@'), "an unfilled place in {pc}");
}
