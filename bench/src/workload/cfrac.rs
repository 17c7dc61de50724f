//! Prime factoring by continued fractions: a real program of many short-lived, tiny blocks.
//!
//! After cfrac, a fixture of allocator papers since Zorn and Grunwald. The method is Morrison and
//! Brillhart's ("A method of factoring and the factorization of F7", 1975): the expansion of
//! sqrt(N) gives numbers A with A^2 = (-1)^i Q (mod N) and Q small; enough Qs that factor over
//! small primes combine to a square, and that to a factor of N. Every big number on the way is
//! a block of 8 to 48 bytes that lives for one or two steps.

use std::hint::black_box;

use num_bigint::BigUint;

use super::{Outcome, Param, Params, Workload, param};
use crate::measure::Section;

const PARAMS: &[Param] = &[
    param("number", 2, "which of the built-in products of two primes to factor"),
    param("times", 3, "times to factor it"),
    param("base", 120, "primes in the factor base"),
];

/// The workload.
pub const WORKLOAD: Workload = Workload {
    name: "cfrac",
    about: "prime factoring by continued fractions",
    params: PARAMS,
    work: "times",
    tiny: &[("number", 0), ("base", 30), ("times", 1)],
    run,
};

/// Products of two primes: (factor, factor).
const PRODUCTS: [(u128, u128); 4] = [
    (1_000_003, 10_000_019),
    (1_000_000_007, 100_000_000_003),
    (60_000_000_000_013, 300_000_000_012_371),
    (7_000_000_000_000_789, 40_000_000_000_000_063),
];

fn run(params: &Params) -> Outcome {
    let (p, q) = PRODUCTS[params.count("number") % PRODUCTS.len()];
    let number = BigUint::from(p) * BigUint::from(q);
    let section = Section::start();
    let (mut operations, mut checksum) = (0, 0u64);
    for _ in 0..params.get("times") {
        let found = factor(black_box(&number), params.count("base"));
        let factor = found.factor.expect("the built-in numbers factor with a base of this size");
        assert!(factor == BigUint::from(p) || factor == BigUint::from(q), "{factor} is no factor");
        operations += found.steps;
        checksum = checksum.wrapping_add(found.steps ^ factor.iter_u64_digits().sum::<u64>());
    }
    Outcome { measured: section.stop(), operations, checksum, ..Outcome::default() }
}

/// What [`factor`] came to.
struct Found {
    factor: Option<BigUint>,
    /// Terms of the continued fraction that were looked at.
    steps: u64,
}

/// `a^2 = (-1)^negative * product of primes[i]^exponents[i] (mod n)`.
struct Relation {
    a: BigUint,
    exponents: Vec<u32>,
}

fn factor(n: &BigUint, base: usize) -> Found {
    let primes = factor_base(n, base);
    let zero = BigUint::ZERO;
    let one = BigUint::from(1u32);
    let root = n.sqrt();
    // The recurrence: q = (root + p) / d; p' = q d - p; d' = d_before + q (p - p');
    // a' = q a + a_before (mod n), and a'^2 = (-1)^i d' (mod n).
    let (mut p, mut d, mut d_before) = (zero.clone(), one.clone(), n.clone());
    let (mut a, mut a_before) = (one, zero.clone());
    let mut relations: Vec<Relation> = Vec::new();
    let mut steps = 0u64;
    // Period and luck are no concern for the built-in numbers; the bound ends a bad choice.
    while steps < 50_000_000 {
        steps += 1;
        let q = (&root + &p) / &d;
        let p_next = &q * &d - &p;
        let d_next = if p_next <= p {
            &d_before + &q * (&p - &p_next)
        } else {
            &d_before - &q * (&p_next - &p)
        };
        let a_next = (&q * &a + &a_before) % n;
        a_before = std::mem::replace(&mut a, a_next);
        d_before = std::mem::replace(&mut d, d_next);
        p = p_next;
        if let Some(exponents) = smooth(&d, steps % 2 == 1, &primes) {
            relations.push(Relation { a: a.clone(), exponents });
            if relations.len() >= primes.len() + 12 {
                let factor = combine(n, &relations, &primes);
                if factor.is_some() {
                    return Found { factor, steps };
                }
                relations.clear();
            }
        }
    }
    Found { factor: None, steps }
}

/// The exponents of `value` over the base, the sign first, or `None` if another prime is in it.
fn smooth(value: &BigUint, negative: bool, primes: &[u32]) -> Option<Vec<u32>> {
    let mut rest = value.clone();
    let mut exponents = vec![0; primes.len() + 1];
    exponents[0] = u32::from(negative);
    for (index, &prime) in primes.iter().enumerate() {
        loop {
            if &rest % prime != BigUint::ZERO {
                break;
            }
            rest /= prime;
            exponents[index + 1] += 1;
        }
        // Early abort: a value that shows no small factor seldom is smooth.
        if index == 20 && rest.bits() > value.bits().saturating_sub(6) {
            return None;
        }
    }
    (rest.bits() == 1).then_some(exponents)
}

/// Looks for products of relations that are squares, and tries each for a factor.
fn combine(n: &BigUint, relations: &[Relation], primes: &[u32]) -> Option<BigUint> {
    // Gaussian elimination over two elements: a row is the parities, and which relations made it.
    let width = primes.len() + 1;
    let mut rows: Vec<(Vec<bool>, Vec<bool>)> = relations
        .iter()
        .enumerate()
        .map(|(index, relation)| {
            let parities = relation.exponents.iter().map(|e| e % 2 == 1).collect();
            (parities, (0..relations.len()).map(|other| other == index).collect())
        })
        .collect();
    for column in 0..width {
        let Some(pivot) = rows.iter().position(|(parities, _)| parities[column]) else { continue };
        let pivot = rows.swap_remove(pivot);
        for row in rows.iter_mut().filter(|(parities, _)| parities[column]) {
            add(&mut row.0, &pivot.0);
            add(&mut row.1, &pivot.1);
        }
    }
    rows.iter().find_map(|(_, members)| try_square(n, relations, primes, members))
}

fn add(row: &mut [bool], other: &[bool]) {
    row.iter_mut().zip(other).for_each(|(a, b)| *a ^= b);
}

fn try_square(
    n: &BigUint,
    relations: &[Relation],
    primes: &[u32],
    members: &[bool],
) -> Option<BigUint> {
    let mut x = BigUint::from(1u32);
    let mut exponents = vec![0; primes.len() + 1];
    for (relation, _) in relations.iter().zip(members).filter(|&(_, &member)| member) {
        x = x * &relation.a % n;
        exponents.iter_mut().zip(&relation.exponents).for_each(|(sum, e)| *sum += e);
    }
    let mut y = BigUint::from(1u32);
    for (&prime, &exponent) in primes.iter().zip(&exponents[1..]) {
        y = y * BigUint::from(prime).modpow(&BigUint::from(exponent / 2), n) % n;
    }
    let difference = if x >= y { &x - &y } else { &y - &x };
    let divisor = gcd(difference, n.clone());
    (divisor.bits() > 1 && divisor != *n).then_some(divisor)
}

fn gcd(mut a: BigUint, mut b: BigUint) -> BigUint {
    while b != BigUint::ZERO {
        let rest = &a % &b;
        a = std::mem::replace(&mut b, rest);
    }
    a
}

/// The first `count` primes of which `n` is a square: no other can divide a term.
fn factor_base(n: &BigUint, count: usize) -> Vec<u32> {
    let is_prime = |c: u32| (2..).take_while(|d| d * d <= c).all(|d| !c.is_multiple_of(d));
    let is_square_of = |p: u32| {
        let residue = n % p;
        p == 2 || residue.modpow(&BigUint::from((p - 1) / 2), &p.into()).bits() == 1
    };
    (2u32..).filter(|&c| is_prime(c) && is_square_of(c)).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_products_factor() {
        for (p, q) in [(10_007u32, 100_003u32), (65_537, 1_000_003)] {
            let n = BigUint::from(p) * q;
            let factor = factor(&n, 25).factor.expect("a factor");
            assert!(factor == p.into() || factor == q.into(), "{n} gave {factor}");
        }
    }

    #[test]
    fn the_built_in_numbers_are_products_of_primes() {
        // By Miller and Rabin's test to the first twelve primes, which decides below 3 * 10^24.
        let is_prime = |n: u128| {
            let n = BigUint::from(n);
            let minus_one = &n - 1u32;
            let twos = minus_one.trailing_zeros().unwrap_or(0);
            [2u32, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37].into_iter().all(|witness| {
                let mut x = BigUint::from(witness).modpow(&(&minus_one >> twos), &n);
                x.bits() == 1
                    || (0..twos).any(|_| {
                        let hit = x == minus_one;
                        x = &x * &x % &n;
                        hit
                    })
            })
        };
        for (p, q) in PRODUCTS {
            assert!(is_prime(p) && is_prime(q), "{p} * {q}");
        }
    }

    #[test]
    fn gcds() {
        assert_eq!(gcd(84u32.into(), 36u32.into()), 12u32.into());
        assert_eq!(gcd(BigUint::ZERO, 5u32.into()), 5u32.into());
    }
}
