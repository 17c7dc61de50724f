//! The arithmetic of the reports: medians, spreads, geometric means, and when a difference counts.
//!
//! The rule that decides (requirement Z3): two allocators differ in a cell only if their medians
//! differ by more than two sets of runs of *one* allocator do. See [`aa_spread`].

use crate::rng::Rng;

/// Splits of the A/A runs that [`aa_spread`] draws when there are too many to try all.
const SAMPLED_SPLITS: usize = 4000;
/// Up to this many runs in both groups together, every split is tried (C(14, 7) = 3432).
const ALL_SPLITS_UP_TO: usize = 14;
/// Share of the splits whose difference the spread must cover.
const COVERED: f64 = 0.95;

/// Middle value, or the mean of the two middle ones. `None` for no values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    median_of_sorted(&sorted)
}

/// Least, quartiles and largest of some values.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Spread {
    /// Least value.
    pub min: f64,
    /// First quartile, interpolated.
    pub q1: f64,
    /// Median.
    pub median: f64,
    /// Third quartile, interpolated.
    pub q3: f64,
    /// Largest value.
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Spread {
            min: *sorted.first()?,
            q1: quantile(&sorted, 0.25),
            median: median_of_sorted(&sorted)?,
            q3: quantile(&sorted, 0.75),
            max: *sorted.last()?,
        })
    }

    /// Distance between the quartiles as a share of the median.
    pub fn relative_iqr(&self) -> f64 {
        (self.q3 - self.q1) / self.median
    }
}

/// Geometric mean of positive values. `None` if there are none, or one is not positive.
pub fn geomean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (mut logs, mut count) = (0.0, 0u32);
    for value in values {
        if value <= 0.0 || !value.is_finite() {
            return None;
        }
        logs += value.ln();
        count += 1;
    }
    (count > 0).then(|| (logs / f64::from(count)).exp())
}

/// How far the medians of two groups of runs of the *same* allocator lie apart, as a share
/// (0.03 = 3 %).
///
/// `a` and `b` are the runs of one allocator under two labels. Their one observed difference is a
/// poor estimate of what chance can do, so the runs are pooled and split anew in every way into
/// two groups of the same sizes; the result is what 95 % of these differences stay within, and at
/// least the difference observed. `None` when a group is empty.
pub fn aa_spread(a: &[f64], b: &[f64]) -> Option<f64> {
    let observed = log_distance(median(a)?, median(b)?);
    let pool: Vec<f64> = a.iter().chain(b).copied().collect();
    let mut differences = Vec::new();
    let mut difference_of = |in_first: &dyn Fn(usize) -> bool| {
        let (first, second): (Vec<_>, Vec<_>) = (0..pool.len()).partition(|&index| in_first(index));
        let pick = |of: Vec<usize>| median(&of.into_iter().map(|i| pool[i]).collect::<Vec<_>>());
        if let (Some(x), Some(y)) = (pick(first), pick(second)) {
            differences.push(log_distance(x, y));
        }
    };
    if pool.len() <= ALL_SPLITS_UP_TO {
        for mask in 0u32..1 << pool.len() {
            if mask.count_ones() as usize == a.len() {
                difference_of(&|index| mask >> index & 1 == 1);
            }
        }
    } else {
        let mut rng = Rng::new(0x000a_11ce);
        let mut order: Vec<usize> = (0..pool.len()).collect();
        for _ in 0..SAMPLED_SPLITS {
            for last in (1..order.len()).rev() {
                order.swap(last, rng.below(last + 1));
            }
            let chosen = &order[..a.len()];
            difference_of(&|index| chosen.contains(&index));
        }
    }
    differences.sort_by(f64::total_cmp);
    Some(quantile(&differences, COVERED).max(observed).exp() - 1.0)
}

/// Whether a ratio can be told from 1 by runs whose A/A spread is `aa_spread`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stability {
    /// The difference is larger than the A/A spread: it counts.
    Stable,
    /// The difference lies inside the A/A spread: neither a win nor a loss.
    Unstable,
}

/// Judges `ratio` (of two medians) against the spread of [`aa_spread`].
pub fn stability(ratio: f64, aa_spread: f64) -> Stability {
    if ratio.ln().abs() > (1.0 + aa_spread).ln() { Stability::Stable } else { Stability::Unstable }
}

fn log_distance(a: f64, b: f64) -> f64 {
    (a / b).ln().abs()
}

fn median_of_sorted(sorted: &[f64]) -> Option<f64> {
    (!sorted.is_empty()).then(|| quantile(sorted, 0.5))
}

/// Linear interpolation between the two nearest ranks. `sorted` is not empty.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (at - at.floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_and_none() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn spread_has_quartiles() {
        let spread = Spread::of(&[5.0, 1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!(spread, Spread { min: 1.0, q1: 2.0, median: 3.0, q3: 4.0, max: 5.0 });
        assert!((spread.relative_iqr() - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn geometric_means() {
        assert!((geomean([1.0, 4.0]).unwrap() - 2.0).abs() < 1e-12);
        assert!((geomean([2.0, 8.0, 4.0]).unwrap() - 4.0).abs() < 1e-12);
        assert_eq!(geomean([]), None);
        assert_eq!(geomean([1.0, 0.0]), None);
        assert_eq!(geomean([1.0, f64::NAN]), None);
    }

    #[test]
    fn equal_runs_have_no_spread() {
        let spread = aa_spread(&[2.0; 5], &[2.0; 5]).unwrap();
        assert!(spread.abs() < 1e-12);
        assert_eq!(aa_spread(&[], &[1.0]), None);
    }

    #[test]
    fn the_spread_covers_the_observed_difference() {
        let spread = aa_spread(&[1.0, 1.0, 1.0], &[1.1, 1.1, 1.1]).unwrap();
        assert!(spread >= 0.1 - 1e-9, "{spread}");
        let single = aa_spread(&[1.0], &[1.25]).unwrap();
        assert!((single - 0.25).abs() < 1e-9, "{single}");
    }

    #[test]
    fn noise_is_seen_even_where_the_two_medians_agree_by_luck() {
        let noisy = [1.0, 1.3, 0.8, 1.2, 0.9, 1.0, 1.1];
        let spread = aa_spread(&noisy, &noisy).unwrap();
        assert!(spread > 0.05, "{spread}");
    }

    #[test]
    fn many_runs_are_sampled_to_about_the_same_answer() {
        let runs = |seed| {
            let mut rng = Rng::new(seed);
            (0..7).map(|_| 1.0 + rng.below(100) as f64 / 1000.0).collect::<Vec<f64>>()
        };
        let (a, b) = (runs(1), runs(2));
        let exact = aa_spread(&a, &b).unwrap();
        let twice: Vec<f64> = a.iter().chain(&a).copied().collect();
        let sampled = aa_spread(&twice, &b).unwrap();
        assert!(sampled > 0.0 && sampled <= 0.1 && exact <= 0.1, "{sampled} {exact}");
    }

    #[test]
    fn a_ratio_inside_the_spread_is_unstable_in_both_directions() {
        assert_eq!(stability(1.02, 0.03), Stability::Unstable);
        assert_eq!(stability(1.0 / 1.02, 0.03), Stability::Unstable);
        assert_eq!(stability(1.03, 0.03), Stability::Unstable);
        assert_eq!(stability(1.04, 0.03), Stability::Stable);
        assert_eq!(stability(0.96, 0.03), Stability::Stable);
        assert_eq!(stability(1.0, 0.0), Stability::Unstable);
    }
}
