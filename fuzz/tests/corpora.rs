//! Every kept input of every target, and a bounded number of new ones: mutated from the kept, as a fuzzer
//! would, from a seed that a failure prints.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flagstone_fuzz::{TARGETS, Target};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};

/// How long new inputs are tried for, for each target.
const TIME: Duration = Duration::from_millis(1_500);
/// New inputs at most, for each target.
const INPUTS: usize = 2_000;
/// Kept inputs are small and few, so that a clone of the repository stays so.
const LARGEST: usize = 2 << 10;
const MOST: usize = 120;

fn folder(target: Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora").join(target.name)
}

fn kept(target: Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = folder(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut kept: Vec<_> = files
        .map(|file| file.expect("a file").path())
        .map(|path| (path.clone(), fs::read(&path).expect("readable")))
        .collect();
    kept.sort();
    kept
}

/// Runs an input; a panic says which one it was.
fn run(target: Target, name: &dyn std::fmt::Debug, input: &[u8]) {
    let outcome = std::panic::catch_unwind(|| (target.run)(input));
    if let Err(panic) = outcome {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("{} fails on {name:?}: {hex}", target.name);
        std::panic::resume_unwind(panic);
    }
}

fn replay(name: &str) {
    let target = flagstone_fuzz::target(name).expect("a target");
    let kept = kept(target);
    assert!(!kept.is_empty() && kept.len() <= MOST, "{} inputs are kept", kept.len());
    for (path, input) in &kept {
        assert!(input.len() <= LARGEST, "{path:?} is not small");
        run(target, path, input);
    }
    let seed = rand_seed();
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let began = Instant::now();
    for number in 0..INPUTS {
        if began.elapsed() > TIME {
            break;
        }
        let (_, from) = &kept[rng.next_u32() as usize % kept.len()];
        let (_, with) = &kept[rng.next_u32() as usize % kept.len()];
        let input = mutated(&mut rng, from, with, target.longest);
        run(target, &format_args!("input {number} of seed {seed:?}"), &input);
    }
}

/// A seed of its own for every run.
fn rand_seed() -> [u8; 32] {
    let random = || RandomState::new().build_hasher().finish().to_le_bytes();
    let words = [random(), random(), random(), random()];
    std::array::from_fn(|at| words[at / 8][at % 8])
}

/// The start of one input, the end of another, and a few bytes changed.
fn mutated(rng: &mut TestRng, from: &[u8], with: &[u8], longest: usize) -> Vec<u8> {
    let mut below = |n: usize| rng.next_u32() as usize % n.max(1);
    let mut input = from[..below(from.len() + 1)].to_vec();
    input.extend_from_slice(&with[below(with.len() + 1)..]);
    for _ in 0..below(8) {
        match below(3) {
            0 if !input.is_empty() => {
                let at = below(input.len());
                input[at] = below(256) as u8;
            }
            1 if !input.is_empty() => {
                input.remove(below(input.len()));
            }
            _ => input.insert(below(input.len() + 1), below(256) as u8),
        }
    }
    input.truncate(longest);
    input
}

#[test]
fn heap() {
    replay("heap");
}

#[test]
fn resp() {
    replay("resp");
}

#[test]
fn commands() {
    replay("commands");
}

#[test]
fn config() {
    replay("config");
}

#[test]
fn capi() {
    replay("capi");
}

#[test]
fn every_target_has_a_folder_and_every_folder_a_target() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora");
    let mut folders: Vec<_> = fs::read_dir(corpora)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    folders.sort();
    let mut names = TARGETS.map(|target| target.name.to_owned());
    names.sort();
    assert_eq!(folders, names);
}
