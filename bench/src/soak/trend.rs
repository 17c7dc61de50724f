//! Whether a series of readings rises: the Theil-Sen slope with Sen's confidence bounds, and the rule
//! that calls a resident set flat.
//!
//! The slope is the median of the slopes between every two readings, so single readings far off (a
//! fault that was just over, a page cache that filled) do not move it. Its bounds come from the
//! distribution of Kendall's score (P. K. Sen, "Estimates of the regression coefficient based on
//! Kendall's tau", 1968) and assume neither normal nor equal noise. They do assume that readings are
//! independent: give medians of rounds, not every sample.

use serde::Serialize;

/// Two-sided 95 % of the normal distribution.
const Z: f64 = 1.96;

/// Fewest readings from which a bound follows.
pub const FEWEST: usize = 5;

/// Growth over the whole window, as a share of the median reading, that is still called flat.
pub const TOLERATED_SHARE: f64 = 0.05;

/// Growth over the whole window that is called flat however small the resident set is: a segment.
pub const TOLERATED_BYTES: f64 = (4 << 20) as f64;

/// A slope and what it may be, in units of the reading per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Slope {
    /// Median of the slopes between every two readings.
    pub per_second: f64,
    /// Lower end of the 95 % interval.
    pub lower: f64,
    /// Upper end of the 95 % interval.
    pub upper: f64,
}

impl Slope {
    /// Of `(seconds, reading)` pairs at different times. `None` for fewer than [`FEWEST`].
    pub fn of(readings: &[(f64, f64)]) -> Option<Slope> {
        if readings.len() < FEWEST {
            return None;
        }
        let mut slopes: Vec<f64> = Vec::new();
        for (index, &(t, value)) in readings.iter().enumerate() {
            let later = readings[index + 1..].iter().filter(|(later, _)| *later != t);
            slopes.extend(later.map(|&(later, other)| (other - value) / (later - t)));
        }
        slopes.sort_by(f64::total_cmp);
        let n = readings.len() as f64;
        let score_deviation = (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
        let pairs = slopes.len() as f64;
        let off = ((pairs - Z * score_deviation) / 2.0).floor().max(0.0) as usize;
        let last = slopes.len().checked_sub(1)?;
        Some(Slope {
            per_second: crate::stats::median(&slopes)?,
            lower: slopes[off.min(last)],
            upper: slopes[last - off.min(last)],
        })
    }
}

/// The verdict on a resident set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Flatness {
    /// The slope, in bytes per second.
    pub slope: Slope,
    /// Median reading, in bytes.
    pub median: f64,
    /// From the first reading to the last, in seconds.
    pub window: f64,
    /// Growth over the window that would be tolerated, in bytes.
    pub tolerated: f64,
}

impl Flatness {
    /// Judges readings of a resident set, warm-up left out.
    pub fn of(readings: &[(f64, f64)]) -> Option<Flatness> {
        let slope = Slope::of(readings)?;
        let values: Vec<f64> = readings.iter().map(|&(_, value)| value).collect();
        let median = crate::stats::median(&values)?;
        let window = readings.last()?.0 - readings.first()?.0;
        let tolerated = (median * TOLERATED_SHARE).max(TOLERATED_BYTES);
        Some(Flatness { slope, median, window, tolerated })
    }

    /// Growth over the window that the readings prove: what the lower bound comes to.
    pub fn proven_growth(&self) -> f64 {
        self.slope.lower * self.window
    }

    /// Not flat: more growth is proven than is tolerated.
    pub fn rises(&self) -> bool {
        self.proven_growth() > self.tolerated
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const MIB: f64 = (1 << 20) as f64;

    /// `rounds` readings ten seconds apart: 60 MiB, noise of up to `noise` MiB either way, and a leak.
    fn readings(rounds: usize, noise: usize, leak_per_round: f64, seed: u64) -> Vec<(f64, f64)> {
        let mut rng = Rng::new(seed);
        let mut reading = |round: usize| {
            let off = if noise == 0 { 0.0 } else { rng.below(2 * noise * 1000) as f64 / 1000.0 };
            let value = 60.0 + off - noise as f64 + leak_per_round * round as f64;
            (10.0 * round as f64, value * MIB)
        };
        (0..rounds).map(&mut reading).collect()
    }

    #[test]
    fn a_line_has_its_slope_and_no_doubt() {
        let line: Vec<(f64, f64)> = (0..20).map(|i| (f64::from(i), 3.0 * f64::from(i))).collect();
        assert_eq!(Slope::of(&line), Some(Slope { per_second: 3.0, lower: 3.0, upper: 3.0 }));
        assert_eq!(Slope::of(&line[..FEWEST - 1]), None);
    }

    /// Seven readings with one inversion.
    #[test]
    fn bounds_are_the_ranks_that_sen_gives() {
        let series: Vec<(f64, f64)> = [5.0, 6.0, 8.0, 7.0, 9.0, 10.0, 11.0]
            .into_iter()
            .enumerate()
            .map(|(at, value)| (at as f64, value))
            .collect();
        // 21 slopes; the score's deviation is 6.66, so (21 - 13.05) / 2 stay outside at either end.
        let slope = Slope::of(&series).unwrap();
        assert_eq!(slope, Slope { per_second: 1.0, lower: 2.0 / 3.0, upper: 1.5 });
    }

    #[test]
    fn one_wild_reading_moves_nothing() {
        let mut series = readings(12, 0, 0.0, 1);
        series[5].1 = 900.0 * MIB;
        let flatness = Flatness::of(&series).unwrap();
        assert_eq!(flatness.slope.per_second, 0.0);
        assert!(!flatness.rises());
    }

    // The error that would make CI fail without a reason.
    #[test]
    fn noise_without_a_leak_is_flat_whatever_the_seed() {
        for seed in 0..500 {
            for rounds in [7, 30] {
                let flatness = Flatness::of(&readings(rounds, 4, 0.0, seed)).unwrap();
                assert!(!flatness.rises(), "seed {seed}, {rounds} rounds: {flatness:?}");
            }
        }
    }

    // requirement: D11 (the check can fail)
    #[test]
    fn a_leak_in_the_same_noise_is_found() {
        for seed in 0..500 {
            // 4 MiB per round: a short run's share of what is found there.
            let short = Flatness::of(&readings(7, 2, 4.0, seed)).unwrap();
            assert!(short.rises(), "seed {seed}: {short:?}");
            // 1 MiB per round shows in a long run.
            let long = Flatness::of(&readings(30, 4, 1.0, seed)).unwrap();
            assert!(long.rises(), "seed {seed}: {long:?}");
        }
    }

    #[test]
    fn growth_below_the_tolerance_is_flat_though_it_is_proven() {
        let flatness = Flatness::of(&readings(30, 0, 0.1, 3)).unwrap();
        assert!(flatness.proven_growth() > 2.8 * MIB && !flatness.rises(), "{flatness:?}");
    }
}
