//! `flagstone verify`, asked about what can be had without the C library: this program, its file, and
//! a command that runs on the system's allocator. `.ci/steps/preload` asks about commands under preload.

use std::process::{Command, Output};

fn verify(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flagstone"));
    // An empty LD_PRELOAD preloads nothing, and keeps the command from looking for a library.
    let output = command.arg("verify").args(arguments).env("LD_PRELOAD", "").output();
    let Output { status, stdout, stderr } = output.expect("runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

// requirement: P2
#[test]
fn the_program_and_its_file_say_the_same() {
    let this = env!("CARGO_BIN_EXE_flagstone");
    let (status, line, _) = verify(&[]);
    let (of_file, symbols, _) = verify(&["--binary", this]);
    if cfg!(feature = "flagstone-alloc") {
        assert_eq!((status, of_file), (0, 0), "{line}{symbols}");
        assert!(line.starts_with("yes: Flagstone "));
    } else {
        assert_eq!(status, 1, "{line}");
        assert_ne!(of_file, 0, "{symbols}");
    }
}

// requirement: P2
#[test]
fn a_command_on_the_systems_allocator_is_told_so() {
    let (status, output, _) = verify(&["--", "echo", "its own output"]);
    assert_eq!(status, 1);
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines[0], "its own output");
    assert!(lines[1].starts_with("no: "), "{output}");
}

#[test]
fn what_cannot_be_asked_is_refused_with_one_line() {
    for arguments in [
        &["--binary", "/no/such/file"][..],
        &["--binary", env!("CARGO_MANIFEST_PATH")],
        &["--", "/no/such/program"],
        &["--library", "/no/such.so", "--", "ls"],
        &["--library", "/no/such.so"],
    ] {
        let (status, output, errors) = verify(arguments);
        assert_eq!((status, output.as_str()), (2, ""), "{arguments:?}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}
