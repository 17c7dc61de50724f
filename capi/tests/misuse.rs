//! A C program that misuses `malloc` is ended, with a message that `docs/misuse.md` has.
//!
//! Skipped with a printed reason where there is no compiler.

mod common;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use common::{compile, has, libraries};

const DOCUMENTED: &str = include_str!("../../docs/misuse.md");

// requirement: G9
#[test]
fn faults_end_the_program_with_a_documented_message() {
    if !has("cc") {
        return;
    }
    let folder = libraries().to_str().expect("UTF-8");
    let path = format!("-Wl,-rpath,{folder}");
    let link = ["-L", folder, "-lflagstone", &path, "-lpthread", "-w"];
    let program = compile("cc", "misuse.c", "misuse", &link);
    let run = |fault: &str| Command::new(&program).arg(fault).output().expect("it runs");
    assert!(run("none").status.success(), "without a fault nothing is found");
    for (fault, message) in [
        ("double", "double free of"),
        ("double-large", "which is not the start of a large block in use"),
        ("inside", "which is not the start of a block"),
        ("stack", "which no Flagstone heap handed out"),
        ("realloc-stack", "which no Flagstone heap handed out"),
        ("after-realloc", "double free of"),
    ] {
        let ended = run(fault);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.signal(), Some(6), "{fault}: {}: {said}", ended.status);
        let line = said.lines().find(|line| line.starts_with("flagstone: ")).expect("a message");
        assert!(line.contains(message) && line.contains("0x"), "{fault}: {line}");
        assert!(DOCUMENTED.contains(message), "docs/misuse.md does not have {message:?}");
    }
}
