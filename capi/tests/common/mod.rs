//! Helpers of the tests: the libraries as a C programmer gets them, and the machine's compilers.

#![allow(dead_code, reason = "each test file uses some of these")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The folder with `libflagstone.so` and `libflagstone.a`, built by the command that users run. Cargo
/// builds no libraries that a test does not link, and linking one would replace the test's `malloc`.
pub fn libraries() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp");
        run(Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "flagstone-capi", "--target-dir"])
            .arg(target));
        target.join("debug")
    })
}

/// The shared library.
pub fn shared() -> PathBuf {
    libraries().join("libflagstone.so")
}

/// Whether a compiler is installed; says so if not.
pub fn has(compiler: &str) -> bool {
    let found = Command::new(compiler).arg("--version").output();
    let found = found.is_ok_and(|out| out.status.success());
    if !found {
        println!("skipped: no `{compiler}` on this machine");
    }
    found
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}\n{errors}", output.status);
    output
}

/// Compiles a file of `tests/c` into a program; `link` are arguments of the linker.
pub fn compile(compiler: &str, source: &str, name: &str, link: &[&str]) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let standard = if compiler == "c++" { "-std=c++17" } else { "-std=c11" };
    run(Command::new(compiler)
        .args([standard, "-D_GNU_SOURCE", "-O1", "-fno-builtin", "-Wall", "-Wextra", "-Werror"])
        .arg("-I")
        .arg(package.join("include"))
        .arg(package.join("tests/c").join(source))
        .arg("-o")
        .arg(&program)
        .args(link));
    program
}

/// What rustc names for a static library on Linux (`--print native-static-libs`).
pub const STATIC_NEEDS: [&str; 5] = ["-lgcc_s", "-lpthread", "-lm", "-ldl", "-lc"];
