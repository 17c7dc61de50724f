//! The two ways to count instructions agree: callgrind over the process, single steps between marks.
#![cfg(all(target_os = "linux", feature = "driver"))]

use std::process::Command;

use flagstone_bench::driver::build::is_installed;
use flagstone_bench::driver::step;

fn worker(pairs: u64, marked: bool) -> Vec<String> {
    let mut args = vec![env!("CARGO_BIN_EXE_worker").to_owned()];
    for set in [format!("pairs={pairs}"), format!("marked={}", u8::from(marked))] {
        args.push(String::from("--set"));
        args.push(set);
    }
    args.push(String::from("pair-count"));
    args
}

fn stepped(pairs: u64) -> std::io::Result<u64> {
    let args = worker(pairs, true);
    let mut command = Command::new(&args[0]);
    command.args(&args[1..]);
    step::instructions(command)
}

fn callgrind(pairs: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(worker(pairs, false))
        .output()
        .expect("valgrind starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = said.lines().find(|line| line.contains("Collected :")).expect(&said);
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn single_steps_and_callgrind_agree() {
    if !is_installed("valgrind") {
        println!("skipped: valgrind is not installed");
        return;
    }
    let (low, high) = match (stepped(20), stepped(60)) {
        (Ok(low), Ok(high)) => (low, high),
        (Err(error), _) | (_, Err(error)) => {
            println!("skipped: this system does not let a process trace its child: {error}");
            return;
        }
    };
    let by_steps = (high - low) as f64 / 40.0;
    let by_callgrind = (callgrind(30_000) - callgrind(20_000)) as f64 / 10_000.0;
    // callgrind reports another processor to the program, which may then choose other code.
    let difference = (by_steps / by_callgrind - 1.0).abs();
    assert!(difference < 0.05, "{by_steps} by steps, {by_callgrind} by callgrind");
}

#[test]
fn a_process_without_marks_is_an_error() {
    assert!(step::instructions(Command::new("true")).is_err());
}
