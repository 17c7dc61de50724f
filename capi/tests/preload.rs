//! Programs that know nothing of Flagstone run on it: preloaded, linked, and loaded late.
//!
//! The programs of `tests/c` check themselves; each also asks whether a fresh block is Flagstone's,
//! so that none passes on another allocator. Skipped with a printed reason where there is no compiler.

mod common;

use std::path::Path;
use std::process::Command;

use common::{STATIC_NEEDS, compile, has, libraries, run, shared};

/// Compiles a program twice: linked with the system's allocator, to be run with ours preloaded, and
/// linked statically with ours. Runs both.
fn preloaded_and_static(compiler: &str, source: &str) {
    if !has(compiler) {
        return;
    }
    let name = source.replace('.', "-");
    let plain = compile(compiler, source, &name, &["-lpthread", "-ldl"]);
    run(Command::new(&plain).arg("flagstone").env("LD_PRELOAD", shared()));
    // The control: the check for Flagstone can fail.
    let control = Command::new(&plain).arg("flagstone").output().expect("runs");
    assert!(!control.status.success(), "{source} took the system's allocator for Flagstone");

    let library = libraries().join("libflagstone.a");
    // Exported, so that the program finds Flagstone's own calls by name as under preload.
    let mut link = vec![library.to_str().expect("UTF-8"), "-rdynamic"];
    link.extend(STATIC_NEEDS);
    let linked = compile(compiler, source, &format!("{name}-static"), &link);
    run(Command::new(&linked).arg("flagstone"));
}

// requirement: P1
#[test]
fn the_malloc_family_keeps_the_rules_of_posix_and_glibc() {
    preloaded_and_static("cc", "family.c");
}

/// The proof on file can say yes, says no where it must, and is missing where the library is not.
// requirement: P2
#[test]
fn every_process_under_preload_proves_it_on_file() {
    if !has("cc") {
        return;
    }
    let program = compile("cc", "late.c", "proven", &["-lpthread", "-ldl"]);
    let proof = Path::new(env!("CARGO_TARGET_TMPDIR")).join("proof");
    let _ = std::fs::remove_file(&proof);
    // Late.c insists on the system's malloc: it fails under preload, after the proof.
    let mut child = Command::new(&program);
    let child = child.arg(shared()).env("FLAGSTONE_VERIFY", &proof);
    let mut run = child.spawn().expect("runs");
    let late = run.id();
    assert!(run.wait().expect("ends").success());
    let mut run = child.env("LD_PRELOAD", shared()).spawn().expect("runs");
    let preloaded = run.id();
    assert!(!run.wait().expect("ends").success());
    let text = std::fs::read_to_string(&proof).expect("written");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(text, format!("{late} no {version}\n{preloaded} yes {version}\n"));
}

#[test]
fn threads_and_forks_share_the_heap() {
    preloaded_and_static("cc", "forks.c");
}

#[test]
fn cxx_with_threads_and_exceptions() {
    preloaded_and_static("c++", "operators.cc");
}

/// Forms that the program has not replaced go through those that it has. Not linked statically: there the
/// program's forms and the library's would be two definitions of one name.
#[test]
fn a_cxx_program_that_replaced_some_forms() {
    if has("c++") {
        let program = compile("c++", "replaced.cc", "replaced", &["-lpthread", "-ldl"]);
        run(&mut Command::new(&program));
        run(Command::new(&program).arg("flagstone").env("LD_PRELOAD", shared()));
    }
}

/// An idle program's memory goes back without its help, by a thread that small programs do not have;
/// the control, without the thread, keeps it.
#[test]
fn memory_of_an_idle_program_goes_back() {
    if has("cc") {
        let program = compile("cc", "idle.c", "idle", &["-lpthread", "-ldl"]);
        run(Command::new(&program).arg("back").env("LD_PRELOAD", shared()));
        run(Command::new(&program)
            .arg("kept")
            .env("LD_PRELOAD", shared())
            .env("FLAGSTONE_SCAVENGER", "off"));
    }
}

// requirement: P1
#[test]
fn dlopen_from_a_program_on_another_allocator() {
    if has("cc") {
        let program = compile("cc", "late.c", "late", &["-lpthread", "-ldl"]);
        run(Command::new(program).arg(shared()));
    }
}
