//! Two-level logic minimisation: a real program of very many small, equal blocks in lists.
//!
//! After espresso (Brayton et al., "Logic minimization algorithms for VLSI synthesis", 1984), a
//! fixture of allocator papers. A cover is a list of cubes (products of literals), each cube a block
//! of its own; the complement of the cover comes from Shannon's expansion, a recursion that makes
//! and drops thousands of covers; every cube is then expanded as far as the complement lets it,
//! and what the others cover is dropped. The result is checked to be the same function.

use std::hint::black_box;

use super::{Outcome, Param, Params, Workload, param};
use crate::measure::Section;
use crate::rng::Rng;

const PARAMS: &[Param] = &[
    param("variables", 20, "inputs of the function, at most 32"),
    param("cubes", 60, "cubes of its random cover"),
    param("literals", 8, "literals per cube"),
    param("functions", 50, "functions minimised"),
];

/// The workload.
pub const WORKLOAD: Workload = Workload {
    name: "espresso",
    about: "two-level logic minimisation with many small cubes",
    params: PARAMS,
    work: "functions",
    tiny: &[("variables", 8), ("cubes", 12), ("literals", 4), ("functions", 2)],
    run,
};

const SEED: u64 = 0x6573_7072;
/// Assignments on which a result is compared with its function.
const SAMPLES: usize = 2_000;

fn run(params: &Params) -> Outcome {
    let variables = params.count("variables").clamp(1, 32);
    let literals = params.count("literals").min(variables);
    let functions: Vec<Cover> = (0..params.get("functions"))
        .map(|number| {
            let mut rng = Rng::part(SEED, number);
            random_cover(&mut rng, variables, params.count("cubes"), literals)
        })
        .collect();

    let section = Section::start();
    let (mut operations, mut checksum) = (0u64, 0u64);
    let mut results = Vec::new();
    for function in &functions {
        let mut work = 0;
        let result = minimise(black_box(function), variables, &mut work);
        operations += work;
        for cube in &result {
            checksum =
                checksum.rotate_left(1) ^ cube.iter().fold(0, |sum, &f| sum * 31 + u64::from(f));
        }
        results.push(result);
    }
    let measured = section.stop();

    for (number, (function, result)) in functions.iter().zip(&results).enumerate() {
        let mut rng = Rng::part(!SEED, number as u64);
        for _ in 0..SAMPLES {
            let assignment = rng.next() as u32;
            let (before, after) = (holds(function, assignment), holds(result, assignment));
            assert_eq!(before, after, "function {number} changed at {assignment:#x}");
        }
    }
    Outcome { measured, operations, checksum, ..Outcome::default() }
}

/// Bit 1: the variable may be false; bit 2: it may be true. Both: it does not matter.
type Field = u8;
const FALSE: Field = 1;
const TRUE: Field = 2;
const ANY: Field = 3;

/// One field per variable, in a block of its own.
type Cube = Box<[Field]>;
type Cover = Vec<Cube>;

fn minimise(function: &Cover, variables: usize, work: &mut u64) -> Cover {
    let off = complement(function, variables, work);
    let mut cover: Cover = function.iter().map(|cube| expand(cube, &off, work)).collect();
    drop_contained(&mut cover);
    irredundant(cover, work)
}

/// The cubes of what `cover` does not hold, by Shannon's expansion on the most used variable.
fn complement(cover: &Cover, variables: usize, work: &mut u64) -> Cover {
    *work += 1;
    if cover.iter().any(is_universe) {
        return Cover::new();
    }
    let Some(split) = most_used(cover, variables) else {
        return vec![vec![ANY; variables].into_boxed_slice()];
    };
    let mut side_of = |side| {
        let mut missing = complement(&cofactor(cover, split, side), variables, work);
        missing.sort_unstable();
        missing
    };
    let (low, high) = (side_of(FALSE), side_of(TRUE));
    merge(low, high, split)
}

/// Joins the complements of both sides: what is missing on both is missing whatever the variable
/// is; the rest only on its side.
fn merge(low: Cover, high: Cover, split: usize) -> Cover {
    let mut result = Cover::with_capacity(low.len().max(high.len()));
    let restricted = |mut cube: Cube, side| {
        cube[split] = side;
        cube
    };
    let mut high = high.into_iter().peekable();
    for cube in low {
        while let Some(other) = high.next_if(|other| *other < cube) {
            result.push(restricted(other, TRUE));
        }
        if high.next_if_eq(&cube).is_some() {
            result.push(cube);
        } else {
            result.push(restricted(cube, FALSE));
        }
    }
    result.extend(high.map(|cube| restricted(cube, TRUE)));
    result
}

/// The cover where `variable` has the value of `side`.
fn cofactor(cover: &Cover, variable: usize, side: Field) -> Cover {
    cover
        .iter()
        .filter(|cube| cube[variable] & side != 0)
        .map(|cube| {
            let mut cube = cube.clone();
            cube[variable] = ANY;
            cube
        })
        .collect()
}

/// Frees one literal after the other as long as the cube meets nothing of the complement.
fn expand(cube: &Cube, off: &Cover, work: &mut u64) -> Cube {
    let mut best = cube.clone();
    for variable in 0..cube.len() {
        if best[variable] == ANY {
            continue;
        }
        *work += 1;
        let mut wider = best.clone();
        wider[variable] = ANY;
        if off.iter().all(|cube| !meets(cube, &wider)) {
            best = wider;
        }
    }
    best
}

fn drop_contained(cover: &mut Cover) {
    cover.sort_by_key(|cube| cube.iter().filter(|&&field| field != ANY).count());
    let mut kept = Cover::new();
    for cube in cover.drain(..) {
        if !kept.iter().any(|larger| contains(larger, &cube)) {
            kept.push(cube);
        }
    }
    *cover = kept;
}

/// Drops each cube that the others together cover.
fn irredundant(mut cover: Cover, work: &mut u64) -> Cover {
    let mut index = cover.len();
    while index > 0 {
        index -= 1;
        let cube = cover.swap_remove(index);
        // The others, seen from within the cube: it is covered if they hold everywhere there.
        let within: Cover = cover
            .iter()
            .filter(|other| meets(other, &cube))
            .map(|other| {
                other.iter().zip(&cube).map(|(o, c)| if *c == ANY { *o } else { ANY }).collect()
            })
            .collect();
        if !is_tautology(&within, cube.len(), work) {
            cover.push(cube);
            let last = cover.len() - 1;
            cover.swap(index, last);
        }
    }
    cover
}

fn is_tautology(cover: &Cover, variables: usize, work: &mut u64) -> bool {
    *work += 1;
    if cover.iter().any(is_universe) {
        return true;
    }
    match most_used(cover, variables) {
        None => false,
        Some(split) => [FALSE, TRUE]
            .into_iter()
            .all(|side| is_tautology(&cofactor(cover, split, side), variables, work)),
    }
}

/// The variable that most cubes have a literal of.
fn most_used(cover: &Cover, variables: usize) -> Option<usize> {
    let uses = |variable| cover.iter().filter(|cube| cube[variable] != ANY).count();
    let (count, variable) =
        (0..variables).map(|variable| (uses(variable), variables - variable)).max()?;
    (count > 0).then(|| variables - variable)
}

fn is_universe(cube: &Cube) -> bool {
    cube.iter().all(|&field| field == ANY)
}

fn meets(a: &Cube, b: &Cube) -> bool {
    a.iter().zip(b).all(|(a, b)| a & b != 0)
}

fn contains(larger: &Cube, smaller: &Cube) -> bool {
    larger.iter().zip(smaller).all(|(l, s)| l | s == *l)
}

fn holds(cover: &Cover, assignment: u32) -> bool {
    cover.iter().any(|cube| {
        cube.iter().enumerate().all(|(variable, field)| {
            let value = if assignment >> variable & 1 == 1 { TRUE } else { FALSE };
            field & value != 0
        })
    })
}

fn random_cover(rng: &mut Rng, variables: usize, cubes: usize, literals: usize) -> Cover {
    (0..cubes)
        .map(|_| {
            let mut cube = vec![ANY; variables].into_boxed_slice();
            let mut left = literals;
            while left > 0 {
                let variable = rng.below(variables);
                if cube[variable] == ANY {
                    cube[variable] = if rng.one_in(2) { TRUE } else { FALSE };
                    left -= 1;
                }
            }
            cube
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_complement_is_the_rest_on_every_assignment() {
        for seed in 0..20 {
            let cover = random_cover(&mut Rng::new(seed), 7, 9, 3);
            let off = complement(&cover, 7, &mut 0);
            for assignment in 0..1 << 7 {
                assert_ne!(holds(&cover, assignment), holds(&off, assignment), "{seed}");
            }
        }
    }

    #[test]
    fn a_minimised_cover_is_the_same_function_and_no_larger() {
        for seed in 0..20 {
            let cover = random_cover(&mut Rng::new(seed), 8, 14, 4);
            let result = minimise(&cover, 8, &mut 0);
            assert!(result.len() <= cover.len());
            for assignment in 0..1 << 8 {
                assert_eq!(holds(&cover, assignment), holds(&result, assignment), "{seed}");
            }
        }
    }

    #[test]
    fn two_halves_merge_to_the_whole() {
        let cover: Cover = vec![Box::new([FALSE, ANY]), Box::new([TRUE, ANY])];
        let result = minimise(&cover, 2, &mut 0);
        assert_eq!(result, vec![Box::from([ANY, ANY])]);
    }
}
